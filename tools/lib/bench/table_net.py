"""net: a guest's network by passt and by a tap interface: iperf3 both ways, requests and responses, CPU time of a GB."""
import contextlib
import os
import re
import shutil
import socket
import subprocess

from bench import archives, processes, stepped
from bench import namespace as ns
from bench.monitors import GuestSpec

ABOUT = "net: iperf3 both ways and requests with responses, through passt and tap; CPU time of a GB and of a request"
WHERE = "counted"

SPEED, CPU, RATE, CPU_ONE = "throughput", "CPU time of a GB", "round trips a second", "CPU time of a round trip"
MIB, ROUNDS = 64, 1000
WAYS = {"send": ("guest sends", ""), "receive": ("guest receives", "-R")}


class Path:
    """How frames leave the guest: its address, its gateway, who is behind it, and the longest frame."""

    def __init__(self, address, peer, gateway="", mtu=1500):
        self.words = f"net_address={address} net_peer={peer} net_gateway={gateway} net_mtu={mtu}"


TAP = Path(ns.TAP_GUEST, ns.TAP_HOST)
PASST = Path(ns.UP_HOST, ns.UP_GATEWAY, ns.UP_GATEWAY, 65520)
SLIRP = Path("10.0.2.15", "10.0.2.2", "10.0.2.2")

PREPARE = """
ip link set lo up
ip link set eth0 mtu $net_mtu up
ip addr add $net_address/24 dev eth0
[ -z "$net_gateway" ] || ip route add default via $net_gateway
tries=0
until rr ask $net_peer 5202 1 >/dev/null 2>&1; do
  tries=$((tries + 1))
  [ $tries -lt 100 ] || break
done
"""


def steps(setting):
    size = MIB // (2 if setting.quick else 1)
    return ["iperf3 -c $net_peer -n 1K -i 0 -f k",
            *(f"iperf3 -c $net_peer -n {size}M -i 0 -f k {flag}" for _, flag in WAYS.values()),
            "rr ask $net_peer 5202 1", f"rr ask $net_peer 5202 {ROUNDS // (2 if setting.quick else 1)}"]


def connections(setting):
    """(case, name, monitor, path, flags of its own, whether passt is started for it)"""
    snug, _, q35 = setting.monitors[:3]
    yield "tap", "snug", snug, TAP, ["--net", f"tap,tap={ns.TAP}"], False
    yield "tap", "snug, vhost off", snug, TAP, ["--net", f"tap,tap={ns.TAP},vhost=off"], False
    for name, vhost in (("QEMU q35, vhost=on", "on"), ("QEMU q35", "off")):
        yield "tap", name, q35, TAP, ["-netdev", f"tap,id=n,ifname={ns.TAP},script=no,downscript=no,vhost={vhost}"], False
    yield "passt", "snug", snug, PASST, ["--net", "user,host_loopback=true"], False
    yield "passt", "QEMU q35", q35, PASST, ["-netdev", "stream,id=n,server=off,addr.type=fd,addr.str={fd}"], True
    yield "user mode", "QEMU q35, slirp", q35, SLIRP, ["-netdev", "user,id=n"], False
    for monitor in setting.monitors[3:]:
        yield "tap", monitor.name, monitor, TAP, [], False


def prepared(setting, work):
    """The initrd with iperf3 and rr, and rr's path here."""
    source = os.path.join(os.path.dirname(os.path.realpath(__file__)), "rr.c")
    rr = setting.path("rr")
    subprocess.run(["gcc", "-static", "-O1", "-o", rr, source], check=True)
    files = {**archives.program("iperf3"), "bin/rr": rr, "steps": stepped.script(work, PREPARE)}
    more = setting.file("net-steps", lambda path: archives.write(path, files))
    return archives.joined(setting.path("net-initrd"), setting.initrd, more), rr


def measure(setting, figures):
    work = steps(setting)
    try:
        initrd, rr = prepared(setting, work)
    except (OSError, subprocess.CalledProcessError) as problem:
        figures.missing("net", "iperf3, round trips", SPEED, "all", str(problem))
        return
    network = ns.Namespace()
    try:
        if network.reason:
            figures.missing("net", "iperf3, round trips", SPEED, "all", network.reason)
            return
        servers = [["iperf3", "-s"], [rr, "serve", "5202"]]
        for connection in connections(setting):
            measure_connection(setting, figures, network, servers, initrd, work, *connection)
    finally:
        network.close()


