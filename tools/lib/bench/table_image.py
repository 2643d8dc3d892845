"""image: machines made of container images beside podman's containers of the same images, with crun."""
import contextlib
import json
import os
import shutil
import subprocess
import time

from bench import processes

ABOUT = "image: a container image as a machine, from pull to first output and when it is here, beside podman (crun) with the same image"
WHERE = "counted"

CPU = "CPU time"
MEMORY = "memory of an idle one"
DISK = "disk"
GROUPS = "/sys/fs/cgroup"


class Group:
    """A control group for what a command starts, whoever becomes its parent; for a `with`."""

    def __init__(self, name):
        self.path = f"{GROUPS}/snug-bench-{name}"

    def __enter__(self):
        os.mkdir(self.path)
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            with open(self.path + "/cgroup.kill", "w") as file:
                file.write("1")
        deadline = time.monotonic() + processes.GONE_BOUND
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.1)
        with contextlib.suppress(OSError):
            os.rmdir(self.path)

    def inside(self, command):
        return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', self.path, *command]

    def seconds(self):
        with open(self.path + "/cpu.stat") as file:
            return int(next(line for line in file if line.startswith("usage_usec")).split()[1]) / 1e6

    def pids(self):
        with open(self.path + "/cgroup.procs") as file:
            return [int(line) for line in file]

    def settled_seconds(self):
        """CPU time when all that was started has ended."""
        patience = processes.Patience(processes.BOUND)
        while self.pids():
            if patience.over():
                raise processes.Stuck(f"processes are left: {self.pids()}")
            time.sleep(0.05)
        return self.seconds()


def bytes_in(folder):
    """On the disk, each file once."""
    seen = {}
    for top, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(top, name))
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


