"""The regression guard: figures that repeat, against those kept in tests/bench/figures.json.

Exits are compared exactly, instructions within 3 %, memory within a quarter of a MiB. A change that makes one of them
worse changes the file, and says why in its commit.
"""
import os
import time

from bench import processes, table_exits
from bench.monitors import GuestSpec

INSTRUCTIONS = 0.03
MEMORY_KIB = 256

# Name to guest; the lean one resets at once, the other waits at its shell.
CASES = {
    "ELF, serial only": lambda setting: GuestSpec("ELF", setting.lean),
    "bzImage, serial only": lambda setting: GuestSpec("bzImage", setting.lean),
    "bzImage, disk + NIC + rng": lambda setting: GuestSpec("bzImage", setting.lean, disk=setting.disk, tap=setting.tap,
                                                           rng=True),
}


def kernel_identity(images):
    """Figures of one kernel say nothing about another: the image's name in the cache tells them apart."""
    return os.path.basename(os.path.dirname(images["TINY"]))


def boot(setting, case, runs, changes=()):
    """Exits and instructions of a boot, from exec to the guest's reset: {quantity: number}."""
    command = setting.snug_monitor().command(CASES[case](setting))
    environment = dict(setting.environment, **dict(changes))
    seconds = []
    for _ in range(runs):
        usage, output = processes.run_to_end(command, environment)
        seconds.append(usage.ru_utime + usage.ru_stime)
    return {"exits": int(table_exits.stat(output, "exits")), "instructions": round(min(seconds) * 1e9),
            "registers": table_exits.registers(output)}


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


def compare(kept, measured):
    """(what is worse, what is better), as lines. Cases and quantities that are not in both are not compared."""
    worse, better = [], []
    for case, quantities in measured.items():
        for quantity, now in quantities.items():
            was = kept.get(case, {}).get(quantity)
            if was is None or quantity == "registers":
                continue
            slack = {"instructions": was * INSTRUCTIONS, "memory_kib": MEMORY_KIB}.get(quantity, 0)
            line = f"{case}: {quantity} {was:,} -> {now:,} ({now / was - 1:+.1%})"
            if now > was + slack:
                worse.append(line + registers_changed(kept[case], quantities, quantity))
            elif now < was - slack:
                better.append(line)
    return worse, better


def registers_changed(kept, measured, quantity):
    """Which device registers the exits beyond those of the file went to."""
    if quantity != "exits" or "registers" not in kept:
        return ""
    more = {name: count - kept["registers"].get(name, 0) for name, count in measured.get("registers", {}).items()}
    return "".join(f"; {name} {count:+d}" for name, count in more.items() if count)
