"""Guests that break the rules: each case of the micro-guest `hostile` on a real monitor, which must neither crash nor
hang nor spin nor leak, and whose device must work again after a reset."""
import atexit
import socket
import threading

from micro import *  # noqa: F403

# One case of so many is run: where exits cost a hundred times what they cost elsewhere.
SHARE = int(os.environ.get("SNUG_HOSTILE_SHARE", "1"))
# The disk does its work on a thread of its own, the network on the loop's; "true": it too, "false": neither.
DISK_THREAD = os.environ.get("SNUG_HOSTILE_THREADS", "true")
NET_THREAD = os.environ.get("SNUG_HOSTILE_THREADS", "false")
# What a monitor may grow by; the sanitizer keeps what was freed for a while.
ROOM_KIB = 65536 if "asan" in PROGRAM else 1024
IDLE_SHARE = 0.2  # of a processor
LOW_END, HIGH_END = 0xc0000000, 0x140000000  # RAM of a guest of 4 GiB (vmm/core/address_map.h)


def send_back(stream):
    """What comes from the stream goes back into it, until its other end closes."""
    with stream, contextlib.suppress(OSError):
        while data := stream.recv(65536):
            stream.sendall(data)


def in_background(function, *arguments):
    threading.Thread(target=function, args=arguments, daemon=True).start()


def send_back_all(listener):
    """The same for each that connects, until the listener is shut down."""
    with listener, contextlib.suppress(OSError):
        while True:
            in_background(send_back, listener.accept()[0])


