"""micro: what a request to a disk costs at native speed, from a micro-guest on this machine's own KVM."""
import os
import re

from bench import processes

ABOUT = "micro: snug's start, requests to a disk and CPU time of each, with micro-guests on this machine's own KVM"
WHERE = "host"

BEFORE, BUDGET_BEFORE_MS, STARTS = "CPU time of snug before the first KVM_RUN", 3, 8
RATE, SPEED, CPU = "requests a second", "throughput", "CPU time of a request, guest and monitor"
EXITS, BUDGET_EXITS = "exits to user space for a request", 0
REQUESTS = 100_000
# What a busy host makes of a run.
WALL_TIME = 0.3
ALL = "micro-guest, all requests"
NAMES = {"blk-read": "read", "blk-write": "write"}
DONE = b"bench: done\r"


def qemu(setting, program, words, disk, *more, drive="", device=""):
    # microvm has neither firmware that places PCI devices nor the ports that the micro-guest finds them by.
    return ["qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host,-arch-capabilities", "-m", "64M", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", program, "-append", words,
            "-device", "isa-debug-exit,iobase=0xf4,iosize=1", *more, "-drive", f"id=d,file={disk},format=raw,if=none{drive}",
            "-device", f"virtio-blk-pci,drive=d,disable-legacy=on{device}"]


def measure(setting, figures):
    program = os.path.join(setting.images["MICRO"], "virtio-bench.elf")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        figures.missing("micro", "micro-guest, 1 vCPU", RATE, "all", "no usable /dev/kvm on this machine")
        return
    measure_before(setting, figures)
    requests = REQUESTS // (10 if setting.quick else 1)
    words = f"requests={requests} requests_alone={requests // 10}"
    disk = setting.full_disk(64)
    _, _, q35 = setting.monitors[:3]
    own = [setting.snug, "run", "--kernel", program, "--memory", "64M", "--rng", "false", "--balloon", "none", "--disk", disk]
    ways = {"snug": [*own, "--cmdline", words]}
    ways["snug, thread"] = [*own[:-1], disk + ",thread=true", "--cmdline", words]
    reason = q35.missing_program()
    if reason:
        figures.missing("micro", "micro-guest, 1 vCPU", RATE, q35.name, reason)
    else:
        ways["QEMU q35"] = qemu(setting, program, words, disk)
        ways["QEMU q35, iothread, io_uring"] = qemu(setting, program, words, disk, "-object", "iothread,id=t",
                                                    drive=",aio=io_uring", device=",iothread=t")
    for monitor in setting.monitors[1:]:
        if monitor is not q35:
            figures.missing("micro", "micro-guest, 1 vCPU", RATE, monitor.name, monitor.missing_program() or
                            "its devices are not where the micro-guest looks (PCI by ports 0xcf8 and 0xcfc, placed by firmware)")
    found = {name: [] for name in ways}
    # One after the other and again, so that what else the machine does meets all of them alike.
    for _ in range(setting.runs + (0 if setting.quick else 2)):
        for name, command in list(ways.items()):
            try:
                found[name].append(once(command, setting.environment))
            except processes.Failed as problem:
                figures.missing("micro", "micro-guest, 1 vCPU", RATE, name, str(problem))
                del ways[name], found[name]
    exits_of_a_request(setting, figures, own)
    for case in next(iter(found.values()), [{}])[0]:
        for name, runs in found.items():
            report(figures, case, name, [run[case] for run in runs])


