"""The regression guard: figures that repeat, against those kept in tests/bench/figures.json for a series of kernels.

How much is too much depends on how near the kernel is to the one that the file's figures are of, since distributions
move on: the same release; another one of its series; or a series that was never seen, where only what is the monitor's
own is judged. A change that makes a figure worse changes the file, and says why in its commit.
"""
import os
import re
import time

from bench import processes, table_exits, traces
from bench.monitors import GuestSpec

# How near a kernel is to that of the kept figures.
SAME, SERIES, OTHER = "the release of the kept figures", "another release of a kept series", "a series that was never seen"

# How much more of a quantity is no change yet, by how near the kernel is; where nothing is said, it is not judged.
SLACK = {
    "exits": {SAME: 0.0, SERIES: 0.05},                              # to user space, of one device
    "instructions": {SAME: 0.03, SERIES: 0.08},                      # of its processes, guest included
    "before": {SAME: 0.05, SERIES: 0.07, OTHER: 0.10},               # of them, before the first KVM_RUN; an ELF kernel
    "before_moved": {SAME: 0.08, SERIES: 0.10},                      # the same, of a kernel that was moved
    "monitor_per_exit": {SAME: 0.07, SERIES: 0.10, OTHER: 0.20},     # the monitor's own from then on, of one exit
}
MEMORY_KIB = 256  # resident memory beyond guest RAM: the same for every kernel
EXITS_OF_A_DEVICE = 2  # another release of a series may have so many more in any case

# Name to guest; the lean one resets at once, the other waits at its shell.
CASES = {
    "ELF, serial only": lambda setting: GuestSpec("ELF", setting.lean),
    "bzImage, serial only": lambda setting: GuestSpec("bzImage", setting.lean),
    "bzImage, disk + NIC + rng": lambda setting: GuestSpec("bzImage", setting.lean, disk=setting.disk, tap=setting.tap,
                                                           rng=True),
}

# First port or address, the one behind the last, whose it is (vmm/core/address_map.h).
DEVICES = [
    ("port", 0x60, 0x65, "i8042"), ("port", 0x70, 0x72, "clock"), ("port", 0x3f8, 0x400, "serial port"),
    ("port", 0x505, 0x506, "pvpanic"), ("port", 0x600, 0x610, "ACPI"), ("port", 0xcf8, 0xd00, "PCI ports"),
    ("mmio", 0xe0000000, 0xe0100000, "PCI ECAM"), ("mmio", 0xc0000000, 1 << 64, "virtio and other BARs"),
]


def device_of(register):
    """Of a register as `snug run --stats` writes it: "port_read 0x3f8"."""
    kind, address = register.split("_", 1)[0], int(register.split()[1], 16)
    return next((name for space, first, end, name in DEVICES if kind == space and first <= address < end), "others")


def kernel_release(images):
    """Of the tiny kernel: 6.1.190, say."""
    with open(os.path.join(os.path.dirname(images["TINY"]), "config")) as file:
        found = re.search(r"^# Linux/\S+ (\d+\.\d+\.\d+)\S* Kernel Configuration", file.read(), re.M)
    return found.group(1) if found else "0.0.0"


def series_of(release):
    return ".".join(release.split(".")[:2])


def nearest(kept, release):
    """(cases of the kept series to compare with, how near it is)."""
    series = series_of(release)
    if series in kept:
        return kept[series]["cases"], SAME if kept[series]["release"] == release else SERIES
    return kept[max(kept, key=lambda name: [int(part) for part in name.split(".")])]["cases"], OTHER