class Monitor:
    """snug with the micro-guest `hostile`, spoken to over its serial port."""

    def __init__(self, *flags):
        self._stack = contextlib.ExitStack()
        folder, environment = self._stack.enter_context(folder_with_peer(ECHO))
        # What was freed is kept by the sanitizer, up to so much, and would look like a leak.
        environment["ASAN_OPTIONS"] = ":".join(filter(None, (environment.get("ASAN_OPTIONS"), "quarantine_size_mb=16")))
        # The host's ends: a socket on which connections of the guest arrive, and those of a console and a channel.
        with open(folder + "/pmem.img", "wb") as file:
            file.truncate(4 << 20)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(folder + "/vsock_77")
        listener.listen(128)
        in_background(send_back_all, listener)
        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)
        self.log = self._stack.enter_context(tempfile.TemporaryFile())
        os.makedirs(folder + "/shared/folder")
        os.symlink("/etc", folder + "/shared/link")
        with open(folder + "/shared/file", "wb") as file:
            file.write(b"shared" * 10000)
        self.process = subprocess.Popen(
            [SNUG, "run", "--kernel", MICRO + "/hostile.elf", "--memory", "4G", "--disk",
             f"{folder}/disk.img,thread={DISK_THREAD}", "--disk", f"{folder}/pmem.img,mode=pmem", "--net", f"user,thread={NET_THREAD}", "--vsock", folder + "/vsock", "--balloon", "0", "--virtio-console", f"socket:{folder}/console",
             "--channel", f"hostile,socket={folder}/channel", "--share", f"source={folder}/shared,tag=hostile", *flags, "--cmdline", f"low_end={LOW_END:#x} high_end={HIGH_END:#x}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=environment)
        self._stack.callback(self._end)
        self.text = b""
        self.open = 0  # descriptors after the first case
        self.wait_line("hostile: ready")
        self.pids = processes_of(self.process.pid)
        for name in ("console", "channel"):
            client = socket.socket(socket.AF_UNIX)
            client.connect(f"{folder}/{name}")
            in_background(send_back, client)

    def _end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def close(self):
        self._stack.close()

    def errors(self):
        self.log.seek(0)
        return self.log.read()

    def send(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def line(self):
        deadline = time.monotonic() + BOUND
        while b"\n" not in self.text:
            if select.select([self.process.stdout], [], [], 1)[0]:
                more = os.read(self.process.stdout.fileno(), 65536)
                if not more:
                    self.process.wait()
                    check(False, f"snug ended with status {self.process.returncode}", self.text, self.errors())
                self.text += more
            check(time.monotonic() < deadline, f"no word from the guest within {BOUND:.0f} s", self.text, self.errors())
        line, self.text = self.text.split(b"\n", 1)
        return line.decode("utf-8", "replace").strip()

    def wait_line(self, start):
        while True:
            line = self.line()
            check(not line.startswith("micro-guest:"), line, self.errors())
            if line.startswith(start):
                return line

    # --- what the monitor does meanwhile ---

    def _threads(self):
        """Name, state and nanoseconds of CPU time of each thread that is not a vCPU (those run the guest)."""
        found = {}
        for pid, task in ((pid, task) for pid in self.pids for task in tasks_of(pid)):
            folder = f"/proc/{pid}/task/{task}/"
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                with open(folder + "stat") as stat, open(folder + "schedstat") as schedule:
                    name, rest = stat.read().split("(", 1)[1].rsplit(")", 1)
                    if not name.startswith("vcpu"):
                        found[task] = (name, rest.split()[0], int(schedule.read().split()[0]))
        return found

    def wait_idle(self):
        """Until every thread sleeps and has used next to no CPU time between two looks: one that spins never does. (A
        guest that waits for a word polls its serial port, and every 2 ms snug looks whether it has printed.)"""
        deadline = time.monotonic() + BOUND
        looked, before = time.monotonic(), self._threads()
        pause = 0.002
        while True:
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
            now, after = time.monotonic(), self._threads()
            room = IDLE_SHARE * (now - looked) * 1e9
            if before.keys() == after.keys() and all(
                    state == "S" and used - before[task][2] <= room for task, (_, state, used) in after.items()):
                return
            if self.process.poll() is not None:
                return  # whoever speaks to it next says so
            check(time.monotonic() < deadline, "the monitor spins", str(after))
            looked, before = now, after

    def descriptors(self):
        """In all its processes; None for an ordinary user, who may not look."""
        return descriptors(self.process.pid)


_monitor = None


def monitor():
    """One that works, for as many cases as possible."""
    global _monitor
    if _monitor is None:
        _monitor = Monitor()
    return _monitor


def end_monitor():
    global _monitor
    if _monitor is not None:
        _monitor.close()
    _monitor = None


# Whatever was selected: the list of cases alone starts one.
atexit.register(end_monitor)


def resident(process):
    """Of all processes of a machine, KiB, but guest memory and files, which come to be resident bit by bit: a machine with shares
    has memory that others have as well."""
    return sum(int(status_of(pid).get("RssAnon", "0").split()[0]) for pid in processes_of(process.pid))


def run_case(name):
    try:
        guest = monitor()
        guest.send("run " + name)
        ran = guest.wait_line("ran: ")
        guest.wait_idle()
        guest.send("")
        back = guest.wait_line("back: ")
        guest.wait_idle()
        check(ran == "ran: ok", ran[5:], guest.errors())
        check(back == "back: ok", f"after a reset: {back[6:]}", guest.errors())
        guest.open = guest.open or guest.descriptors()
        check(guest.descriptors() == guest.open, f"{guest.descriptors()} open descriptors, and {guest.open} before")
    except Exception:
        end_monitor()
        raise


def run_loop(name):
    """A case that does the same hundreds of times, and then once more: that takes no more memory."""
    run_case(name)
    before = resident(monitor().process)
    run_case(name)
    grown = resident(monitor().process) - before
    check(grown <= ROOM_KIB, f"{grown} KiB more resident after once more")


def case_names():
    guest = monitor()
    guest.send("list")
    names = []
    while (line := guest.line()) != "end":
        names.append(line.removeprefix("case "))
    # A guest that waits for a word keeps a processor busy: not while other tests run.
    end_monitor()
    return names


def hostile_rounds_leak_nothing():
    """The same cases again and again: descriptors, memory and the log stay as they are."""
    guest = monitor()

    def a_round():
        guest.send("round")
        said = guest.wait_line("round: ")
        check(said == "round: ok", said, guest.errors())
        guest.wait_idle()

    try:
        a_round()
        descriptors, before, log = guest.descriptors(), resident(guest.process), len(guest.errors())
        for _ in range(2):
            a_round()
        check(guest.descriptors() == descriptors, f"{guest.descriptors()} open descriptors, and {descriptors} before")
        grown = resident(guest.process) - before
        check(grown <= ROOM_KIB, f"{grown} KiB more resident after 2 rounds")
        check(len(guest.errors()) - log <= 4096, "each round fills the log", guest.errors())
        guest.send("quit")
        guest.process.wait(timeout=BOUND)
        check(guest.process.returncode == 0, f"status {guest.process.returncode}", guest.errors())
    finally:
        end_monitor()


def hostile_interrupts_of_every_kind():
    """A message may be an NMI, an INIT or worse for the guest's own processor; the monitor ends as it should."""
    for mode in range(1, 8):
        guest = Monitor("--grace-period", "100ms")
        try:
            guest.send(f"deliver {mode}")
            deadline = time.monotonic() + 1  # an INIT leaves nobody who could say anything
            while time.monotonic() < deadline and guest.process.poll() is None and b"delivered" not in guest.text:
                if select.select([guest.process.stdout], [], [], 0.1)[0]:
                    guest.text += os.read(guest.process.stdout.fileno(), 4096)
            if guest.process.poll() is None:
                guest.wait_idle()
                guest.process.terminate()
                guest.process.wait(timeout=BOUND)
            status = guest.process.returncode
            # Stopped by the signal; the guest's own report of an exception; a triple fault; an error of KVM.
            check(status in (128 + signal.SIGTERM, 5, 123, 125), f"mode {mode}: status {status}", guest.text, guest.errors())
        finally:
            guest.close()


# Sets in which the transport is at work and the device hardly matters: of those, a part for the simpler devices.
ALIKE = ("status", "msix", "bar", "config", "queue")


def chosen(names):
    count = 0
    for name in names:
        device, group, _ = name.split(".")
        count += 1
        if group not in ALIKE or device in ("blk", "net") or count % 4 == 0:
            yield name


def add_cases():
    names = list(chosen(case_names()))
    check(len(names) >= 150, f"{len(names)} cases")
    for name in names[::SHARE]:
        run = run_loop if ".loop." in name else run_case
        add("hostile." + name, lambda name=name, run=run: run(name))
    if SHARE == 1:
        test(hostile_rounds_leak_nothing)
    test(hostile_interrupts_of_every_kind)