def measure_before(setting, figures):
    """With a kernel of usual size, `padded`, which only ends."""
    command = [setting.snug, "run", "--kernel", os.path.join(setting.images["MICRO"], "padded.elf"), "--memory", "64M", "--stats",
               "--rng", "false", "--balloon", "none"]
    for name, more in (("snug", []), ("snug, no kernel cache", ["--kernel-cache", "false"])):
        values = []
        try:
            for _ in range(STARTS):
                _, output = processes.run_to_end(command + more, setting.environment, bound=60)
                values.append(float(re.search(r"^stats: cpu_before_first_run ([0-9.]+) ms", output, re.M).group(1)))
        except processes.Failed as problem:
            figures.missing("micro", "ELF of 18 MiB", BEFORE, name, str(problem))
            continue
        figures.add("micro", "ELF of 18 MiB", BEFORE, name, values[1:], "ms", "snug run --stats, the micro-guest padded on this "
                    "machine's KVM, the first run thrown away", tolerance=WALL_TIME, budget=BUDGET_BEFORE_MS)


def exits_of_a_request(setting, figures, own):
    """How many more of them a run with more requests has."""
    many, few = REQUESTS // 10, REQUESTS // 100
    try:
        (many_exits, many_done), (few_exits, few_done) = (
            exits([*own, "--stats", "--cmdline", f"requests={count} requests_alone={count // 10}"], setting.environment)
            for count in (many, few))
    except processes.Failed as problem:
        figures.missing("micro", ALL, EXITS, "snug", str(problem))
        return
    figures.add("micro", ALL, EXITS, "snug", [(many_exits - few_exits) / (many_done - few_done)], "",
                "snug run --stats, the difference between two runs, of which one has ten times the requests; a signal may come "
                "in between", tolerance=1.0, budget=BUDGET_EXITS)


def exits(command, environment):
    """(exits to user space but for printing, requests)"""
    _, output = processes.run_to_end(command, environment, bound=120)
    printing = re.search(r"^stats: port_write 0x3f8 (\d+)", output, re.M)
    total = re.search(r"^stats: exits (\d+)", output, re.M)
    if not printing or not total:
        raise processes.Failed("snug printed no figure of its exits")
    return int(total.group(1)) - int(printing.group(1)), sum(int(done) for *_, done in requests(output))


def requests(output):
    """(what, bytes, depth, ticks, requests) of each kind."""
    return [(what, int(size), int(depth), int(ticks), int(count)) for what, size, depth, count, ticks in
            re.findall(r"^bench: (blk-\w+) (\d+) (\d+) (\d+) (\d+)", output, re.M)]


def once(command, environment):
    """{case: (requests a second, bytes of one, CPU seconds of one)}; the guest is ended when it has said that it is done."""
    guest = processes.Guest(command, environment)
    found, cpu = {}, 0.0
    try:
        guest.wait_for(b"bench: khz", 60)
        started = processes.cpu_seconds_of_all(guest.pid)
        guest.wait_for(DONE, 120)
        cpu = processes.cpu_seconds_of_all(guest.pid) - started
        khz = int(re.search(rb"khz (\d+)", guest.output).group(1))
        if not khz:
            raise processes.Failed("the guest has no clock that it knows the rate of")
    finally:
        guest.kill()
    total = 0
    for what, size, depth, ticks, count in requests(guest.output.decode()):
        total += count
        found[f"micro-guest, {NAMES[what]} {size >> 10}k, depth {depth}"] = count * khz * 1000 / ticks, size
    found[ALL] = cpu / total, 0
    return found


def report(figures, case, name, runs):
    if runs[0][1] == 0:
        figures.add("micro", case, CPU, name, [value * 1e6 for value, _ in runs], "us",
                    "CPU clocks of the monitor's processes from the guest's first line to its last, its waiting by polling "
                    "included, divided by all requests", tolerance=WALL_TIME)
        return
    method = "virtio-bench on this machine's KVM, a file of 64 MiB in RAM, the guest's own clock"
    figures.add("micro", case, RATE, name, [rate for rate, _ in runs], "/s", method, better="more", tolerance=WALL_TIME)
    if runs[0][1] > 4096:
        figures.add("micro", case, SPEED, name, [rate * size / 1e6 for rate, size in runs], "MB/s", method, better="more",
                    tolerance=WALL_TIME)
