"""How fast virtio devices are, seen from a guest, and that no request costs an exit to user space."""
from micro import *  # noqa: F403

# Requests at depth 32 and at depth 1: enough for a figure, few enough where everything is slow.
REQUESTS = int(os.environ.get("SNUG_BENCH_REQUESTS", "20000"))
ALONE = max(REQUESTS // 20, 50)


def bench(environment, options, flags, entries=None):
    """Figures by (what, bytes, depth), and exits to user space but for printing. `entries`: of each device's rings."""
    ended = snug("run", "--kernel", MICRO + "/virtio-bench.elf", "--memory", "64M", "--stats", "--timeout", "300s",
                 "--cmdline", options, *flags, env=environment).expect(0)
    khz = int(re.search(r"^bench: khz (\d+)", ended.out, re.M).group(1))
    check("bench: done" in ended.out, "the guest has not come to its end", ended.out, ended.err)
    found = {name: int(size) for name, size in re.findall(r"^bench: entries (\w+) (\d+)", ended.out, re.M)}
    check(entries is None or found == entries, f"rings of another size: {found}", ended.out)
    figures = {}
    for line in re.findall(r"^bench: ([a-z-]+(?: \d+){6})", ended.out, re.M):
        what, *numbers = line.split()
        size, depth, count, ticks, doorbells, interrupts = map(int, numbers)
        figures[what, size, depth] = (count, ticks / (khz * 1000) if khz else None, doorbells, interrupts)
    printing = re.search(r"^stats: port_write 0x3f8 (\d+)", ended.err, re.M)
    return figures, ended.stat("exits") - int(printing.group(1))


def compare(wanted, script, *flags, options=""):
    """Ten times the requests, and not one exit more."""
    with folder_with_peer(script) as (folder, environment):
        flags = [flag.replace("DISK", folder + "/disk.img") for flag in flags]
        few = f"requests={REQUESTS // 10} requests_alone={ALONE // 10} {options}"
        many = f"requests={REQUESTS} requests_alone={ALONE} {options}"
        _, few_exits = bench(environment, few, flags)
        environment.pop("SNUG_JAIL_AUDIT", None)  # what the few do is what the many do
        figures, many_exits = bench(environment, many, flags)
    check(set(figures) >= set(wanted), f"figures are missing: {sorted(figures)}")
    for (what, size, depth), (count, seconds, doorbells, interrupts) in figures.items():
        rate = f"{count / seconds:>9.0f} requests/s {count * size / seconds / 1e6:>8.1f} MB/s" if seconds else "no clock"
        print(f"    {what:<10} {size:>6} bytes, depth {depth:>2}: {rate}, {doorbells / count:.3f} doorbells and "
              f"{interrupts / count:.3f} interrupts for each")
    requests = sum(count for count, *_ in figures.values())
    print(f"    exits to user space: {few_exits:.0f} with a tenth of the requests, {many_exits:.0f} with {requests}")
    # A signal may come in between: far fewer than requests.
    check(many_exits - few_exits <= 20, f"{many_exits - few_exits} exits more for ten times the requests")


@test
def virtio_disk_requests_cost_no_exit():
    compare([("blk-read", 4096, 1), ("blk-write", 4096, 1), ("blk-read", 4096, 32), ("blk-write", 4096, 32)],
            None, "--rng", "false", "--disk", "DISK")


@test
def virtio_devices_with_threads_of_their_own_cost_no_exit():
    compare([("blk-read", 4096, 1), ("blk-write", 4096, 1), ("blk-read", 4096, 32), ("blk-write", 4096, 32),
             ("net-send", 1514, 1), ("net-send", 1514, 32)], SINK, "--rng", "false", "--disk", "DISK,thread=true", "--net",
            "user,thread=true")


@test
def virtio_queues_have_the_size_of_the_spec():
    """Rings of 1024 entries are filled, and cost no exit either; a ring of 16 works."""
    for size, disk_depth, net_depth in ((1024, 340, 340), (256, 85, 256), (16, 5, 16)):
        with folder_with_peer(SINK) as (folder, environment):
            options = f"requests=400 requests_alone=10 deep={340 if size >= 256 else 0}"
            flags = ["--rng", "false", "--disk", f"{folder}/disk.img,queue_size={size}", "--net", f"user,queue_size={size}"]
            figures, exits = bench(environment, options, flags, entries={"blk": size, "net": size})
            _, few_exits = bench(environment, options.replace("=400", "=40"), flags)
        check(exits - few_exits <= 40, f"{exits - few_exits} exits more for ten times the requests")
        for what, depth in (("blk-read", disk_depth), ("blk-write", disk_depth), ("net-send", net_depth)):
            deepest = max(row[2] for row in figures if row[0] == what)
            check(deepest == depth, f"{what}, ring of {size}: depth {deepest}, not {depth}")


@test
def virtio_entropy_costs_no_exit():
    compare([("rng", 256, 1), ("rng", 256, 32)], None)


@test
def virtio_frames_sent_cost_no_exit():
    compare([("net-send", 1514, 1), ("net-send", 1514, 32)], SINK, "--rng", "false", "--net", "user")


@test
def virtio_frames_received_cost_no_exit():
    compare([("net-echo", 1514, 32)], ECHO, "--rng", "false", "--net", "user", options="echo=1")
