"""Network interfaces of mode tap: two guests on a bridge of the host."""
import fcntl
import socket
import struct
import threading
from guests import *  # noqa: F403

TUNSETIFF = 0x400454ca
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
SEGMENT = 1600  # bytes for each frame: more than any that was cut for the cable
SENT = 4  # MiB, each way

INIT = """#!/bin/sh
export PATH=/sbin:/usr/sbin:/bin:/usr/bin HOME=/root
mount -a 2>/dev/null
ip link set lo up
dev() { ip addr add 10.99.0.$me/24 dev eth0; ip link set eth0 up; }
counters() { for i in tx_bytes tx_packets rx_bytes rx_packets; do echo -n "$(cat /sys/class/net/eth0/statistics/$i) "; done; }
answers() { i=0; until ping -c 1 -W 1 10.99.0.1 >/dev/null 2>&1; do i=$((i + 1)); [ $i -lt 200 ] || return 1; done; }
dev
. /$role
echo "warnings: $(dmesg -r | grep -E '^<[0-4]>.*(virtio|eth0|net)')"
snug-exit 0
"""

# Offers iperf3 and a file until it is told that all is done.
SERVER = """
echo interrupts $(grep virtio0 /proc/interrupts | grep -oE 'PCI-MSI|IO-APIC' | sort -u | xargs)
iperf3 -s -D
httpd -p 80 -h /www
echo serving
nc -l -p 7 </dev/null >/dev/null
"""

CLIENT = """
answers || snug-exit 3
sh -c "$before"
measure() {
  was="$(counters)"
  iperf3 -c 10.99.0.1 -n %dM -f m $2 $streams >/iperf.log 2>&1 || { cat /iperf.log; snug-exit 4; }
  echo "$1 $was$(counters)$(sed -n 's/.* \\([0-9.]*\\) Mbits.sec.*receiver$/\\1/p' /iperf.log | tail -n 1)"
}
measure out
measure in -R
wget -q -O - http://10.99.0.1/file | md5sum
echo queues $(grep virtio /proc/interrupts | sed 's/.* //' | xargs)
echo | nc 10.99.0.1 7
""" % SENT


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    check(done.returncode == 0, "ip " + " ".join(words), done.stderr)


class Bridge:
    """A bridge with taps on it, gone with the test."""

    def __init__(self, *taps):
        self.taps = taps

    def __enter__(self):
        if not os.path.exists("/dev/net/tun"):
            raise Skip("no /dev/net/tun")
        subprocess.run(["modprobe", "bridge"], capture_output=True)
        subprocess.run(["modprobe", "vhost_net"], capture_output=True)
        done = subprocess.run(["ip", "link", "add", "snugbr", "type", "bridge"], capture_output=True, text=True)
        if done.returncode != 0:
            raise Skip("no bridge can be made here: " + done.stderr.strip())
        for tap in self.taps:
            ip("tuntap", "add", "dev", tap.rstrip("+"), "mode", "tap", *(["multi_queue"] if tap.endswith("+") else []))
            ip("link", "set", tap.rstrip("+"), "master", "snugbr", "up")
        ip("link", "set", "snugbr", "up")
        return self

    def __exit__(self, *_):
        for tap in self.taps:
            subprocess.run(["ip", "link", "del", tap.rstrip("+")], capture_output=True)
        subprocess.run(["ip", "link", "del", "snugbr"], capture_output=True)


def programs(folder, *names):
    """Programs of this system for a guest, with the libraries that they need."""
    files = {}
    for name in names:
        path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        check(path, f"{name} is not installed")
        files["bin/" + name] = path
        for library in re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", path], capture_output=True, text=True).stdout):
            files[library.lstrip("/")] = os.path.realpath(library)
    data = os.urandom(1 << 20)
    for name, content in (("net-init", INIT), ("server", SERVER), ("client", CLIENT)):
        with open(f"{folder}/{name}", "w") as file:
            file.write(content)
        os.chmod(f"{folder}/{name}", 0o755)
        files[name] = f"{folder}/{name}"
    with open(folder + "/file", "wb") as file:
        file.write(data)
    files["www/file"] = folder + "/file"
    return small_initrd(folder, files), hashlib.md5(data).hexdigest()


