"""exits: how often a guest leaves for user space and for the host kernel while it boots."""
import re

from bench import processes, table_command, traces
from bench.monitors import GuestSpec

ABOUT = "exits: to user space and to the host kernel, by reason and by device register, first KVM_RUN to reset"
WHERE = "guest"

USER = "exits to user space"
BUDGET = 400
# What the clocks of guest and host make of it: the console is asked whether it is ready, timers interrupt.
TIMING, TIMING_KERNEL = 0.05, 0.15
KERNEL = "exits to the host kernel (all)"


def cases(setting):
    """(name, guest, what snug should not be above)"""
    base = GuestSpec("bzImage", setting.lean)
    found = [base, base.changed(disk=setting.disk, tap=setting.tap or "missing", rng=True)]
    if not setting.quick:
        found += [base.changed(cpus=2), base.changed(kernel="Debian bzImage")]
    yield from ((guest.case(), guest, None) for guest in found)
    script = base.changed(initrd=table_command.initrd_with_script(setting), words="quiet rdinit=/run-true", ends=False,
                          disk=setting.disk, tap=setting.tap or "missing")
    yield script.case() + ", a script of busybox as init", script, BUDGET


def measure(setting, figures):
    for case, guest, budget in cases(setting):
        for monitor in setting.monitors:
            if not figures.begin("exits", case, monitor.name):
                continue
            why = monitor.missing(guest) or (guest.tap == "missing" and setting.tap_reason)
            if why:
                figures.missing("exits", case, USER, monitor.name, why)
                continue
            try:
                measure_monitor(setting, figures, case, guest, monitor, budget)
            except processes.Failed as problem:
                figures.missing("exits", case, USER, monitor.name, str(problem))


def measure_monitor(setting, figures, case, guest, monitor, budget):
    command = monitor.command(guest)
    reason = traces.missing()
    is_snug = monitor is setting.snug_monitor()
    if reason and not is_snug:
        figures.missing("exits", case, USER, monitor.name, reason)
        return
    if reason:
        _, output = processes.run_to_end(command, setting.environment)
    else:
        processes.tried(lambda: processes.run_to_end(command, setting.environment))  # thrown away: fills caches
        traced, (_, output) = traces.trace(lambda: processes.run_to_end(command, setting.environment),
                                           command[0].rpartition("/")[2])
        detail = {**traced.user_exits, **dict(sorted(traced.registers.items(), key=lambda entry: -entry[1])[:40])}
        figures.add("exits", case, USER, monitor.name, [sum(traced.user_exits.values())], "",
                    "tracepoint kvm_userspace_exit, one run", detail=detail, tolerance=TIMING)
        figures.add("exits", case, KERNEL, monitor.name, [sum(traced.kernel_exits.values())], "",
                    "tracepoint kvm_exit, one run", detail=traced.kernel_exits, tolerance=TIMING_KERNEL)
    if is_snug:
        figures.add("exits", case, USER + ", as snug counts", monitor.name, [stat(output, "exits")], "",
                    "snug run --stats, one run", detail=registers(output), tolerance=TIMING, budget=budget)


def stat(output, name):
    found = re.search(rf"^stats: {re.escape(name)} ([0-9.]+)", output, re.M)
    if not found:
        raise processes.Failed(f"snug printed no figure {name}")
    return float(found.group(1))


def registers(output):
    return {f"{what} {address}": int(count) for what, address, count in
            re.findall(r"^stats: ((?:port|mmio)_(?:read|write)) (0x[0-9a-f]+) ([0-9]+)", output, re.M)}
