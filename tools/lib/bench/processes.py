"""Processes under measurement: run to their end, or until their guest says something. Every wait has a bound.

A monitor is the process that is started and all that it starts: of snug one that runs the guest, and a passt for each
network. What they cost is the monitor's.
"""
import contextlib
import glob
import os
import re
import select
import signal
import subprocess
import sys
import time

# Seconds for one guest: many times what it takes on a busy machine.
BOUND = float(os.environ.get("SNUG_BENCH_BOUND", "600"))
# Under --icount the lab's clock leaps whenever everything waits and bounds nothing, but its clock chip shows this
# machine's time. Elsewhere there is no such variable.
CHIP = os.environ.get("SNUG_BENCH_CLOCK")
# Seconds, by the clock that leaps, after which patience may be over. A guest that spins in there (it pauses, and
# every PAUSE takes the software CPU a microsecond) makes one of its seconds some minutes.
LOOK = 0.1 if CHIP else 1.0
# What no guest that works takes: real seconds and seconds of the lab's clock without anything to do; seconds of CPU time
# without an exit for anything but the lab's interrupts. A guest whose timer runs has one every few milliseconds.
LEAPING_REAL, LEAPING_CLOCK = 60, 300
SPINNING = 0.2
# The same of one whose timer does not run yet: it unpacks its kernel by itself, which for a large one takes longer.
UNPACKING = 3.0
# KVM's counters of each guest, where debugfs is.
KVM = "/sys/kernel/debug/kvm"
READY = b"snug-initrd: ready"
# Seconds after which a monitor has done with its start: snug gives back what only that needed after one.
SETTLED = 1.5
# Why an ordinary user cannot know what memory a monitor takes.
ROOT_ALONE = "root alone may see the memory of the process that runs the guest"
# Seconds for what was killed to be gone.
GONE_BOUND = 60


class Failed(Exception):
    """A run that did not do what it should; the text says what, with the end of its output."""


class Stuck(Failed):
    """A run whose guest was lost: it did not come to its end within its bound, or it panicked."""


def _tail(output):
    lines = output.decode("utf-8", "replace").replace("\r", "").splitlines()
    return " / ".join(line for line in lines[-4:] if line)


def real_seconds():
    if not CHIP:
        return time.monotonic()
    with open(CHIP) as file:
        return float(file.read())


class Patience:
    """When to stop waiting for something: after `bound` real seconds. In the lab, whose clock is not real, earlier: when
    everything waits and that clock leaps, or when a guest is lost (tools/README.md): it makes nothing but spin."""

    def __init__(self, bound, spinning=SPINNING):
        self.bound, self.spinning = bound, spinning
        self.start = real_seconds(), time.monotonic()
        self.guests = {}  # by its folder in KVM: (exits but for interrupts, CPU time when that was new)

    def over(self):
        waited = real_seconds() - self.start[0]
        if waited > self.bound:
            return True
        if not CHIP:
            return False
        return waited > LEAPING_REAL and time.monotonic() - self.start[1] > LEAPING_CLOCK or self._lost()

    def _lost(self):
        for folder in glob.glob(f"{KVM}/*-*"):
            try:
                exits = _number(f"{folder}/exits") - _number(f"{folder}/irq_exits")
                cpu = cpu_seconds(int(os.path.basename(folder).partition("-")[0]))
            except OSError:
                continue  # it has ended
            before, since = self.guests.get(folder, (None, cpu))
            if exits != before:
                self.guests[folder] = exits, cpu
            elif cpu - since > self.spinning:
                return True
        return False


def _number(path):
    with open(path) as file:
        return int(file.read())


def readable(streams, patience):
    """Those of the streams that can be read, none when patience is over first."""
    while True:
        ready = select.select(streams, [], [], LOOK)[0]
        if ready or patience.over():
            return ready


def tried(call, attempts=2):
    """call(), once more when its guest is lost: the lab's processor does that now and then. Says so."""
    for left in reversed(range(attempts)):
        try:
            return call()
        except Stuck as problem:
            if not left:
                raise
            print(f"bench: once more, the run was {problem}", file=sys.stderr, flush=True)


def run_to_end(command, environment=None, expected=0, bound=BOUND):
    """What the process and all that it waited for have used (rusage), its output."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=environment, start_new_session=True)
    output = b""
    patience = Patience(bound)
    ended = False
    try:
        while True:
            if not readable([process.stdout], patience):
                raise Stuck(f"not finished, stuck or longer than {bound:.0f} s: {_tail(output)}")
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            output += chunk
        ended = True
    finally:  # on every way out
        if not ended:
            kill_all(process.pid)
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if b"Kernel panic" in output:
        raise Stuck(f"the guest panicked: {_tail(output)}")
    if process.returncode != expected:
        raise Failed(f"exit status {process.returncode}: {_tail(output)}")
    return usage, output.decode("utf-8", "replace")


class Guest:
    """A guest that is running, its console in `output`. As a context it is ended behind it."""

    def __init__(self, command, environment=None, pass_fds=()):
        self.output = b""
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, env=environment, start_new_session=True, pass_fds=pass_fds)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def wait_for(self, text=READY, bound=BOUND, spinning=SPINNING):
        wait_for_all([self], text, bound, spinning)

    def type(self, line):
        os.write(self.process.stdin.fileno(), line.encode() + b"\n")

    def end(self):
        """As a person does, with Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(BOUND)
        self.kill()

    def kill(self):
        """Ends it and all that it started."""
        kill_all(self.pid)
        for stream in (self.process.stdin, self.process.stdout):
            stream.close()
        self.process.wait()


