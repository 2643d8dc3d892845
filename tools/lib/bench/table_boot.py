"""boot: what it costs to start a guest, from exec to the guest's reset by its first program."""
from bench import figures as f
from bench import processes, traces
from bench.monitors import GuestSpec

ABOUT = "boot: work (CPU time) from exec to the reset that the guest's first program asks for, its parts, random addresses"
WHERE = "counted"

CPU, PARTS = "CPU time, exec to reset", "parts"
RANDOM = "cost of random addresses (KASLR)"
# What snug should not be above, for the tiny kernel with one processor and a serial port alone; KASLR for any.
BUDGET_CPU, BUDGET_RANDOM = 0.14, 2.0
STOCK = "Debian bzImage"
NO_CACHE, NO_KASLR = ["--kernel-cache", "false"], ["--kaslr", "false"]


def cases(setting):
    base = GuestSpec("ELF", setting.lean)
    packed = base.changed(kernel="bzImage")
    yield base
    yield packed
    yield base.changed(kernel=STOCK)
    if setting.quick:
        return
    yield packed.changed(cpus=2)
    yield packed.changed(memory_mib=1024)
    yield packed.changed(disk=setting.disk, tap=setting.tap or "missing")
    yield packed.changed(disk=setting.disk, tap=setting.tap or "missing", rng=True, cpus=2, memory_mib=1024)


def plain(guest):
    return not guest.devices() and guest.cpus == 1 and guest.memory_mib == 128


def variants(guest, quick):
    """snug's own ways, where the guest has nothing else: what its kernel cache and random addresses cost and save."""
    yield "snug", guest
    if not plain(guest):
        return
    if guest.kernel != "ELF":
        yield "snug, kaslr off", guest.changed(extra=NO_KASLR)
    if guest.kernel == STOCK and quick:
        return
    yield "snug, no kernel cache", guest.changed(extra=NO_CACHE)
    if guest.kernel != "ELF":
        yield "snug, no kernel cache, kaslr off", guest.changed(extra=NO_CACHE + NO_KASLR)


def measure(setting, figures):
    for guest in cases(setting):
        for monitor in setting.monitors:
            case = guest.case()
            if not figures.begin("boot", case, monitor.name):
                continue
            own = monitor is setting.snug_monitor()
            why = monitor.missing(guest) or (guest.tap == "missing" and setting.tap_reason)
            if not why and guest.kernel == STOCK and setting.quick and not own:
                why = "left out with --quick: it takes minutes"
            if why:
                figures.missing("boot", case, CPU, monitor.name, why)
                continue
            ways = list(variants(guest, setting.quick)) if own else [(monitor.name, guest)]
            found = {name: measure_cpu(setting, figures, name, monitor.command(variant), guest) for name, variant in ways}
            for name, values in found.items():
                without = found.get(f"{name}, kaslr off")
                if values and without:
                    report_random(setting, figures, case, name, values, without)
    measure_parts(setting, figures)


def measure_cpu(setting, figures, name, command, guest):
    """Every run's seconds, or None."""
    values = []
    own = name.startswith("snug")
    warm = not own and name in setting.warm  # the peers keep nothing but their program's pages
    try:
        for number in range(warm, 1 + (setting.runs if own else min(2, setting.runs))):
            usage, _ = processes.tried(lambda: processes.run_to_end(command, setting.environment))
            if number:  # the first is thrown away: it fills caches
                values.append(usage.ru_utime + usage.ru_stime)
        setting.warm.add(name)
    except processes.Failed as problem:
        figures.missing("boot", guest.case(), CPU, name, str(problem))
        return None
    figures.add("boot", guest.case(), CPU, name, values, "s", setting.method("rusage of the process and its children"),
                budget=BUDGET_CPU if own and plain(guest) and guest.kernel != STOCK else None)
    return values


def report_random(setting, figures, case, name, values, without):
    figures.add("boot", case, RANDOM, name, [(one / f.middle(without) - 1) * 100 for one in values], "%",
                setting.method("CPU time of each run beside the median with kaslr off"), tolerance=1.0, budget=BUDGET_RANDOM)


def measure_parts(setting, figures):
    reason = traces.missing()
    for kernel in ("ELF",) if setting.quick else ("ELF", "bzImage"):
        guest = GuestSpec(kernel, setting.lean)
        for monitor in setting.monitors:
            own = [(monitor.name, guest)]
            if monitor is setting.snug_monitor() and kernel != "ELF":
                own.append(("snug, no kernel cache", guest.changed(extra=NO_CACHE)))
            for name, variant in own:
                if not figures.begin("boot", f"{PARTS} of {guest.case()}", name):
                    continue
                why = monitor.missing(guest) or reason
                if why:
                    figures.missing("boot", guest.case(), PARTS, name, why)
                    continue
                measure_parts_of(setting, figures, guest.case(), name, monitor.command(variant))


def measure_parts_of(setting, figures, case, name, command):
    try:
        processes.tried(lambda: processes.run_to_end(command, setting.environment))  # thrown away: fills caches
        traced, _ = processes.tried(lambda: traces.trace(lambda: processes.run_to_end(command, setting.environment),
                                                         command[0].rpartition("/")[2]))
    except processes.Failed as problem:
        figures.missing("boot", case, PARTS, name, str(problem))
        return
    for part in (traces.BEFORE, traces.GUEST, traces.KERNEL, traces.MONITOR):
        figures.add("boot", case, f"part: {part}", name, [traced.seconds[part]], "s",
                    setting.method("one run, tracepoints of KVM and the scheduler, their own cost included"), tolerance=0.1)