def net_guest(more, number, role, net, *flags, cmdline="", **keywords):
    return subprocess.Popen(
        [SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--initrd", more, "--timeout", "300s", "--log-level", "debug",
         "--name", f"tap{number}", "--cmdline", f"quiet rdinit=/net-init me={number} role={role} {cmdline}",
         "--net", net, *flags], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords)


def two_guests(title, server_net, client_net, cmdline="", cpus=1, client_flags=(), server_cmdline="", **keywords):
    """Runs both to their end. What the client found: frame lengths and rates each way, and its output."""
    with tempfile.TemporaryDirectory() as folder:
        more, md5 = programs(folder, "iperf3", "ethtool")
        server = net_guest(more, 1, "server", server_net, "--cpus", str(cpus), cmdline=server_cmdline, **keywords)
        client = net_guest(more, 2, "client", client_net, "--cpus", str(cpus), *client_flags, cmdline=cmdline)
        # Both are read to their end at once: a full pipe would only be guarded against, not emptied.
        ends = {}
        threads = [threading.Thread(target=lambda n=name, p=process: ends.update({n: p.communicate(timeout=BOUND)}))
                   for name, process in (("server", server), ("client", client))]
        try:
            for thread in threads:
                thread.start()
            threads[1].join(BOUND)
            if client.returncode != 0:
                server.kill()
            threads[0].join(BOUND)
        finally:
            server.kill()
            client.kill()
        outs = {name: (out + b"\n" + err).decode("utf-8", "replace").replace("\r", "") for name, (out, err) in ends.items()}
        check(client.returncode == 0, f"status {client.returncode}", outs.get("server", ""), outs.get("client", ""))
        check(server.returncode == 0, f"status of the server {server.returncode}", outs.get("server", ""))
        out = outs["client"]
        for side in outs.values():
            check(re.search("^warnings: $", side, re.M), "the guest's kernel warns", side)
        check(md5 in out, "the file has arrived changed", out)
        frames = {}
        for way, first in (("out", 0), ("in", 2)):
            found = re.search(f"^{way} (.*)$", out, re.M)
            check(found, "no figures", out)
            words = found.group(1).split()
            numbers = [int(word) for word in words[:8]]
            size, count = (numbers[4 + i] - numbers[i] for i in (first, first + 1))
            # What iperf3 has handed to the socket by its end need not have been sent.
            check(size > SENT << 19, f"{way}: only {size} bytes", out)
            frames[way] = size / count
            print(f"          {title}, {way}: {words[8]} Mbit/s, {size / count:.0f} bytes a frame", flush=True)
        return frames, out, outs["server"]


@test
def net_tap_through_snug():
    with Bridge("snugtap0", "snugtap1"):
        frames, out, _ = two_guests("tap", "tap,tap=snugtap0,vhost=off", "tap,tap=snugtap1,vhost=off")
    check(min(frames.values()) > SEGMENT, f"segments are cut before the bridge: {frames}", out)


def vhost_starts(text):
    """How often vhost took up the rings of a pair."""
    return len(re.findall("the kernel works on the rings of pair", text))


def need_vhost():
    if not os.path.exists("/dev/vhost-net"):
        raise Skip("no /dev/vhost-net")


@test
def net_tap_by_vhost_with_two_queues():
    """And at the other end a guest without MSI: its interrupts are snug's to raise, and so its rings are not for vhost."""
    with Bridge("snugtap0+", "snugtap1+"):
        need_vhost()
        frames, out, server = two_guests("vhost, 2 queues", "tap,tap=snugtap0,queues=2,vhost=on",
                                         "tap,tap=snugtap1,queues=2,vhost=on", cpus=2, cmdline="streams=-P2",
                                         server_cmdline="pci=nomsi")
    check(min(frames.values()) > SEGMENT, f"segments are cut before the bridge: {frames}", out)
    check(re.search(r"^queues .*input.1.*output.1", out, re.M), "not two pairs of queues", out)
    check(vhost_starts(out) == 2, "vhost does not work on both pairs", out)
    check(re.search("^interrupts IO-APIC$", server, re.M) and vhost_starts(server) == 0, "not without MSI and vhost", server)


