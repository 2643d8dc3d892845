"""Limits of machines where systemd looks after control groups: a Debian's systemd, started in namespaces of its own, and of the
users it logs in one each."""
import contextlib
import json

from guests import *  # noqa: F403

DEBIAN = os.environ.get("SNUG_IMAGE_DEBIAN", "/nowhere") + "/disk"  # guest-images/build debian-rootfs
USER = 12345
PATIENCE = 120
# First what is to be its root, then its control group.
START = """
echo 0 >"$2/cgroup.procs" &&
mount --make-rprivate / &&
mount -t proc proc "$1/proc" && mount -t sysfs -o ro sysfs "$1/sys" && mount -t tmpfs tmpfs "$1/run" &&
mount -t tmpfs tmpfs "$1/dev" && mkdir "$1/dev/pts" "$1/dev/shm" &&
mknod -m 666 "$1/dev/kvm" c 10 "$(stat -c %Lr /dev/kvm)" &&
for node in null zero full random urandom tty; do : >"$1/dev/$node" && mount --bind "/dev/$node" "$1/dev/$node" || exit; done &&
ln -s /proc/self/fd "$1/dev/fd" && ln -s null "$1/dev/console" &&
exec unshare --cgroup sh -c 'mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup" &&
  cd "$1" && pivot_root . mnt && exec env -i container=snug PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . sh -c "umount -l /mnt &&
  exec /lib/systemd/systemd --unit=basic.target --log-target=null"' sh "$1"
"""
# The package dbus-user-session.
USER_BUS = {
    "dbus.socket": "[Socket]\nListenStream=%t/bus\nExecStartPost=-/usr/bin/systemctl --user set-environment "
                   "DBUS_SESSION_BUS_ADDRESS=unix:path=%t/bus\n[Install]\nWantedBy=sockets.target\n",
    "dbus.service": "[Unit]\nRequires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\nExecStart=/usr/bin/dbus-daemon --session "
                    "--address=systemd: --nofork --nopidfile --systemd-activation --syslog-only\n",
}


def run(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BOUND)
    check(done.returncode == 0, f"{' '.join(words)} has failed", done.stdout)
    return done.stdout