def wait_for_all(guests, text=READY, bound=BOUND, spinning=SPINNING):
    """Returns when each guest has printed `text`; seconds since the call for each, in their order."""
    patience = Patience(bound, spinning)
    start = time.monotonic()
    waiting = {guest.process.stdout.fileno(): (index, guest) for index, guest in enumerate(guests)}
    seconds = [0.0] * len(guests)
    while waiting:
        ready = readable(list(waiting), patience)
        if not ready:
            raise Stuck(f"{len(waiting)} of {len(guests)} guests did not print {text.decode()!r}, stuck or longer "
                        f"than {bound:.0f} s: {_tail(next(iter(waiting.values()))[1].output)}")
        for fd in ready:
            index, guest = waiting[fd]
            chunk = os.read(fd, 65536)
            guest.output += chunk
            if not chunk:
                raise Stuck(f"a guest ended before it printed {text.decode()!r}: {_tail(guest.output)}")
            if text in guest.output:
                seconds[index] = time.monotonic() - start
                del waiting[fd]
    return seconds


def children_of(pid):
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(child) for child in file.read().split()]
    return found


def tree_of(pid):
    """A process and all that come from it and still run."""
    return [pid, *(one for child in children_of(pid) for one in tree_of(child))]


def kill_all(pid):
    """SIGKILL to a process, the leader of its group, and all that come from it; returns when they are gone (it still wants to
    be waited for). What they had open, a tap or a disk, is free then."""
    ends = []
    for one in tree_of(pid):
        with contextlib.suppress(ProcessLookupError):
            ends.append(os.pidfd_open(one))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    for end in ends:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(end, signal.SIGKILL)
    deadline = time.monotonic() + GONE_BOUND
    for end in ends:
        select.select([end], [], [], max(0, deadline - time.monotonic()))
        os.close(end)


def cpu_seconds(pid):
    """CPU time so far of one process, all its threads, those that have ended too; children not included."""
    return time.clock_gettime(~pid << 3 | 2)  # its CPU clock, as clock_getcpuclockid(3) makes the number


def cpu_seconds_of_all(pid):
    """The same of a monitor: its processes that run, and those that one of them has waited for."""
    while True:
        waited = _waited_seconds(pid)
        with contextlib.suppress(OSError):  # one of them has just ended: it counts among the others then
            found = sum(cpu_seconds(one) for one in tree_of(pid))
            if _waited_seconds(pid) == waited:
                return found + waited


def _waited_seconds(pid):
    total = 0
    for one in tree_of(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{one}/stat") as file:
            total += sum(int(word) for word in file.read().rpartition(")")[2].split()[13:15])  # cutime, cstime
    return total / os.sysconf("SC_CLK_TCK")


def vhost_seconds(pid):
    """CPU time so far of the kernel's threads that move frames for a monitor: each is called after who asked for it."""
    names = set()
    for one in tree_of(pid):
        with contextlib.suppress(FileNotFoundError):
            names |= {f"vhost-{task}" for task in os.listdir(f"/proc/{one}/task")}
    total = 0.0
    for other in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{other}/comm") as file:
                if file.read().strip() in names:
                    total += cpu_seconds(int(other))
        except OSError:
            pass  # it has ended
    return total


def memory_beyond_ram(pid, ram_mib):
    """KiB resident of a monitor in mappings that are not guest RAM, as {mapping: KiB}: pages that its processes share count
    once. Guest RAM is what the monitor lets no child inherit (VmFlags "dc": snug and QEMU mark it so), or a mapping of at
    least its size."""
    private, shared = {}, {}
    for one in tree_of(pid):
        for part, (own, others) in _beyond_ram(one, ram_mib).items():
            private[part] = private.get(part, 0) + own
            shared[part] = max(shared.get(part, 0), others)
    return {part: kib + shared[part] for part, kib in private.items() if kib + shared[part]}


def _beyond_ram(pid, ram_mib):
    """{mapping: (KiB that this process alone has, KiB that others have too)}"""
    parts = {}
    name, size, resident, private = "", 0, 0, 0
    with _looked_into(f"/proc/{pid}/smaps") as file:
        for line in file:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                words = line.split(None, 5)
                name = words[5].strip() if len(words) > 5 else "(anonymous)"
                first, last = words[0].split("-")
                size = (int(last, 16) - int(first, 16)) >> 20
                private = 0
            elif line.startswith("Rss:"):
                resident = int(line.split()[1])
            elif line.startswith(("Private_Clean:", "Private_Dirty:")):
                private += int(line.split()[1])
            elif line.startswith("VmFlags:"):
                if "dc" not in line.split() and size < ram_mib * 9 // 10:
                    name = os.path.basename(name) if name.startswith("/") else name
                    own, others = parts.get(name, (0, 0))
                    parts[name] = own + private, others + resident - private
    return parts


def pss_kib(pid):
    """Of a monitor, guest RAM included."""
    total = 0
    for one in tree_of(pid):
        with _looked_into(f"/proc/{one}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total


def _looked_into(path):
    try:
        return open(path)
    except PermissionError:
        raise Failed(ROOT_ALONE) from None
