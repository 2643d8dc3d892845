"""scale: guests started together, and what each costs as their number grows."""
import time

from bench import processes
from bench.monitors import GuestSpec

ABOUT = "scale: 1 to 50 guests started together: time until all are ready, memory and CPU time of each"
# Not where CPU time is a count of instructions: there the lab loses one or two of ten guests at once (tools/README.md).
WHERE = "guest"

UNTIL, CPU, MEMORY = "until all are ready", "CPU time of each guest", "memory of each guest (PSS)"
# With more the peers' growth shows nothing new, and they take long.
MOST_OF_PEERS = 10
# What other work of the host makes of a run.
NOISE = 0.3
# Of the memory that is there when the guests are started, what they may be expected to take.
MEMORY_PART = 0.8


def measure(setting, figures):
    guest = GuestSpec("bzImage", setting.initrd, memory_mib=64, ends=False)
    for monitor in setting.monitors:
        each_mib = None  # as it was with fewer
        for count in (1, 2, 5) if setting.quick else (1, 2, 5, 10, 20, 50):
            case = f"{guest.case()}, {count} at once"
            if not figures.begin("scale", case, monitor.name):
                continue
            why = monitor.missing(guest)
            if not why and count > MOST_OF_PEERS and monitor is not setting.snug_monitor():
                why = f"left out: what a guest costs changes no more from {MOST_OF_PEERS} on"
            if not why and each_mib and each_mib * count > available_mib() * MEMORY_PART:
                why = f"{count} guests of {each_mib:.0f} MiB do not fit into {available_mib():.0f} MiB"
            if why:
                figures.missing("scale", case, UNTIL, monitor.name, why)
                continue
            command = monitor.command(guest)
            try:
                if each_mib is None:
                    processes.tried(lambda c=command: together(setting, c, 1))  # thrown away: fills caches
                elapsed, memory, cpu = processes.tried(lambda c=command, n=count: together(setting, c, n), 3)
            except processes.Failed as problem:
                figures.missing("scale", case, UNTIL, monitor.name, str(problem))
                continue
            each_mib = max(memory, default=each_mib)
            report(setting, figures, case, count, monitor, elapsed, memory, cpu)


def available_mib():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable")) / 1024


def together(setting, command, count):
    """Seconds until all are ready, MiB (none when they cannot be known) and CPU seconds of each."""
    guests = []
    try:
        start = time.monotonic()
        for _ in range(count):
            guests.append(processes.Guest(command, setting.environment))
        processes.wait_for_all(guests, bound=processes.BOUND * max(1, count / 25))
        elapsed = time.monotonic() - start
        try:
            memory = [processes.pss_kib(guest.pid) / 1024 for guest in guests]
        except processes.Failed:
            memory = []
        return elapsed, memory, [processes.cpu_seconds_of_all(guest.pid) for guest in guests]
    finally:
        for guest in guests:
            guest.kill()


def report(setting, figures, case, count, monitor, elapsed, memory, cpu):
    along = ("guests at once", count)
    figures.add("scale", case, UNTIL, monitor.name, [elapsed], "s",
                "first exec to the last ready line, one run; in the lab an exit takes a hundred times what it takes elsewhere", tolerance=NOISE,
                along=along)
    if memory:
        figures.add("scale", case, MEMORY, monitor.name, memory, "MiB",
                    "smaps_rollup when all are ready, guest RAM included, one value a guest", tolerance=0.1, along=along)
    else:
        figures.missing("scale", case, MEMORY, monitor.name, processes.ROOT_ALONE)
    figures.add("scale", case, CPU, monitor.name, cpu, "s",
                "CPU clocks of its processes, exec to ready, one value a guest; in the lab by a real clock", tolerance=NOISE,
                along=along)
