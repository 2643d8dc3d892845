#!/usr/bin/env python3
"""The regression guard and the test of it, in the lab under --icount: tools/lab --icount -- python3 tests/bench/run.py

--update: writes what is measured to figures.json instead (SHARED/figures.json when a folder is given behind it).
"""
import json
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(TOP, "tests", "support"), os.path.join(TOP, "tools", "lib")]

from harness import SNUG, check, main, test  # noqa: E402
from bench import archives, figures, guard, labs, page, processes, report, setting, stepped, table_block, traces  # noqa: E402

KEPT = os.path.join(HERE, "figures.json")
IMAGES = {name: os.environ[f"SNUG_IMAGE_{name}"] for name in ("TINY", "STOCK", "INITRD", "INITRD_LEAN")}
WORSE = os.path.join(os.path.dirname(SNUG), "..", "..", "tests", "bench", "snug-worse")

_place = None


def place():
    global _place
    if _place is None:
        _place = setting.Setting(SNUG, IMAGES, quick=True, icount=True)
        check(_place.tap, _place.tap_reason)
    return _place


def kept():
    """What the file has, by series of kernels."""
    with open(KEPT) as file:
        return json.load(file)


_measured = None


def measured():
    """What this snug does in this lab, measured once."""
    global _measured
    if _measured is None:
        _measured = guard.measure(place())
    return _measured


def worsened(what, measure):
    """measure(changes) by the program that is worse in this way."""
    good, place().snug = place().snug, place()._copied(WORSE, "snug-worse")
    try:
        return measure({"SNUG_WORSE": what})
    finally:
        place().snug = good


@test
def figures_are_no_worse_than_those_kept():
    release = guard.kernel_release(IMAGES)
    cases, near = guard.nearest(kept(), release)
    print(f"    kernel {release}: {near}")
    for case, quantities in measured().items():
        print(f"    {case}: " + ", ".join(f"{name} {value}" for name, value in quantities.items() if name != "registers"))
    worse, better = guard.compare(cases, measured(), near)
    for line in better:
        print(f"    better, worth keeping (--update): {line}")
    check(not worse, "worse than tests/bench/figures.json; a change that must be so changes the file and says why:", "\n".join(worse))


# That the guard sees what is worse is shown beside what this lab has measured: it must hold with any kernel.
@test
def guard_sees_an_added_exit():
    case = "bzImage, serial only"
    bad = {case: worsened("exits", lambda changes: guard.boot(place(), case, 1, changes))}
    for near in (guard.SAME, guard.SERIES):
        worse, _ = guard.compare(measured(), bad, near)
        check(any("exits of clock" in line and "0x70" in line for line in worse), "exits were added and the guard did not see them",
              near, "\n".join(worse))


@test
def guard_sees_five_per_cent_more_instructions():
    case = "bzImage, serial only"
    more = measured()[case]["instructions"] // 20
    bad = {case: worsened(f"spin={more}", lambda changes: guard.boot(place(), case, 2, changes))}
    worse, _ = guard.compare(measured(), bad, guard.SAME)
    check(any(" instructions " in line for line in worse), "5 % more instructions and the guard did not see them", "\n".join(worse))


@test
def guard_sees_five_per_cent_more_before_any_kernel_runs():
    case = "ELF, serial only"
    more = measured()[case]["instructions"] // 20
    bad = {case: worsened(f"spin={more}", lambda changes: guard.boot(place(), case, 2, changes))}
    worse, _ = guard.compare(measured(), bad, guard.OTHER)
    check(any(" before " in line for line in worse), "they were added before the first KVM_RUN, and the guard did not see them",
          "\n".join(worse))


@test
def guard_sees_a_leak_of_one_mib():
    case = "bzImage, disk + NIC + rng"
    bad = {case: worsened("leak", lambda changes: guard.memory(place(), changes))}
    worse, _ = guard.compare(measured(), bad, guard.OTHER)
    check(any("memory_kib" in line for line in worse), "1 MiB was lost and the guard did not see it", "\n".join(worse))


def figures_of(serial=40, clock=29, instructions=10**8, before=10**7, per_exit=30000, memory=4000):
    return {"c": {"exits": serial + clock, "devices": {"serial port": serial, "clock": clock},
                  "registers": {"port_write 0x3f8": serial, "port_read 0x71": clock}, "instructions": instructions,
                  "before": before, "monitor_per_exit": per_exit, "memory_kib": memory}}


