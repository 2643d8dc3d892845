"""Limits of machines: processors' time and memory, how a machine ends that needs more, and what is left of its control group."""
import contextlib
import json

from guests import *  # noqa: F403

SPIN = MICRO + "/spin.elf"


def needs(*keys):
    if missing := set(keys) - set(limits_here()):
        why = re.findall(r"^ *note  limits: (.*)$", snug("doctor").out, re.M)
        raise Skip(f"no limits of {', '.join(sorted(missing))} here: {'; '.join(why)}")


def by_hand():
    """The folder of cgroups, where root may do as it likes: no systemd looks after them."""
    if os.geteuid() != 0 or os.path.isdir("/run/systemd/system"):
        raise Skip("only root of a host without systemd divides its control groups by hand")
    needs("cpu", "memory")
    return cgroup_mount()


def written(path, text):
    with open(path, "w") as file:
        file.write(text)


def content(path):
    with open(path) as file:
        return file.read()


class Place:
    """An XDG_RUNTIME_DIR of a test's own, with a machine in it."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.env = {**os.environ, "XDG_RUNTIME_DIR": self.folder.name}
        # A session's bus is found by it else.
        self.env.setdefault("DBUS_SESSION_BUS_ADDRESS", f"unix:path=/run/user/{os.geteuid()}/bus")
        return self

    def __exit__(self, *_):
        for name in self.snug("ps", "-q", "-a").out.split():
            self.snug("rm", "--force", name)
        self.folder.cleanup()

    def snug(self, *arguments, **keywords):
        return snug(*arguments, env=self.env, **keywords)

    def start(self, *flags, **keywords):
        self.snug("run", "-d", "--name", "limited", *flags, **keywords).expect(0)
        return self.info()

    def info(self):
        return json.loads(self.snug("inspect", "limited").expect(0).out)

    def limits(self):
        return json.loads(self.snug("stats", "--json", "limited").expect(0).out)["limits"]


def linux(*flags, command):
    return ["--kernel", TINY, "--initrd", INITRD, "-m", "128M", "--timeout", "300s", *flags, *on_console(command)]


def wait_gone(path):
    deadline = time.monotonic() + BOUND
    while os.path.exists(path):
        check(time.monotonic() < deadline, f"{path} is left")
        time.sleep(0.05)


@test
def limits_throttle_a_guest_that_spins():
    needs("cpu", "memory")
    with Place() as place:
        info = place.start("--limits-cpu", "0.25", "--limits-memory", "+64M", *linux(command="while :; do :; done"))
        check(info["limits"] == {"cpu": 0.25, "memory_bytes": 192 << 20}, "inspect says something else", info)
        group = info["cgroup"]
        check(content(f"{group}/cpu.max") == "25000 100000\n", "another limit", content(f"{group}/cpu.max"))
        check(content(f"{group}/memory.max") == f"{192 << 20}\n", "another limit", content(f"{group}/memory.max"))
        held = content(f"{group}/cgroup.procs").split()
        check(set(map(str, processes_of(info["pid"]))) <= set(held), "a process is elsewhere", held)
        before, deadline = place.limits(), time.monotonic() + BOUND
        while (now := place.limits())["throttled_periods"] < before["throttled_periods"] + 20:
            check(time.monotonic() < deadline, "the guest is not held back", before, now)
            time.sleep(0.1)
        # Of the periods in which it ran, it had no more than a fourth of each, and what a period may overrun by.
        periods, used = (now[key] - before[key] for key in ("cpu_periods", "used_cpu_seconds"))
        check(used < (periods + 2) * 0.1 * 0.25 * 1.5, f"it had {used} s in {periods} periods", before, now)
        check(0 < now["used_memory_bytes"] <= 192 << 20 and now["memory_kills"] == 0, "odd memory", now)
        row = place.snug("stats").expect(0).out
        check(re.search(r"cpu 0\.25 \(waited in \d+ of \d+ periods\), memory [\d.]+M of 192M", row), "no limits in the table", row)
        place.snug("kill", "limited").expect(0)
        wait_gone(group)


@test
def limits_stats_count_the_warden():
    """What stats says a machine uses is no less than what its warden and the other process do."""
    with Place() as place:
        info = place.start("--kernel", SPIN)
        check(info["limits"] == {} and info["cgroup"] == "", "limits that nobody asked for", info)
        usage = json.loads(place.snug("stats", "--json", "limited").expect(0).out)
        check("limits" not in usage, "limits that nobody asked for", usage)
        warden = int(status_of(info["pid"])["VmRSS"].split()[0]) * 1024
        check(usage["memory_bytes"] - usage["guest_memory_bytes"] > warden, "the warden is not counted", usage, warden)


@test
@exhaustive
def limits_of_memory_that_are_enough():
    """Most of the guest's memory is touched, which leaves room for what snug and the kernel need. (Files count as well where they are
    in memory, as a lab's are: a kernel that is unpacked into the cache, a disk.)"""
    needs("memory")
    ended = guest(TINY, "-m", "128M", "--limits-memory", "+32M", "--kernel-cache", "false",
                  command="mount -t tmpfs -o size=50% t /mnt; dd if=/dev/zero of=/mnt/full bs=1M count=200 2>/dev/null; echo filled").expect(0)
    check("filled" in marked(ended), "not to its end", ended.out)