class Snug:
    name = "snug"

    def __init__(self, setting, layout, tag):
        self.setting, self.folder, self.image = setting, setting.path("image-snug"), f"oci:{layout}:{tag}"
        self.environment = {**setting.environment, "XDG_CACHE_HOME": self.folder, "XDG_RUNTIME_DIR": setting.folder, "HOME": setting.folder}

    def missing(self):
        return None if shutil.which("skopeo") else "skopeo is not installed"

    def forget(self):
        """Everything but the kernel, which came with snug."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder + "/snug/default")
        for name, path in (("kernel", self.setting.kernels["ELF"]), ("initrd", self.setting.initrd)):
            os.symlink(path, f"{self.folder}/snug/default/{name}")

    def run(self, *words, flags=()):
        return [self.setting.snug, "run", "--memory", "128M", *flags, "--image", self.image, "--", *words]

    def pull_and_run(self, *words):
        return self.run(*words)

    @contextlib.contextmanager
    def idle(self, group):
        # Its first output says that it is there: under --icount the clock leaps, by which -d --wait goes.
        with processes.Guest(group.inside(self.run("sh", "-c", "echo sleeping; sleep 100000")), self.environment) as guest:
            guest.wait_for(b"sleeping")
            yield

    def disk(self):
        return bytes_in(self.folder + "/snug/oci")


class Podman:
    name = "podman, crun"

    def __init__(self, setting, layout, tag):
        self.folder, self.source = setting.path("image-podman"), f"oci:{layout}:{tag}"
        self.environment = {**setting.environment, "XDG_RUNTIME_DIR": self.folder + "/runtime", "HOME": self.folder}
        self.base = ["podman", "--root", self.folder + "/root", "--runroot", self.folder + "/run", "--storage-driver", "overlay", "--runtime", "crun",
                     "--cgroup-manager", "cgroupfs"]
        # As a machine without ports, without a network; in the group that is counted.
        self.flags = ["--network", "none", "--cgroups", "disabled"]

    def missing(self):
        for program in ("podman", "crun"):
            if not shutil.which(program):
                return f"{program} is not installed"
        return None if os.geteuid() == 0 else "only root's storage is measured"

    def forget(self):
        subprocess.run([*self.base, "rm", "-f", "-a"], env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["umount", self.folder + "/root/overlay"], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.folder + "/runtime")

    def pull_and_run(self, *words):
        script = 'id=$("$@" pull -q "$SOURCE") && exec "$@" run --rm %s "$id" %s' % (" ".join(self.flags), " ".join(words))
        return ["env", "SOURCE=" + self.source, "sh", "-c", script, "sh", *self.base]

    def _id(self):
        done = subprocess.run([*self.base, "images", "-q"], env=self.environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.split()[0]

    def run(self, *words, flags=()):
        return [*self.base, "run", "--rm", *self.flags, *flags, self._id(), *words]

    @contextlib.contextmanager
    def idle(self, group):
        try:
            processes.run_to_end(group.inside(self.run("sleep", "100000", flags=["-d", "--name", "idle"])), self.environment)
            yield
        finally:
            subprocess.run([*self.base, "rm", "-f", "-t", "0", "idle"], env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def disk(self):
        return bytes_in(self.folder + "/root")


class Crun:
    """The same root, unpacked beforehand: what podman's runtime alone takes."""
    name = "crun alone, on an unpacked root"

    def __init__(self, setting, layout, tag):
        self.folder, self.layout, self.environment = setting.path("image-crun"), f"{layout}:{tag}", setting.environment

    def missing(self):
        for program in ("crun", "umoci"):
            if not shutil.which(program):
                return f"{program} is not installed"
        return None if os.geteuid() == 0 else "only root's containers are measured"

    def forget(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        subprocess.run(["umoci", "unpack", "--image", self.layout, self.folder], stderr=subprocess.DEVNULL, check=True)

    def run(self, *words):
        with open(self.folder + "/config.json") as file:
            config = json.load(file)
        config["process"].update(args=list(words), terminal=False)
        with open(self.folder + "/config.json", "w") as file:
            json.dump(config, file)
        return ["crun", "--cgroup-manager", "disabled", "run", "--bundle", self.folder, "snug-bench"]


def measure(setting, figures):
    pairs = [("APPS", "busybox"), ("APPS", "redis")] + ([] if setting.quick else [("LARGE", "large")])
    for image, tag in pairs:
        # A layout in RAM, by a path that podman can make a name of.
        layout = setting.path(f"layout-{image.lower()}")
        if not os.path.exists(layout):
            shutil.copytree(setting.images[image] + "/layout", layout)
        engines = [kind(setting, layout, tag) for kind in ((Snug, Podman, Crun) if tag == "busybox" else (Snug, Podman))]
        case = f"{tag}, {packed_mib(layout, tag):.0f} MiB packed"
        for engine in engines:
            if not figures.begin("image", case, engine.name):
                continue
            if why := engine.missing():
                figures.missing("image", case, CPU, engine.name, why)
                continue
            try:
                measure_one(setting, figures, case, engine)
            except (processes.Failed, subprocess.SubprocessError, OSError) as problem:
                figures.missing("image", case, CPU, engine.name, str(problem))


def packed_mib(layout, tag):
    with open(layout + "/index.json") as file:
        manifest = next(one for one in json.load(file)["manifests"] if one["annotations"]["org.opencontainers.image.ref.name"] == tag)
    with open(f"{layout}/blobs/{manifest['digest'].replace(':', '/')}") as file:
        return sum(layer["size"] for layer in json.load(file)["layers"]) / (1 << 20)


def counted(engine, command, text):
    """CPU time of all that the command starts, to its end."""
    def once():
        with Group("run") as group:
            _, output = processes.run_to_end(group.inside(command), engine.environment)
            if text not in output:
                raise processes.Failed(f"it did not print {text!r}: {output.strip()[-200:]}")
            return group.settled_seconds()
    return processes.tried(once)


def measure_one(setting, figures, case, engine):
    how = setting.method("cpu.stat of a control group with all processes")
    large = case.startswith("large")
    if hasattr(engine, "pull_and_run"):
        values = []
        for number in range(1 if large or setting.quick else setting.runs + 1):
            engine.forget()
            seconds = counted(engine, engine.pull_and_run("echo", "hello"), "hello")
            if number or large or setting.quick:  # the first is thrown away: it fills caches
                values.append(seconds)
        figures.add("image", case, CPU + ", nothing here: pull to the end of `echo hello`", engine.name, values, "s", how)
        figures.add("image", case, DISK, engine.name, [engine.disk() / (1 << 20)], "MiB", "blocks of all files that it keeps of the image")
    else:
        engine.forget()
    values = [counted(engine, engine.run("echo", "hello"), "hello") for _ in range(setting.runs + 1)][1:]
    figures.add("image", case, CPU + ", image here: `echo hello`", engine.name, values, "s", how)
    if hasattr(engine, "idle") and not large:
        figures.add("image", case, MEMORY, engine.name, [idle_mib(engine)], "MiB",
                    "PSS of all processes of a machine or container that sleeps, guest memory included")


def idle_mib(engine):
    with Group("idle") as group, engine.idle(group):
        time.sleep(processes.SETTLED)
        return sum(own_pss_kib(pid) for pid in group.pids()) / 1024


def own_pss_kib(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has just ended