@test
def one_exit_more_is_worse_and_one_less_better():
    same = figures_of()
    check(guard.compare(same, same, guard.SAME) == ([], []), "no change is a change")
    worse, better = guard.compare(same, figures_of(serial=41), guard.SAME)
    check(len(worse) == 1 and "port_write 0x3f8 +1" in worse[0] and not better, "one exit more", worse, better)
    worse, better = guard.compare(same, figures_of(clock=28, instructions=103 * 10**6, memory=4256), guard.SAME)
    check(not worse and len(better) == 1, "one exit less, the rest within bounds", worse, better)
    # What one device has less does not pay for what another has more.
    worse, better = guard.compare(same, figures_of(serial=41, clock=28), guard.SAME)
    check(len(worse) == 1 and len(better) == 1, "one for another", worse, better)


@test
def another_release_of_a_series_has_some_room():
    worse, _ = guard.compare(figures_of(), figures_of(serial=42, instructions=107 * 10**6), guard.SERIES)
    check(not worse, "within the room", worse)
    for changed, word in ((figures_of(serial=43), "serial"), (figures_of(instructions=109 * 10**6), "instructions"),
                          (figures_of(before=11 * 10**6), "before"), (figures_of(memory=4300), "memory_kib")):
        worse, _ = guard.compare(figures_of(), changed, guard.SERIES)
        check(len(worse) == 1 and word in worse[0], "beyond the room", word, worse)


@test
def a_kernel_never_seen_is_judged_by_what_is_the_monitors_own():
    kept_figures = {"6.1": {"release": "6.1.192", "cases": figures_of()}, "5.10": {"release": "5.10.1", "cases": {}}}
    check(guard.nearest(kept_figures, "6.1.192") == (figures_of(), guard.SAME), "the same")
    check(guard.nearest(kept_figures, "6.1.3") == (figures_of(), guard.SERIES), "its series")
    cases, near = guard.nearest(kept_figures, "7.0.1")
    check((cases, near) == (figures_of(), guard.OTHER), "never seen: beside the newest that was", cases, near)
    worse, _ = guard.compare(cases, figures_of(serial=400, instructions=10**9), near)
    check(not worse, "what the kernel does was judged", worse)
    for changed, word in ((figures_of(before=112 * 10**5), "before"), (figures_of(per_exit=40000), "monitor_per_exit"),
                          (figures_of(memory=4300), "memory_kib")):
        worse, _ = guard.compare(cases, changed, near)
        check(len(worse) == 1 and word in worse[0], "the monitor's own", word, worse)


@test
def registers_belong_to_devices():
    for register, device in (("port_read 0x71", "clock"), ("port_write 0x3f8", "serial port"), ("mmio_read 0xe0008000", "PCI ECAM"),
                             ("mmio_write 0xc0000014", "virtio and other BARs"), ("mmio_write 0x4000000010", "virtio and other BARs"),
                             ("port_read 0x2e", "others")):
        check(guard.device_of(register) == device, register, guard.device_of(register))


@test
def compare_says_what_became_worse():
    def run(seconds, exits):
        found = figures.Figures()
        found.add("boot", "c", "q", "snug", seconds, "s", "m")
        found.add("exits", "c", "q", "snug", [exits], "", "m", exact=True)
        found.missing("net", "c", "q", "snug", "no passt")
        return found
    lines, bad = report.compare(run([1.0, 1.01], 200), run([1.2, 1.21], 201))
    check(bad and lines[0] == "worse: 2", "20 % and one exit more", "\n".join(lines))
    lines, bad = report.compare(run([1.0, 1.2], 200), run([1.2, 1.21], 200))
    check(not bad, "within the spread of the runs", "\n".join(lines))


@test
def compare_blames_snug_for_its_own_figures_alone():
    def run(own, other):
        found = figures.Figures()
        found.add("net", "c", "q", "snug, vhost off", [own], "/s", "m", better="more", tolerance=0.1)
        found.add("net", "c", "q", "QEMU q35", [other], "/s", "m", better="more")
        return found
    for own, other, bad in ((95, 50, False), (80, 100, True), (130, 130, False)):
        lines, worse = report.compare(run(100, 100), run(own, other))
        check(worse == bad, f"snug 100 -> {own}, QEMU 100 -> {other}", "\n".join(lines))