# What an ephemeral disk holds in memory nothing can be taken back of, as long as there is no swap.
FILL = "dd if=/dev/zero of=/dev/vda bs=1M count=200; echo filled"


@contextlib.contextmanager
def kept_in_memory():
    needs("memory")
    if len(content("/proc/swaps").splitlines()) > 1:
        raise Skip("this host has swap: what is too much for the memory goes there")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        with open(folder + "/disk", "wb") as disk:
            disk.truncate(256 << 20)
        before = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = folder
        try:
            yield ["--limits-memory", "+16M", "--disk", folder + "/disk,ephemeral=true"]
        finally:
            os.environ.pop("TMPDIR")
            if before is not None:
                os.environ["TMPDIR"] = before


@test
def limits_of_memory_that_are_not_enough():
    with kept_in_memory() as flags:
        ended = snug("run", *linux(*flags, command=FILL)).expect(137)
        check("killed" in ended.err and "limits.memory" in ended.err, "it does not say why", ended.err)
        check(len([line for line in ended.err.splitlines() if "killed" in line]) == 1, "said more than once", ended.err)
        if not EVERYTHING:
            return
        # In the background, for those who ask later.
        with Place() as place:
            group = place.start(*linux(*flags, command=FILL))["cgroup"]
            waited = place.snug("wait", "limited").expect(137)
            check("limits.memory" in waited.err, "it does not say why", waited.err)
            wait_gone(group)


@test
def limits_leave_nothing():
    """However a machine ends, its control group goes: with it, or by the next command."""
    needs("cpu", "memory")

    def killed(which):
        return lambda place, info: os.kill({"warden": info["pid"], "machine": machine_process(info["pid"])}[which], signal.SIGKILL)

    ends = {"kill": lambda place, info: place.snug("kill", "limited").expect(0),
            "stop": lambda place, info: place.snug("stop", "-t", "0.1", "limited").expect(0),
            "the warden killed": killed("warden"), "the machine's process killed": killed("machine")}
    for end, do in ends.items():
        for flags in ((), ("--rm",)):
            with Place() as place:
                info = place.start("--kernel", SPIN, "--limits-cpu", "0.5", "--limits-memory", "+64M", *flags)
                held = hold(info["pid"])
                check(os.path.isdir(info["cgroup"]), "no control group", info)
                do(place, info)
                check_gone(held)
                place.snug("ps", "-a").expect(0)
                wait_gone(info["cgroup"])


@test
def limits_where_there_are_no_control_groups():
    if os.geteuid() != 0 or not cgroup_mount():
        raise Skip("root alone can take them away, where there are any")
    without = ("unshare", "--mount", "sh", "-c", 'umount -a -l -t cgroup2 && exec "$@"', "sh")
    ended = snug("run", "--kernel", SPIN, "--limits-cpu", "1", prefix=without).expect(125)
    check("limits: cpu: no cgroup v2 is mounted here; sudo mount -t cgroup2" in ended.err, "no clear error", ended.err)
    check(len(ended.err.splitlines()) == 1, "not one line", ended.err)
    check("note  limits: no cpu, memory, io_weight here: no cgroup v2" in snug("doctor", prefix=without).out, "doctor does not know")
    # Whoever asks for none does without.
    snug("run", "--kernel", MICRO + "/hello.elf", prefix=without).expect(0)