def boot(setting, case, runs, changes=()):
    """What a boot takes, from exec to the guest's reset: {quantity: number}."""
    guest = CASES[case](setting)
    command = setting.snug_monitor().command(guest)
    environment = dict(setting.environment, **dict(changes))
    seconds, before = [], []
    for _ in range(runs):
        usage, output = processes.run_to_end(command, environment)
        seconds.append(usage.ru_utime + usage.ru_stime)
        before.append(table_exits.stat(output, "cpu_before_first_run") / 1e3)
    exits = int(table_exits.stat(output, "exits"))
    registers = table_exits.registers(output)
    return {"exits": exits, "devices": by_device(registers), "registers": registers,
            "instructions": round(min(seconds) * 1e9),
            "before" if guest.kernel == "ELF" else "before_moved": round(min(before) * 1e9),
            "monitor_per_exit": round(monitor_seconds(command, environment) * 1e9 / exits)}


def by_device(registers):
    found = {}
    for register, count in registers.items():
        found[device_of(register)] = found.get(device_of(register), 0) + count
    return found


def monitor_seconds(command, environment):
    """CPU time of the monitor alone, from the first KVM_RUN on."""
    reason = traces.missing()
    if reason:
        raise processes.Failed(reason)
    traced, _ = traces.trace(lambda: processes.run_to_end(command, environment), os.path.basename(command[0]))
    return traced.seconds[traces.MONITOR]


def memory(setting, changes=()):
    """KiB beyond guest RAM of an idle guest with a disk, a NIC and rng."""
    guest = CASES["bzImage, disk + NIC + rng"](setting).changed(initrd=setting.initrd, ends=False)
    running = processes.Guest(setting.snug_monitor().command(guest), dict(setting.environment, **dict(changes)))
    try:
        running.wait_for()
        time.sleep(processes.SETTLED)
        parts = processes.memory_beyond_ram(running.pid, guest.memory_mib)
    finally:
        running.kill()
    return {"memory_kib": sum(parts.values()), "parts": parts}


def measure(setting):
    """{case: {quantity: number}}, as the kept file has it."""
    found = {}
    for case in CASES:
        boot(setting, case, 1)  # thrown away: fills caches
        found[case] = boot(setting, case, 2)
    found["bzImage, disk + NIC + rng"]["memory_kib"] = memory(setting)["memory_kib"]
    return found


def compare(kept, measured, near):
    """(what is worse, what is better), as lines. Cases and quantities that are not in both are not compared."""
    worse, better = [], []
    for case, now in measured.items():
        was = kept.get(case, {})
        for quantity, slack in SLACK.items():
            if quantity == "exits" or near not in slack or quantity not in was or quantity not in now:
                continue
            judge(f"{case}: {quantity}", was[quantity], now[quantity], was[quantity] * slack[near], worse, better)
        if "memory_kib" in was and "memory_kib" in now:
            judge(f"{case}: memory_kib", was["memory_kib"], now["memory_kib"], MEMORY_KIB, worse, better)
        if near in SLACK["exits"]:
            compare_exits(case, was, now, near, worse, better)
    return worse, better


def compare_exits(case, was, now, near, worse, better):
    for device in sorted({*was.get("devices", {}), *now.get("devices", {})}):
        before, after = was.get("devices", {}).get(device, 0), now.get("devices", {}).get(device, 0)
        slack = 0 if near == SAME else max(EXITS_OF_A_DEVICE, before * SLACK["exits"][near])
        lines = []
        judge(f"{case}: exits of {device}", before, after, slack, lines, better)
        worse += [line + registers_changed(was, now, device) for line in lines]


def judge(what, was, now, slack, worse, better):
    line = f"{what} {was:,} -> {now:,}" + (f" ({now / was - 1:+.1%})" if was else "")
    if now > was + slack:
        worse.append(line)
    elif now < was - slack:
        better.append(line)


def registers_changed(was, now, device):
    """Which of the device's registers have other exits than those of the file."""
    kept, measured = was.get("registers", {}), now.get("registers", {})
    names = [name for name in sorted({*kept, *measured}) if device_of(name) == device]
    return "".join(f"; {name} {measured.get(name, 0) - kept.get(name, 0):+d}" for name in names
                   if measured.get(name, 0) != kept.get(name, 0))