# A lab that ends early: in its first piece of work once, in its second twice; then it comes to its end.
EARLY = """#!/usr/bin/env python3
import json, os, sys
path = sys.argv[sys.argv.index("--inside") + 1]
found = json.load(open(path)) if os.path.exists(path) else {"format": 1, "facts": {}, "rows": [], "begun": []}
turns = os.path.join(os.path.dirname(__file__), "turns")
open(turns, "a").write("x")
turn = os.path.getsize(turns)
if turn in (1, 2):
    found["begun"].append("t: one: snug")
if turn == 2:
    found["rows"].append({"table": "t", "case": "one", "quantity": "q", "monitor": "snug", "unit": "s", "values": [1],
                          "method": "m", "better": "less"})
if turn in (2, 3):
    found["begun"].append("t: two: snug")
json.dump(found, open(path, "w"))
sys.exit(0 if turn == 4 else 7)
"""


@test
def a_lab_that_ends_early_is_followed_by_another():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/tools")
        with open(f"{folder}/tools/lab", "w") as file:
            file.write(EARLY)
        os.chmod(f"{folder}/tools/lab", 0o755)
        kept = {}
        labs.Labs(folder, True, kept.__setitem__).run({"t": True}, 1)
        rows = {row["case"]: row for row in kept["t"].rows}
        check(os.path.getsize(f"{folder}/tools/turns") == 4, "labs", os.path.getsize(f"{folder}/tools/turns"))
        check(rows["one"].get("values") == [1], "the first piece of work", rows)
        check("twice" in rows["two"].get("reason", ""), "the second", rows)


class LostGuest:
    """A guest for stepped.run: it says what it is asked for, and is lost in one step as often as told."""

    def __init__(self, first, lost):
        self.first, self.lost, self.output, self.pid = first, lost, b"", 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait_for(self, text, spinning=None):
        if text.startswith(b"bench: behind 2") and self.lost:
            self.lost.pop()
            raise processes.Stuck("lost")
        self.output += text.replace(b"\r", b"\n") + (b"result\n" if b"before" in text else b"")

    def type(self, _):
        pass


@test
def a_lost_guest_is_followed_by_one_that_goes_on():
    firsts, lost = [], [1, 2]

    def start(first):
        firsts.append(first)
        return LostGuest(first, lost)
    found = stepped.run(start, 4, lambda _: 0)
    check([text for text, _ in found] == ["result\n"] * 4 and firsts == [0, 2, 2], "steps", found, firsts)
    try:
        stepped.run(lambda first: LostGuest(first, [1] * 9), 4, lambda _: 0)
        check(False, "a guest that is lost for ever was waited for")
    except processes.Stuck:
        pass


@test
def pages_show_what_was_measured_and_what_was_not():
    found = figures.Figures(facts={"date": "today"})
    for count in (1, 5):
        found.add("scale", f"{count} at once", "time", "snug", [count], "s", "m", along=("guests", count), budget=3)
        found.missing("scale", f"{count} at once", "time", "<other>", "not there")
    text = page.page(found)
    for wanted in ("<polyline", "3 s: met", "3 s: not met", "&lt;other&gt;", "not there"):
        check(wanted in text, wanted, text)
    check("3 s: not met" in report.text(found) and "not there (2 rows)" in report.text(found), "as text", report.text(found))


TRACE = """# tracer: nop
          python-10  [000] .....     1.000000: sched_process_exec: filename=/run/snug pid=10 old_pid=10
          python-10  [000] d....     1.010000: sched_process_fork: comm=snug pid=10 child_comm=snug child_pid=11
          snug-10    [000] d....     1.020000: sched_switch: prev_comm=snug prev_pid=10 prev_prio=120 prev_state=S ==> next_comm=bash next_pid=7 next_prio=120
          bash-7     [000] d....     1.520000: sched_switch: prev_comm=bash prev_pid=7 prev_prio=120 prev_state=S ==> next_comm=snug next_pid=11 next_prio=120
          snug-11    [000] d....     1.530000: kvm_entry: vcpu 0, rip 0x1000
          snug-11    [000] d....     1.630000: kvm_exit: vcpu 0 reason io rip 0x1000 info1 0x3f80010 info2 0x0 intr_info 0x0 error_code 0x0
          snug-11    [000] .....     1.631000: kvm_userspace_exit: reason KVM_EXIT_IO (2)
          snug-11    [000] d....     1.634000: kvm_entry: vcpu 0, rip 0x1002
          snug-11    [000] d....     1.734000: kvm_exit: vcpu 0 reason interrupt rip 0x1002 info1 0x0 info2 0x0 intr_info 0x0 error_code 0x0
          snug-11    [000] d....     1.735000: sched_switch: prev_comm=snug prev_pid=11 prev_prio=120 prev_state=R ==> next_comm=bash next_pid=7 next_prio=120
"""