@contextlib.contextmanager
def box(controllers="+cpu +memory"):
    """A control group that is given these, and a prefix of commands that are to run in it."""
    root = by_hand()
    written(f"{root}/cgroup.subtree_control", "+cpu +memory")
    folder = f"{root}/box-{os.getpid()}"
    outer = folder + "/outer"
    os.makedirs(outer + "/inner")
    try:
        written(f"{folder}/cgroup.subtree_control", "+cpu +memory")
        written(f"{outer}/cgroup.subtree_control", controllers)
        yield outer + "/inner", ("sh", "-c", f'echo $$ >{outer}/inner/cgroup.procs && exec "$@"', "sh")
    finally:
        for path in (outer + "/inner", outer, folder):
            deadline = time.monotonic() + GONE
            while True:
                try:
                    os.rmdir(path)
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)


GONE = 30


@test
def limits_in_a_group_that_snug_is_alone_in():
    with box() as (inner, prefix):
        ended = snug("run", *linux("--limits-memory", "+64M", "--limits-cpu", "0.9", command="cat /proc/uptime"), prefix=prefix)
        ended.expect(0)
        check(content(f"{inner}/cgroup.subtree_control").strip() == "" and not content(f"{inner}/cgroup.procs"), "not as it was")
        check([entry.name for entry in os.scandir(inner) if entry.is_dir()] == [], "a group is left")


@test
def limits_in_a_group_with_other_processes():
    with box() as (inner, prefix):
        other = subprocess.Popen([*prefix, "sleep", "1000"])
        try:
            deadline = time.monotonic() + BOUND
            while not content(f"{inner}/cgroup.procs"):
                check(time.monotonic() < deadline, "the other process does not come")
            ended = snug("run", "--kernel", SPIN, "--limits-memory", "+64M", prefix=prefix).expect(125)
            check(f"other processes in it (sleep ({other.pid}))" in ended.err and "Delegate=yes" in ended.err, "no clear error",
                  ended.err)
            check([entry.name for entry in os.scandir(inner) if entry.is_dir()] == [], "a group is left")
            # Nor can time alone.
            snug("run", "--kernel", SPIN, "--limits-cpu", "0.9", prefix=prefix).expect(125)
            check([entry.name for entry in os.scandir(inner) if entry.is_dir()] == [], "a group is left")
        finally:
            other.kill()
            other.wait()


@test
def limits_without_the_controller():
    with box("+cpu") as (inner, prefix):
        ended = snug("run", "--kernel", SPIN, "--limits-memory", "+64M", prefix=prefix).expect(125)
        check(f"{inner} has no memory, it has cpu; have it given on by the group above: echo +memory" in ended.err, "no clear error",
              ended.err)


@test
def limits_of_an_ordinary_user():
    user = 12345
    with kvm_for_everybody(), box() as (inner, prefix), tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        as_user = (*prefix, "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "env",
                   f"XDG_RUNTIME_DIR={folder}", f"HOME={folder}", f"XDG_CACHE_HOME={folder}")
        program = shutil.copy(PROGRAM, folder + "/snug")
        kernel = shutil.copy(MICRO + "/hello.elf", folder + "/kernel")

        def run():
            done = subprocess.run([*as_user, program, "run", "--kernel", kernel, "--limits-memory", "+64M"], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=BOUND)
            return Ended(done.returncode, done.stdout, done.stderr)

        refused = run().expect(125)
        check("Permission denied" in refused.err and "Delegate=yes" in refused.err, "no clear error", refused.err)
        for name in ("", "/cgroup.procs", "/cgroup.subtree_control"):
            os.chown(inner + name, user, user)
        run().expect(0)
        check([entry.name for entry in os.scandir(inner) if entry.is_dir()] == [], "a group is left")