@test
@exhaustive
def net_tap_without_offloads_at_one_end():
    """Also: a descriptor in place of a name, vhost given back by an unbound driver and by a reboot."""
    with Bridge("snugtap0", "snugtap1"), tempfile.TemporaryDirectory() as folder:
        with open(folder + "/disk", "wb") as disk:
            disk.truncate(1 << 20)
        tap = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"snugtap0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        try:
            before = ("if [ x$(head -c 5 /dev/vda) != xagain ]; then echo -n again > /dev/vda; sync; echo first boot; reboot -f; fi; "
                      "d=$(basename $(readlink -f /sys/class/net/eth0/device)); cd /sys/bus/virtio/drivers/virtio_net; "
                      "echo $d > unbind; echo $d > bind; ip addr add 10.99.0.2/24 dev eth0; ip link set eth0 up; "
                      "ethtool -K eth0 rx-gro-hw off rx-checksumming off; "
                      "ethtool -k eth0 | grep -E 'rx-gro-hw|segmentation-offload'; ping -c 3 10.99.0.1 | tail -n 2")
            frames, out, server = two_guests(
                "no offloads at one end", f"tap,tap=fd:{tap}", "tap,tap=snugtap1", client_flags=("--disk", folder + "/disk"),
                cmdline=f"virtio_net.csum=0 virtio_net.gso=0 before=\"{before}\"", pass_fds=[tap])
        finally:
            os.close(tap)
    check(max(frames.values()) <= 1514, f"frames that this guest cannot have: {frames}", out)
    check("first boot" in out and "rx-gro-hw: off" in out, "no reboot, or offloads that stay", out)
    if os.path.exists("/dev/vhost-net"):
        check(vhost_starts(server) == 1 and vhost_starts(out) == 3, "vhost was not there at each start of the driver", server, out)


class AddressServer:
    """DHCP on the bridge, for a `with`: each hardware address gets one of its own; `given` has them in their order."""

    def __enter__(self):
        ip("addr", "add", "10.99.1.1/24", "dev", "snugbr")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"snugbr")
        self.socket.bind(("", 67))
        self.given = {}
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.socket.close()

    def serve(self):
        while True:
            try:
                question = self.socket.recv(2048)
            except OSError:
                return
            options, at = {}, 240
            while at + 1 < len(question) and question[at] != 255:
                options[question[at]] = question[at + 2:at + 2 + question[at + 1]]
                at += 2 + question[at + 1]
            client = question[28:34]
            address = self.given.setdefault(client, f"10.99.1.{10 + len(self.given)}")
            kind = {1: 2, 3: 5}.get(options.get(53, b"\0")[0])
            if kind is None:
                continue
            answer = bytearray(240)
            answer[0:3], answer[4:8], answer[16:20] = b"\x02\x01\x06", question[4:8], socket.inet_aton(address)
            answer[28:34], answer[236:240] = client, b"\x63\x82\x53\x63"
            for code, value in ((53, bytes([kind])), (54, socket.inet_aton("10.99.1.1")), (51, struct.pack(">I", 3600)),
                                (1, socket.inet_aton("255.255.255.0")), (3, socket.inet_aton("10.99.1.1"))):
                answer += bytes([code, len(value)]) + value
            self.socket.sendto(answer + b"\xff", ("255.255.255.255", 68))


@test
def net_tap_has_addresses_of_its_own_after_a_restore():
    """Another machine than was saved has another hardware address, asks by DHCP for what goes with it, and is reached there."""
    from snapshots import Machines
    with Bridge("snugtap1") as _, AddressServer() as server, Machines() as machines:
        machines.boot("first", "--net", "tap,tap=snugtap1,vhost=off")
        look = "ip -4 -o addr show dev eth0; cat /sys/class/net/eth0/address; ip route | grep -c default"
        check(" 10.99.1.10/24 " in machines.run("first", look), "no address by DHCP at first", machines.run("first", look))
        machines.save("first", "s")
        machines.gone("first")
        for name, expected in (("first", "10.99.1.10"), ("second", "10.99.1.11")):
            machines.restore("s", name)
            deadline = time.monotonic() + 60
            while f" {expected}/24 " not in (seen := machines.run(name, look)):
                check(time.monotonic() < deadline, f"{expected} is not its address", seen, server.given)
                time.sleep(0.2)
            check(seen.count(" inet ") == 1 and seen.endswith("\n1\n"), "other addresses or routes too", seen)
            machines.run(name, "ping -c 1 -W 30 10.99.1.1")
            machines.gone(name)