@test
def traces_say_who_had_the_processor():
    found = traces.parse(TRACE.splitlines(), "snug")
    spent = {part: round(seconds * 1e3) for part, seconds in found.seconds.items()}
    check(spent == {traces.BEFORE: 30, traces.GUEST: 200, traces.KERNEL: 2, traces.MONITOR: 3}, "CPU time, ms", spent)
    check(found.user_exits == {"io": 1} and found.registers == {"port write 0x3f8": 1}, "exits", found.user_exits, found.registers)
    check(found.kernel_exits == {"io": 1, "interrupt": 1}, "exits to the kernel", found.kernel_exits)


# Two processes: 8 MiB that both have, 4 MiB that one has, which ends when it is told to.
FAMILY = """
import os, time
both = bytearray(b"x") * (8 << 20)
child = os.fork()
if child == 0:
    own = bytearray(b"y") * (4 << 20)
    while time.process_time() < 0.3:
        pass
    print("both", flush=True)
    input()
    os._exit(0)
os.waitpid(child, 0)
print("one", flush=True)
input()
"""


@test
def a_monitor_costs_what_all_its_processes_cost():
    with processes.Guest([sys.executable, "-c", FAMILY]) as family:
        family.wait_for(b"both")
        tree, anonymous = processes.tree_of(family.pid), processes.memory_beyond_ram(family.pid, 1024)["(anonymous)"]
        check(len(tree) == 2, "not two processes", tree)
        check(12 << 10 <= anonymous < 20 << 10, "what both have does not count once", anonymous)
        seconds = [processes.cpu_seconds_of_all(family.pid)]
        family.type("")
        family.wait_for(b"one")
        seconds.append(processes.cpu_seconds_of_all(family.pid))
        check(min(seconds) >= 0.28 and abs(seconds[0] - seconds[1]) < 0.05, "not the CPU time of both", seconds)
    check(not os.path.exists(f"/proc/{tree[0]}"), "it was not ended")


@test
def archives_are_what_cpio_reads():
    with tempfile.TemporaryDirectory() as folder:
        archives.write(folder + "/a", {"steps": (b"#!/bin/sh\n", 0o755), "lib/deep/one": (b"12345", 0o644)})
        archives.write(folder + "/b", {"other": (b"", 0o600)})
        archives.joined(folder + "/both", folder + "/a", folder + "/b")
        for name in ("a", "b"):
            done = subprocess.run(["cpio", "-id", "--quiet"], cwd=folder, stdin=open(f"{folder}/{name}", "rb"), capture_output=True)
            check(done.returncode == 0, "cpio", done.stderr)
        with open(folder + "/lib/deep/one") as file:
            check(file.read() == "12345", "the content")
        check(os.access(folder + "/steps", os.X_OK), "the mode")
        check(os.path.getsize(folder + "/both") == sum(os.path.getsize(f"{folder}/{name}") for name in ("a", "b")), "joined")


@test
def results_of_fio_are_read():
    reads = ["3", "fio-3.33", "job", "0", "0", "12000", "48000", "12000", "250", *["0"] * 60]
    writes = ["3", "fio-3.33", "job", "0", "0", *["0"] * 41, "8000", "32000", "8000", "250", *["0"] * 30]
    check(table_block.terse("x\nfio: " + ";".join(reads)) == (12000, 12000, 48000), "reads")
    check(table_block.terse("fio: " + ";".join(writes)) == (8000, 8000, 32000), "writes")


def update(folder):
    """Keeps what is measured as that of this kernel's series; the others stay."""
    release = guard.kernel_release(IMAGES)
    content = {**kept(), guard.series_of(release): {"release": release, "cases": measured()}}
    with open(os.path.join(folder, "figures.json"), "w") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--update"]:
            update(sys.argv[2] if len(sys.argv) > 2 else HERE)
        else:
            main("bench")
    finally:
        if _place:
            _place.close()
