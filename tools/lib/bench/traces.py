"""Exits of guests, from the host kernel's tracepoints: the same measure for every monitor. Wants root."""
import collections
import os
import re
import subprocess

TRACING = "/sys/kernel/tracing"
EVENTS = ("sched/sched_process_exec", "sched/sched_process_fork", "sched/sched_switch", "kvm/kvm_entry", "kvm/kvm_exit",
          "kvm/kvm_userspace_exit", "kvm/kvm_mmio")


def _set(name, value):
    with open(f"{TRACING}/{name}", "w") as file:
        file.write(value)


def missing():
    """Why nothing can be traced here, or None."""
    if os.geteuid() != 0:
        return "tracepoints want root"
    if not os.path.exists(f"{TRACING}/trace"):
        subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACING], stderr=subprocess.DEVNULL, check=False)
    if not os.path.exists(f"{TRACING}/events/kvm/kvm_userspace_exit"):
        return "this kernel has no tracepoints of KVM"
    return None


# Where a monitor's CPU time goes.
BEFORE, GUEST, KERNEL, MONITOR = "monitor, before the first KVM_RUN", "guest", "host kernel, for exits", "monitor, from then on"


class Traced:
    """What one guest did."""

    def __init__(self):
        self.seconds = collections.Counter()       # CPU time: BEFORE, GUEST, KERNEL, MONITOR to seconds
        self.user_exits = collections.Counter()    # to user space: reason to number
        self.kernel_exits = collections.Counter()  # all, those handled by the host kernel included: reason to number
        self.registers = collections.Counter()     # of the user_exits: "port write 0x3f8" to number


def trace(run, program):
    """Calls run() and returns (Traced, its result). `program`: file name of what is executed, to find its start."""
    _set("tracing_on", "0")
    _set("buffer_size_kb", "32768")
    _set("trace", "")
    for event in EVENTS:
        _set(f"events/{event}/enable", "1")
    try:
        _set("tracing_on", "1")
        result = run()
        _set("tracing_on", "0")
        with open(f"{TRACING}/trace", errors="replace") as file:
            return parse(file, program), result
    finally:
        _set("tracing_on", "0")
        for event in EVENTS:
            _set(f"events/{event}/enable", "0")
        _set("trace", "")
        _set("buffer_size_kb", "1")


LINE = re.compile(r"^\s*.+-(\d+)\s+\[(\d+)\]\s+\S+\s+([0-9.]+): (\w+): (.*)$")


# How AMD's and Intel's exits for port accesses say that the guest reads: a bit of info1, whose upper half is the port
# (AMD APM vol. 2, 15.10.2; Intel SDM vol. 3C, table 28-5).
PORT_EXITS = {"io": 1 << 0, "IO_INSTRUCTION": 1 << 3}


def _port(rest, reading):
    found = re.search(r"info1 (?:0x)?([0-9a-f]+)", rest)
    if not found:
        return "port ?"
    info = int(found.group(1), 16)
    return f"port {'read' if info & reading else 'write'} {info >> 16:#x}"


def parse(lines, program):
    traced = Traced()
    times = _Times(program, traced.seconds)
    access = {}
    for line in lines:
        found = LINE.match(line)
        if not found:
            continue
        thread, cpu, at, event, rest = found.groups()
        times.event(thread, cpu, float(at), event, rest)
        if event == "kvm_exit":
            reason = re.search(r"reason (\S+)", rest)
            traced.kernel_exits[reason.group(1) if reason else "?"] += 1
            if reason and reason.group(1) in PORT_EXITS:
                access[thread] = _port(rest, PORT_EXITS[reason.group(1)])
        elif event == "kvm_mmio":
            found = re.match(r"mmio (\S+) len \d+ gpa (0x[0-9a-f]+)", rest)
            access[thread] = f"mmio {found.group(1).replace('unsatisfied-', '')} {found.group(2)}" if found else "mmio ?"
        elif event == "kvm_userspace_exit":
            reason = re.match(r"reason (\w+)", rest)
            name = reason.group(1).replace("KVM_EXIT_", "").lower() if reason else "?"
            traced.user_exits[name] += 1
            if name in ("io", "mmio") and thread in access:
                traced.registers[access[thread]] += 1
    return traced


class _Times:
    """Each stretch of time between two events of a processor goes to what the thread on it was doing."""

    def __init__(self, program, seconds):
        self.program = program
        self.seconds = seconds
        self.doing = {}     # threads of the monitor
        self.last = {}      # processor to (time, thread on it)
        self.began = False  # whether a guest has been entered

    def event(self, thread, cpu, at, event, rest):
        before, running = self.last.get(cpu, (at, thread))
        if running in self.doing:
            self.seconds[self.doing[running]] += at - before
        if event == "sched_switch":
            found = re.search(r"next_pid=(\d+)", rest)
            thread = found.group(1) if found else thread
        self.last[cpu] = at, thread
        if event == "sched_process_exec":
            if not self.doing and os.path.basename(rest.split()[0].partition("=")[2]) == self.program:
                self.doing[thread] = BEFORE
        elif event == "sched_process_fork" and thread in self.doing:
            self.doing[re.search(r"child_pid=(\d+)", rest).group(1)] = MONITOR if self.began else BEFORE
        elif event == "kvm_entry":
            if not self.began:
                self.began = True
                self.doing = dict.fromkeys(self.doing, MONITOR)
            self.doing[thread] = GUEST
        elif event == "kvm_exit":
            self.doing[thread] = KERNEL
        elif event == "kvm_userspace_exit":
            self.doing[thread] = MONITOR
