"""block: how fast a disk is and what a request costs, seen by fio in a Linux guest."""
from bench import archives, processes, stepped
from bench.monitors import GuestSpec

ABOUT = "block: fio in a Linux guest: 4k random reads and writes, 128k sequential, depth 1 and 32; CPU time of a request"
WHERE = "counted"

RATE, SPEED, CPU = "requests a second", "throughput", "CPU time of a request, guest and monitor"
FILE_MIB = 64
# fio's name of the pattern, size in KiB, depth, requests.
JOBS = [("randread", 4, 1, 1500), ("randread", 4, 32, 4000), ("randwrite", 4, 1, 1500), ("randwrite", 4, 32, 4000),
        ("read", 128, 1, 250), ("read", 128, 32, 750), ("write", 128, 1, 250), ("write", 128, 32, 750)]
TITLES = {"randread": "random read", "randwrite": "random write", "read": "sequential read", "write": "sequential write"}


def fio(pattern, size, depth, requests):
    return (f"fio --name=job --filename=/dev/vda --size={FILE_MIB}m --direct=1 --ioengine=libaio --rw={pattern} --bs={size}k "
            f"--iodepth={depth} --io_size={requests * size}k --randseed=1 --norandommap --thread "
            "--output-format=terse --terse-version=3 | sed 's/^/fio: /'")


def ways(setting, guest):
    """(name, command): QEMU's default, and what it is told where disks must be quick."""
    snug, _, q35 = setting.monitors[:3]
    yield snug, "snug", guest
    yield snug, "snug, thread", guest.changed(disk=guest.disk + ",thread=true")
    yield q35, "QEMU q35", guest
    yield q35, "QEMU q35, iothread, io_uring", guest.changed(more=["-object", "iothread,id=t"], drive=",aio=io_uring",
                                                              disk_device=",iothread=t")
    for monitor in setting.monitors[3:]:
        yield monitor, monitor.name, guest


def measure(setting, figures):
    jobs = [job for job in JOBS if not setting.quick or job[1:3] != (128, 1)]
    # The first does next to nothing: what it costs is fio's own start.
    steps = [fio("randread", 4, 1, 1)] + [fio(*job[:3], job[3] // (2 if setting.quick else 1)) for job in jobs]
    more = setting.file("fio-steps", lambda path: archives.write(path, {"steps": stepped.script(steps)}))
    initrd = archives.joined(setting.path("fio-initrd"), setting.initrd, setting.images["FIO"], more)
    disk = setting.full_disk(FILE_MIB)
    guest = GuestSpec("ELF", initrd, memory_mib=256, disk=disk, ends=False, words="quiet rdinit=/steps")
    for monitor, name, variant in ways(setting, guest):
        if monitor.kernels and "ELF" not in monitor.kernels:
            variant = variant.changed(kernel="bzImage")
        if not figures.begin("block", name):
            continue
        why = monitor.missing(variant)
        if why:
            figures.missing("block", "Linux guest, fio", RATE, name, why)
            continue
        runs = []
        try:
            for _ in range(1 if setting.quick else 2):
                runs.append(stepped.run(lambda first, m=monitor, g=variant: processes.Guest(
                    m.command(g.changed(words=f"{g.words} {stepped.words(first)}")), setting.environment), len(steps),
                    lambda guest: processes.cpu_seconds_of_all(guest.pid)))
            report(setting, figures, name, jobs, runs)
        except processes.Failed as problem:
            figures.missing("block", "Linux guest, fio", RATE, name, str(problem))


def terse(text):
    """(requests, requests a second, KB/s) of a job; fio's HOWTO, terse output, version 3."""
    line = next((line for line in text.splitlines() if line.startswith("fio: 3;")), None)
    fields = line.split(";") if line else []
    if len(fields) < 50 or fields[4] != "0":
        raise processes.Failed(f"fio: {text.strip()[-200:]}")
    total, speed, rate = (int(fields[at]) + int(fields[at + 41]) for at in (5, 6, 7))
    return total, rate, speed


def report(setting, figures, name, jobs, runs):
    where = "fio's own clock, a file of 64 MiB in RAM"
    for number, (pattern, size, depth, _) in enumerate(jobs, 1):
        case = f"fio, {TITLES[pattern]} {size}k, depth {depth}"
        results = [terse(run[number][0]) for run in runs]
        requests = [total / size for total, _, _ in results]
        figures.add("block", case, RATE, name, [rate for _, rate, _ in results], "/s", setting.method(where), better="more")
        figures.add("block", case, SPEED, name, [speed * 1.024e-3 for _, _, speed in results], "MB/s",
                    setting.method(where), better="more")
        figures.add("block", case, CPU, name,
                    [(run[number][1] - run[0][1]) / count * 1e6 for run, count in zip(runs, requests)], "us",
                    setting.method("CPU clocks of the monitor's processes, less what a job of one request costs"))
