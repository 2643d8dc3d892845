"""What the process that runs the guest has, as root sees it from outside: nothing but what the spec gives it."""
import collections
import contextlib
import errno
import json
import shutil
import socket
import stat

from micro import *  # noqa: F403

PROGRAM = os.path.abspath(os.environ.get("SNUG_BIN", "build/vmm/cli/snug"))
NOBODY = 65534
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
CPUS = 2
ENGINES = ("io=auto", "io=auto,thread=true", "io=threads", "io=threads,thread=true")

# A host, as far as user namespaces go, that makes none; with all capabilities there, and with none.
# What to do is known before the way to /proc/sys is closed, or only in general.
HINT = "sudo sysctl user.max_user_namespaces=10000"
GENERAL_HINT = "a limit of user.max_*_namespaces is reached"
NO_USER_NAMESPACES = ("unshare", "--user", "--map-root-user", "sh", "-c",
                      'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh")
NOR_CAPABILITIES = (*NO_USER_NAMESPACES, "setpriv", "--bounding-set=-all", "--inh-caps=-all")


def only_root():
    if os.geteuid() != 0:
        raise Skip("root alone may look behind the wall")


def whole_jail():
    only_root()
    if missing := jail_missing():
        raise Skip(f"this host refuses a part of the jail: {'; '.join(missing)}")


USER = 12345
# As that user, with a /dev/kvm that anybody may use: most hosts have one of a group's, this one may have root's.
AS_USER = ("unshare", "--mount", "sh", "-c",
           "mount -t tmpfs -o mode=755 none /mnt && mknod -m 666 /mnt/kvm c 10 232 && mount --bind /mnt/kvm /dev/kvm &&"
           f' exec setpriv --reuid={USER} --regid={USER} --clear-groups -- "$@"', "sh")


class Walled:
    """A machine with every kind of end, its folder and its two processes."""

    def __init__(self, guest="spin", jail=None, prefix=()):
        jail = jail or ("auto" if jail_missing() else "require")
        self.jail, self.prefix, self.guest = jail, prefix, guest

    def __enter__(self):
        self.ends = folder_with_peer(ECHO)
        self.folder, self.env = self.ends.__enter__()
        self.env.update(XDG_RUNTIME_DIR=self.folder + "/run", XDG_CACHE_HOME=self.folder + "/cache", HOME=self.folder)
        os.mkdir(self.folder + "/run", 0o700)
        for name in ("out", "err"):
            open(f"{self.folder}/{name}", "w").close()
        for number in range(len(ENGINES)):
            with open(f"{self.folder}/disk{number}", "w") as disk:
                disk.truncate(8 << 20)
        shutil.copy(f"{MICRO}/{self.guest}.elf", self.folder + "/kernel")
        self.program = PROGRAM
        if self.prefix == AS_USER:
            # What it is started from may lie where only root gets.
            self.program = shutil.copy(PROGRAM, self.folder + "/snug")
            for folder, _, files in os.walk(self.folder):
                for name in (folder, *(f"{folder}/{file}" for file in files)):
                    os.chown(name, USER, USER)
        self.start()
        return self

    def start(self):
        disks = [flag for number, engine in enumerate(ENGINES) for flag in ("--disk", f"{self.folder}/disk{number},{engine}")]
        # What a shell or a supervisor leaves open: a folder of the host's, and somebody's socket.
        foreign = os.open("/", os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as other, open(self.folder + "/out", "wb") as out, open(self.folder + "/err", "wb") as err:
            self.process = subprocess.Popen(
                [*self.prefix, self.program, "run", "--jail", self.jail, "--kernel", self.folder + "/kernel", "--name", "walled",
                 "-c", str(CPUS), *disks, "--net", "user", "--vsock", self.folder + "/vsock", "--virtio-console", "pty",
                 "--virtio-console", f"socket:{self.folder}/console", "--virtio-console", f"file:{self.folder}/port",
                 "--channel", f"org.example,socket={self.folder}/channel", "--console", f"file:{self.folder}/serial"],
                env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, pass_fds=(foreign, other.fileno()))
        os.close(foreign)
        deadline = time.monotonic() + BOUND
        while self.info().get("state") != "running":
            check(time.monotonic() < deadline and self.process.poll() is None, "it does not run", self.said())
            time.sleep(0.05)
        self.machine = machine_process(self.process.pid)
        check(self.machine != self.process.pid, "the guest has no process of its own")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.ends.__exit__(None, None, None)

    def info(self):
        """What `snug inspect` says."""
        # A machine of another user is nobody's to see.
        prefix = self.prefix if self.prefix == AS_USER else ()
        said = subprocess.run([*prefix, self.program, "inspect", "walled"], env=self.env, capture_output=True, timeout=BOUND)
        return json.loads(said.stdout) if said.returncode == 0 else {}

    def said(self):
        with open(self.folder + "/err") as file:
            return file.read()

    def proc(self, name):
        """A file of the machine's process."""
        with open(f"/proc/{self.machine}/{name}") as file:
            return file.read()

    def descriptors(self):
        """Each as what it leads to, and its status; not one that is closed while we look."""
        folder = f"/proc/{self.machine}/fd"
        found = []
        for number in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                found.append((os.readlink(f"{folder}/{number}"), os.stat(f"{folder}/{number}")))
        return found


def open_threads(walled):
    """Those that are not confined."""
    found = []
    for task in tasks_of(walled.machine):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (status := status_of(f"{walled.machine}/task/{task}"))["Seccomp"] != "2":
                found.append(status["Name"])
    return found


def check_confined(walled):
    """All of its threads. One that begins does it first of all, which may still be to come."""
    deadline = time.monotonic() + BOUND
    while still_open := open_threads(walled):
        check(time.monotonic() < deadline, "threads are not confined", still_open)
        time.sleep(0.02)


def unix_sockets():
    """Those of this network namespace by inode: path and type."""
    with open("/proc/net/unix") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return {int(row[6]): (row[7] if len(row) > 7 else "", int(row[4])) for row in rows}


def check_descriptors(walled):
    """In the end: whoever has just asked the machine something may still be hung up on."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return check_descriptors_now(walled)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def check_descriptors_now(walled):
    # So many at most, each. Disks: the file, and another open file for its lock.
    files = {f"{walled.folder}/disk{number}": 2 for number in range(len(ENGINES))}
    files.update({f"{walled.folder}/{name}": 1 for name in ("out", "serial", "port", "kernel")})
    files.update({f"{walled.folder}/err": 2, "/dev/null": 1, "/dev/ptmx": 1})
    # What it uses, and for snapshots: of its own memory, whose addresses on the host are told to nobody behind the wall.
    files.update({f"{proc}/{walled.machine}/{name}": 1 for proc in ("", "/proc") for name in ("smaps", "pagemap")})
    # What snug stats tells of the warden.
    files.update({f"{proc}/{walled.process.pid}/{name}": 1 for proc in ("", "/proc") for name in ("stat", "statm")})
    # Queues of disks, network, vsock, entropy, balloon, and of the console: two of each port, two for all of them.
    ports = 4
    devices = len(ENGINES) + 5
    queues = len(ENGINES) + 2 + 3 + 1 + 5 + 2 * ports + 2
    loops = 2 + len(ENGINES)  # the event loop's, the builder's, and devices with a thread
    anonymous = {"eventfd": 2 * queues + 3 * devices + loops, "timerfd": 17 + devices, "eventpoll": loops, "io_uring": 2,
                 "kvm-vm": 1, **{f"kvm-vcpu:{number}": 1 for number in range(CPUS)}}
    known = unix_sockets()
    sockets = collections.Counter()
    seen = collections.Counter()
    for target, status in walled.descriptors():
        check(not stat.S_ISDIR(status.st_mode), f"a folder: {target}")
        kind = re.fullmatch(r"anon_inode:\[?([^]]*)\]?", target)
        if stat.S_ISSOCK(status.st_mode):
            sockets[known.get(status.st_ino, ("one that is no unix socket", 0))] += 1
        elif stat.S_ISFIFO(status.st_mode):
            seen["pipe"] += 1
        elif kind:
            seen[kind[1]] += 1
        elif stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat("/dev/kvm").st_rdev:
            seen["kvm"] += 1
        elif re.fullmatch(r"/dev/pts/\d+", target):
            seen["pty"] += 1
        elif target.startswith(f"{walled.folder}/cache/snug/kernels/"):
            seen["kept kernel"] += 1
        else:
            check(target in files, f"nothing that the spec names: {target}")
            seen[target] += 1
    bounds = {**files, **anonymous, "pipe": 1, "kvm": 1, "pty": 1, "kept kernel": 1}
    for kind, count in seen.items():
        check(count <= bounds.get(kind, 0), f"{count} of {kind}", dict(seen))
    stream, packets = socket.SOCK_STREAM, socket.SOCK_SEQPACKET
    # passt, and the warden: calls and news. The others listen.
    expected = {("", stream): 1, ("", packets): 2, (f"{walled.folder}/run/snug/walled/control.sock", stream): 1,
                **{(f"{walled.folder}/{name}", stream): 1 for name in ("vsock", "console", "channel")}}
    named = collections.Counter()
    for (path, kind), count in sockets.items():
        # By the name that they were bound by, of a folder's descriptor.
        full = next((want for want, _ in expected if want and path.endswith("/" + os.path.basename(want))), path)
        named[(full, kind)] += count
    check(named == expected, "other sockets than these", expected, dict(sockets))
    print(f"    descriptors: {sum(seen.values()) + sum(sockets.values())}, {sum(sockets.values())} of them sockets,"
          f" {seen['eventfd']} eventfds (at most {anonymous['eventfd']})")


def check_process(walled, user):
    status = status_of(walled.machine)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        # The bounding set of a user namespace's own: whoever has none of the others can make nothing of it.
        check(int(status[name], 16) == 0, f"{name} is {status[name]}")
    check(status["Uid"].split() == [str(user)] * 4 and status["Gid"].split() == [str(user)] * 4, "another user", status)
    if user == NOBODY:
        check(not status["Groups"], "it has groups", status["Groups"])
    check(status["NSpid"].split()[-1] == "1", "not the first of its PID namespace", status["NSpid"])
    for name in NAMESPACES:
        ours, theirs = (os.readlink(f"/proc/{pid}/ns/{name}") for pid in ("self", walled.machine))
        check(ours != theirs, f"it shares our {name} namespace")
    check_confined(walled)
    for task in tasks_of(walled.machine):
        one = status_of(f"{walled.machine}/task/{task}")
        check(one["NoNewPrivs"] == "1" and one["Seccomp"] == "2" and int(one.get("Seccomp_filters", "1")) >= 1,
              f"thread {one['Name']} is not confined", one)
        check(int(one["CapEff"], 16) == 0, "a thread has capabilities", one)
    root = f"/proc/{walled.machine}/root"
    check(os.listdir(root) == [], "its root is not empty", os.listdir(root))
    check(os.statvfs(root).f_flag & os.ST_RDONLY, "its root can be written to")
    try:
        os.mkdir(root + "/new")
        check(False, "a folder could be made in its root")
    except OSError as problem:
        check(problem.errno == errno.EROFS, "its root is refused for another reason", problem)
    check(len(walled.proc("mountinfo").splitlines()) == 1, "it sees more mounts than one", walled.proc("mountinfo"))
    check(os.readlink(f"/proc/{walled.machine}/cwd") == "/", "it is somewhere")
    limits = {line[:26].strip(): line[26:].split()[:2] for line in walled.proc("limits").splitlines()}
    check(limits["Max core file size"] == ["0", "0"], "it may leave a core", limits)
    check(int(limits["Max processes"][1]) <= CPUS + 256, "it may have any number of threads", limits)
    with open("/proc/self/oom_score_adj") as ours:
        check(walled.proc("oom_score_adj") == ours.read(), "another rank when memory runs out")
    for name in ("environ", "mem", "maps"):
        owner = os.stat(f"/proc/{walled.machine}/{name}").st_uid
        check(owner == 0, f"/proc/PID/{name} is of user {owner}")
        look = subprocess.run(["cat", f"/proc/{walled.machine}/{name}"], capture_output=True, user=USER, group=USER,
                              extra_groups=[])
        check(look.returncode != 0 and not look.stdout, f"anybody may read /proc/PID/{name}")
    info = walled.info()
    check((info["jail"], info["jail_missing"]) == ("complete", []), "not what inspect says", info)


@test
@unrecorded()
def wall_of_a_machine_of_root():
    whole_jail()
    with Walled() as walled:
        check_descriptors(walled)
        check_process(walled, NOBODY)


@test
@unrecorded()
def wall_of_a_machine_of_an_ordinary_user():
    whole_jail()
    if subprocess.run([*AS_USER, "test", "-w", "/dev/kvm"], stderr=subprocess.DEVNULL).returncode != 0:
        raise Skip("no /dev/kvm for such a user")
    with Walled(prefix=AS_USER) as walled:
        check_descriptors(walled)
        check_process(walled, USER)


@test
@unrecorded()
def wall_after_many_boots():
    """Machines are built anew behind the wall: each engine of a disk, with a thread and without, all the other ends."""
    only_root()
    with Walled(guest="reset") as walled:
        deadline = time.monotonic() + BOUND
        while walled.info().get("boots", 0) <= 20:
            check(time.monotonic() < deadline and walled.process.poll() is None, "it does not boot again", walled.said())
            time.sleep(0.1)
        check_confined(walled)
        stop_machine(walled.process.pid)
        try:
            check(len(walled.descriptors()) < 200, "descriptors pile up", len(walled.descriptors()))
        finally:
            continue_machine(walled.process.pid)
        check("passt" not in walled.said() and "error" not in walled.said(), "something is said", walled.said())


@test
@unrecorded()
def wall_that_is_off():
    only_root()
    with Walled(jail="off") as walled:
        check(walled.info()["jail"] == "off", "not what inspect says", walled.info())
        for task in tasks_of(walled.machine):
            check(status_of(f"{walled.machine}/task/{task}")["Seccomp"] == "0", "a thread is confined")
        for name in NAMESPACES:
            ours, theirs = (os.readlink(f"/proc/{pid}/ns/{name}") for pid in ("self", walled.machine))
            check(ours == theirs, f"another {name} namespace")
        check(os.listdir(f"/proc/{walled.machine}/root"), "its root is empty")
        for target, status in walled.descriptors():
            check(not stat.S_ISDIR(status.st_mode), f"a folder: {target}")


@test
@unrecorded()
def wall_on_hosts_that_refuse_a_part_of_it():
    whole_jail()
    for prefix, hint in ((NO_USER_NAMESPACES, GENERAL_HINT), (NOR_CAPABILITIES, HINT)):
        if subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL).returncode != 0:
            raise Skip("no user namespaces here that could be such a host")
        step = "user namespace: No space left on device"
        with Walled(jail="auto", prefix=prefix) as walled:
            info = walled.info()
            check(info["jail"] == "partial" and any(missing.startswith(step) for missing in info["jail_missing"]),
                  "inspect does not name it", info)
            check(not walled.said().count("error"), "something is said", walled.said())
            check_confined(walled)
            for target, status in walled.descriptors():
                check(not stat.S_ISDIR(status.st_mode), f"a folder: {target}")
        run = ("run", "--kernel", f"{MICRO}/hello.elf", "--log-level", "info")
        told = subprocess.run([*prefix, PROGRAM, *run, "--jail", "auto"], capture_output=True, text=True, timeout=BOUND)
        check(told.returncode == 0 and step in told.stderr, "it does not run, or does not say how", told.stderr)
        refused = subprocess.run([*prefix, PROGRAM, *run, "--jail", "require"], capture_output=True, text=True, timeout=BOUND)
        check(refused.returncode == 125 and not refused.stdout, f"status {refused.returncode}", refused.stderr)
        check(step in refused.stderr and hint in refused.stderr and "jail: auto" in refused.stderr, "it does not say what to do",
              refused.stderr)
        doctor = snug("doctor", prefix=prefix)
        check(f"jail: {step} (guests run without it)" in doctor.out and hint in doctor.out,
              "doctor does not name it", doctor.out)
