"""memory: what a running, idle guest costs beyond its RAM, and what guests of one image share."""
import time

from bench import processes
from bench.monitors import GuestSpec

ABOUT = "memory: resident beyond guest RAM, and the proportional share (PSS) of 1, 10 and 50 guests of one image"
WHERE = "guest"

BEYOND = "resident beyond guest RAM"
BUDGET_MIB = 4
METHOD = ("smaps of an idle guest: Rss of every mapping that is not guest RAM, the program's own included, what several "
          "processes of a monitor share once")


def measure(setting, figures):
    base = GuestSpec("bzImage", setting.initrd, ends=False)
    full = base.changed(disk=setting.disk, tap=setting.tap or "missing", rng=True)
    for guest in (base, full):
        for monitor in setting.monitors:
            if not figures.begin("memory", guest.case(), monitor.name):
                continue
            why = monitor.missing(guest) or (guest.tap == "missing" and setting.tap_reason)
            if why:
                figures.missing("memory", guest.case(), BEYOND, monitor.name, why)
                continue
            measure_beyond(setting, figures, guest, monitor)
    for count in (1, 10) if setting.quick else (1, 10, 50):
        measure_shared(setting, figures, base, count)
        measure_clones(setting, figures, base, count)


def measure_beyond(setting, figures, guest, monitor):
    values, detail = [], {}
    for _ in range(setting.runs):
        running = processes.Guest(monitor.command(guest), setting.environment)
        try:
            running.wait_for()
            time.sleep(processes.SETTLED)
            detail = processes.memory_beyond_ram(running.pid, guest.memory_mib)
            values.append(sum(detail.values()) / 1024)
        except processes.Failed as problem:
            figures.missing("memory", guest.case(), BEYOND, monitor.name, str(problem))
            return
        finally:
            running.kill()
    parts = dict(sorted(detail.items(), key=lambda part: -part[1])[:12])
    figures.add("memory", guest.case(), BEYOND, monitor.name, values, "MiB", METHOD,
                detail={f"{name} (KiB)": kib for name, kib in parts.items()}, tolerance=0.15,
                budget=BUDGET_MIB if monitor is setting.snug_monitor() and guest.devices() else None)


def measure_clones(setting, figures, guest, count):
    """Machines that sleep, of one template, which one before them leaves."""
    case = f"{guest.case()}, {count} idle guest{'s' if count > 1 else ''}"
    name = "snug, from a template, sleep"
    if not figures.begin("memory", case, name):
        return
    command = [setting.snug, "run", "--kernel", setting.snug_monitor().kernel_file(guest), "--initrd", guest.initrd, "--memory",
               f"{guest.memory_mib}M", "--template", "true", "--", "sh", "-c", "echo sleeping; exec sleep 100000"]
    running = []
    try:
        for number in range(count + 1):
            running.append(processes.Guest(command, setting.environment))
            running[-1].wait_for(b"sleeping")
            if number == 0:
                running.pop().end()
        time.sleep(processes.SETTLED)
        values = [processes.pss_kib(one.pid) / 1024 for one in running]
    except processes.Failed as problem:
        figures.missing("memory", case, "PSS of each guest, guest RAM included", name, str(problem))
        return
    finally:
        for one in running:
            one.kill()
    figures.add("memory", case, "PSS of each guest, guest RAM included", name, values, "MiB",
                "smaps_rollup of all processes of each", along=("idle guests", count))


def measure_shared(setting, figures, guest, count):
    snug = setting.snug_monitor()
    ways = [("snug, kernel cache on", snug, []), ("snug, kernel cache off", snug, ["--kernel-cache", "false"])]
    if count <= 10:  # with more the peers' share changes no more
        ways += [(monitor.name, monitor, []) for monitor in setting.monitors[1:]]
    for name, monitor, extra in ways:
        case = f"{guest.case()}, {count} idle guest{'s' if count > 1 else ''}"
        if not figures.begin("memory", case, name):
            continue
        why = monitor.missing(guest)
        if why:
            figures.missing("memory", case, "PSS of each guest, guest RAM included", name, why)
            continue
        running = []
        try:
            for _ in range(count):
                running.append(processes.Guest(monitor.command(guest.changed(extra=extra)), setting.environment))
                running[-1].wait_for()
            time.sleep(processes.SETTLED)
            values = [sum(processes.pss_kib(one.pid) for one in running) / count / 1024]
        except processes.Failed as problem:
            figures.missing("memory", case, "PSS of each guest, guest RAM included", name, str(problem))
            continue
        finally:
            for one in running:
                one.kill()
        figures.add("memory", case, "PSS of each guest, guest RAM included", name, values, "MiB",
                    "mean of smaps_rollup of all guests, started one after the other", along=("idle guests", count))