def measure_connection(setting, figures, network, servers, initrd, work, case, name, monitor, path, flags, with_passt):
    guest = GuestSpec("ELF" if "ELF" in monitor.kernels else "bzImage", initrd, memory_mib=256, ends=False,
                      words=f"quiet rdinit=/steps {path.words}")
    if monitor is setting.snug_monitor():
        guest = guest.changed(extra=flags)
    elif flags:
        guest = guest.changed(more=[*flags, "-device", "virtio-net-pci,netdev=n,romfile="])
    else:
        guest = guest.changed(tap=ns.TAP)
    if not figures.begin("net", case, name):
        return
    why = monitor.missing(guest) or (case == "passt" and not shutil.which("passt") and "passt is not on PATH")
    if why:
        figures.missing("net", f"{case}: iperf3, round trips", SPEED, name, why)
        return
    runs = []
    try:
        for _ in range(1 if setting.quick else 2):
            runs.append(stepped.run(lambda first: started(setting, network, servers, monitor.command(
                guest.changed(words=f"{guest.words} {stepped.words(first)}")), with_passt), len(work), cost))
        report(setting, figures, case, name, runs)
    except processes.Failed as problem:
        figures.missing("net", f"{case}: iperf3, round trips", SPEED, name, str(problem))


@contextlib.contextmanager
def started(setting, network, servers, command, with_passt):
    """A guest in the network, its peers, and a passt for it, connected by a pair of sockets as snug does it."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.enter_context(network.serving(*server))
        fds = []
        if with_passt:
            ours, theirs = socket.socketpair()
            stack.callback(ours.close)
            passt = subprocess.Popen([*network.prefix, "passt", "--foreground", "--quiet", "--stderr", "--fd",
                                      str(theirs.fileno())], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                     pass_fds=[theirs.fileno()])
            theirs.close()
            stack.callback(passt.wait)
            stack.callback(passt.kill)
            fds = [ours.fileno()]
            command = [word.replace("{fd}", str(fds[0])) for word in command]
        guest = stack.enter_context(processes.Guest([*network.prefix, *command], setting.environment, fds))
        guest.helpers = [passt.pid] if with_passt else []  # beside those that it has started itself
        yield guest


def cost(guest):
    return (processes.cpu_seconds_of_all(guest.pid) + processes.vhost_seconds(guest.pid)
            + sum(map(processes.cpu_seconds, guest.helpers)))


def received(text):
    """(bytes, bits a second) as iperf3's receiver has it."""
    found = re.search(r"([0-9.]+) ([KMG])Bytes +([0-9.]+) Kbits/sec.*receiver", text)
    if not found:
        raise processes.Failed(f"iperf3: {text.strip()[-300:]}")
    return float(found.group(1)) * 1024 ** " KMG".index(found.group(2)), float(found.group(3)) * 1000


def round_trips(text):
    found = re.search(r"^rr: (\d+) (\d+)$", text, re.M)
    if not found:
        raise processes.Failed(f"rr: {text.strip()[-300:]}")
    return int(found.group(1)), int(found.group(2)) / 1e9


def report(setting, figures, case, name, runs):
    whose = "CPU clocks of the monitor, its passt and its vhost threads, less what {} costs; the peer's not included"
    for number, (title, _) in enumerate(WAYS.values(), 1):
        results = [received(run[number][0]) for run in runs]
        figures.add("net", f"{case}: {title}", SPEED, name, [bits / 1e6 for _, bits in results], "Mbit/s",
                    setting.method("iperf3, one TCP stream to a server on the host"), better="more")
        figures.add("net", f"{case}: {title}", CPU, name,
                    [(run[number][1] - run[0][1]) / size * 1e9 for run, (size, _) in zip(runs, results)], "s",
                    setting.method(whose.format("a transfer of 1 KiB")))
    results = [round_trips(run[4][0]) for run in runs]
    figures.add("net", f"{case}: one byte there and back", RATE, name, [count / seconds for count, seconds in results], "/s",
                setting.method("TCP, one request under way"), better="more")
    figures.add("net", f"{case}: one byte there and back", CPU_ONE, name,
                [(run[4][1] - run[3][1]) / count * 1e6 for run, (count, _) in zip(runs, results)], "us",
                setting.method(whose.format("a single one")))