class Systemd:
    """A root to which snug is added, and a systemd in it."""

    def __enter__(self):
        if os.geteuid() != 0 or os.path.isdir("/run/systemd/system"):
            raise Skip("only root of a host without systemd can have one for itself")
        if not (cgroups := cgroup_mount()):
            raise Skip("no cgroup v2 here")
        self.stack = contextlib.ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.root = folder + "/root"
        for name in ("lower", "upper", "root"):
            os.mkdir(f"{folder}/{name}")
        subprocess.run(["modprobe", "--all", "--quiet", "loop", "ext4", "overlay"])
        if subprocess.run(["mount", "-o", "loop,ro,noload", DEBIAN, folder + "/lower"], capture_output=True).returncode != 0:
            raise Skip("no loop devices here")
        self.stack.callback(run, "umount", "-R", folder + "/lower")
        run("mount", "-t", "tmpfs", "tmpfs", folder + "/upper")
        self.stack.callback(run, "umount", "-R", folder + "/upper")
        for name in ("upper", "work"):
            os.mkdir(f"{folder}/upper/{name}")
        run("mount", "-t", "overlay", "-o", f"lowerdir={folder}/lower,upperdir={folder}/upper/upper,workdir={folder}/upper/work", "overlay",
            self.root)
        self.stack.callback(run, "umount", "-R", self.root)
        self.add()
        for controller in ("cpu", "memory", "io", "pids"):
            with contextlib.suppress(OSError), open(cgroups + "/cgroup.subtree_control", "w") as file:
                file.write("+" + controller)
        self.group = f"{cgroups}/systemd-{os.getpid()}"
        os.mkdir(self.group)
        self.stack.callback(self.remove_group)
        self.process = subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts", "sh", "-c", START, "sh",
                                         self.root, self.group], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.stack.callback(self.end)
        try:
            self.wait()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    def add(self):
        for source, name in ((PROGRAM, "usr/local/bin/snug"), (MICRO + "/spin.elf", "srv/spin.elf"), (TINY, "srv/kernel"), (INITRD, "srv/initrd")):
            shutil.copy(source, f"{self.root}/{name}")
            os.chmod(f"{self.root}/{name}", 0o755)
        for name, text in USER_BUS.items():
            os.makedirs(self.root + "/etc/systemd/user/sockets.target.wants", exist_ok=True)
            with open(f"{self.root}/etc/systemd/user/{name}", "w") as file:
                file.write(text)
        os.symlink("../dbus.socket", self.root + "/etc/systemd/user/sockets.target.wants/dbus.socket")
        # The image lacks PAM's module of systemd, which would set the variable.
        for name, text in (("pam.d/systemd-user", "account required pam_permit.so\nsession required pam_permit.so\n"),
                           ("systemd/system/user@.service.d/folder.conf", "[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n")):
            os.makedirs(os.path.dirname(f"{self.root}/etc/{name}"), exist_ok=True)
            with open(f"{self.root}/etc/{name}", "w") as file:
                file.write(text)
        with open(self.root + "/etc/passwd", "a") as users, open(self.root + "/etc/group") as groups:
            users.write(f"somebody:x:{USER}:{USER}::/home/somebody:/bin/sh\n")
            known = re.sub(r"^(kvm:.*:)$", r"\1somebody", groups.read(), flags=re.M)
        with open(self.root + "/etc/group", "w") as groups:
            groups.write(f"{known}somebody:x:{USER}:\n")
        os.makedirs(self.root + "/home/somebody")
        os.chown(self.root + "/home/somebody", USER, USER)

    def wait(self):
        """Until it has started what there is."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if self.process.poll() is not None:
                check(False, "systemd has ended", self.process.stdout.read())
            if time.monotonic() > deadline:
                check(False, "systemd does not come up", self.inside("systemctl", "list-jobs").stdout if self.pid() else "")
            if self.pid() and self.inside("systemctl", "is-system-running").stdout.strip() in (b"running", b"degraded"):
                return
            time.sleep(0.2)

    def pid(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            return (file.read().split() or [None])[0]

    def inside(self, *words):
        return subprocess.run(["nsenter", "--target", self.pid(), "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--root", "--wd", *words],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BOUND)

    def run(self, *words):
        done = self.inside(*words)
        check(done.returncode == 0, f"{' '.join(words)} has failed", done.stdout)
        return done.stdout.decode()

    def end(self):
        self.process.kill()
        self.process.wait()

    def remove_group(self):
        deadline = time.monotonic() + BOUND
        while os.path.isdir(self.group):
            for top, folders, _ in os.walk(self.group, topdown=False):
                for name in folders:
                    with contextlib.suppress(OSError):
                        os.rmdir(f"{top}/{name}")
            with contextlib.suppress(OSError):
                os.rmdir(self.group)
            check(time.monotonic() < deadline, "its control groups are left")
            time.sleep(0.05)


def tried(systemd, *session, manager):
    """A machine with limits, started by what `session` is a prefix of; `manager`: the flags by which its systemd is asked."""

    def snug_there(*words, status=0):
        done = systemd.inside(*session, "env", "TMPDIR=/dev/shm", "/usr/local/bin/snug", *words)
        check(done.returncode == status, f"snug {' '.join(words)}: status {done.returncode}", done.stdout)
        return done.stdout.decode()

    snug_there("run", "-d", "--name", "limited", "--kernel", "/srv/spin.elf", "--limits-cpu", "0.25", "--limits-memory", "+64M")
    info = json.loads(snug_there("inspect", "limited"))
    unit = os.path.basename(info["cgroup"])
    check(re.fullmatch(r"snug-limited-\d+\.scope", unit), "not a scope of systemd's", info)
    shown = systemd.run(*session, "systemctl", *manager, "show", "-p", "ActiveState,CPUQuotaPerSecUSec,MemoryMax,Delegate", unit)
    for line in ("ActiveState=active", "CPUQuotaPerSecUSec=250ms", f"MemoryMax={info['limits']['memory_bytes']}", "Delegate=yes"):
        check(line in shown.splitlines(), f"not {line}", shown)
    # Zeros are threads of the kernel's, which do not live in there.
    held = set(systemd.run("cat", info["cgroup"] + "/cgroup.procs").split()) - {"0"}
    check(len(held) == 2 and str(info["pid"]) in held, "a process is elsewhere", str(held), str(info))
    check(info["jail"] == "complete", "not locked in", str(info))
    check("25000 100000" in systemd.run("cat", info["cgroup"] + "/cpu.max"), "another limit")
    limits = json.loads(snug_there("stats", "--json", "limited"))["limits"]
    check(limits["cpu"] == 0.25 and limits["used_memory_bytes"] > 0, "stats says something else", limits)
    snug_there("kill", "limited")
    deadline = time.monotonic() + BOUND
    while systemd.inside("test", "-e", info["cgroup"]).returncode == 0:
        check(time.monotonic() < deadline, "its scope is left", unit)
        time.sleep(0.05)
    # More than it has: by the kernel, and said once.
    systemd.run("sh", "-c", "chmod 1777 /dev/shm; truncate -s 256M /dev/shm/disk; chmod 666 /dev/shm/disk")
    ended = snug_there("run", "--kernel", "/srv/kernel", "--initrd", "/srv/initrd", "-m", "128M", "--kernel-cache", "false", "--limits-memory", "+16M",
                       "--timeout", "300s", "--disk", "/dev/shm/disk,ephemeral=true", *on_console("dd if=/dev/zero of=/dev/vda bs=1M count=200"),
                       status=137)
    check(ended.count("limits.memory") == 1, "it does not say why", ended)


@test
@exhaustive
def systemd_gives_root_its_limits():
    with Systemd() as systemd:
        # As a login's shell has it: in a group of its own, which is systemd's.
        tried(systemd, "systemd-run", "--quiet", "--pipe", "--wait", "--collect", manager=["--system"])


@test
def systemd_gives_a_user_its_limits():
    with Systemd() as systemd:
        systemd.run("systemctl", "start", "systemd-logind.service", f"user@{USER}.service")
        folder = f"/run/user/{USER}"
        tried(systemd, "systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--uid={USER}", f"--slice=user-{USER}.slice",
              f"--setenv=XDG_RUNTIME_DIR={folder}", "--setenv=HOME=/home/somebody", f"--setenv=DBUS_SESSION_BUS_ADDRESS=unix:path={folder}/bus",
              manager=["--user"])
