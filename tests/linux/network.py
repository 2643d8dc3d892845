"""Network interfaces."""
import functools
from guests import *  # noqa: F403


def need_uplink():
    """passt translates to the host's network: it wants a default route. A host without one gets a dead end."""
    if "default" in subprocess.run(["ip", "route"], capture_output=True, text=True).stdout:
        return
    import fcntl
    import struct
    # Held open for as long as the tests run, so that it has a carrier and a link-local address.
    uplink = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(uplink, 0x400454ca, struct.pack("16sH22x", b"uplink0", 0x1002))  # TUNSETIFF: IFF_TAP, IFF_NO_PI
    for command in ("link set lo up", "addr add 192.0.2.2/24 dev uplink0",
                    "addr add fd00::2/64 dev uplink0 nodad", "link set uplink0 up", "route add default via 192.0.2.1",
                    # A lab's own network may have told it one (Bochs 3.0 does).
                    "-6 route replace default via fd00::1"):
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
        check(done.returncode == 0, f"ip {command}", done.stderr)


def free_port(kind):
    import socket
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def passt_processes():
    return subprocess.run(["pgrep", "-x", "passt|passt.avx2"], capture_output=True, text=True).stdout.split()


@test
def net_user_fetches_and_answers():
    import http.server
    import socket
    import threading
    need_uplink()
    with tempfile.TemporaryDirectory() as folder:
        data = os.urandom(3 << 20)
        os.mkdir(folder + "/www")
        with open(folder + "/www/file", "wb") as file:
            file.write(data)
        subprocess.run(["gcc", "-static", "-O1", "-o", folder + "/udp_echo", os.path.dirname(__file__) + "/udp_echo.c"], check=True)
        more = small_initrd(folder, {"bin/udp-echo": folder + "/udp_echo"})
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder + "/www")
        handler.func.log_message = lambda *_: None
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tcp, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
        script = (f"gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); "
                  f"wget -q -O - http://$gateway:{server.server_port}/file | md5sum; "
                  "cat /sys/class/net/eth0/address; for i in $(seq 100); do "
                  "ip -6 addr show dev eth0 scope global | grep -q inet6 && break; sleep 0.2; done; echo $((i < 100)); "
                  "mkdir /www; echo from the guest > /www/page; httpd -p 80 -h /www; udp-echo 53 & echo serving; "
                  "nc -l -p 81 < /dev/null > /dev/null; "
                  "dmesg -r | grep -E '^<[0-4]>.*(virtio|eth0|net)' || true")
        process = subprocess.Popen(
            [SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--initrd", more, "--timeout", "300s", "--cmdline", "quiet",
             "--name", "webguest", "--net", "user,host_loopback=true", "-p", f"{tcp}:80", "-p", f"127.0.0.1:{udp}:53/udp",
             "-p", f"{tcp + 1}:81", "--", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        seen = b""
        deadline = time.monotonic() + BOUND
        try:
            while b"serving" not in seen:
                check(time.monotonic() < deadline and process.poll() is None, "the guest does not serve", seen)
                if select.select([process.stdout], [], [], 1)[0]:
                    seen += os.read(process.stdout.fileno(), 4096)
            words = seen.decode().replace("\r", "").split()
            check(words[0] == hashlib.md5(data).hexdigest(), "what was fetched is not what was served", seen)
            check(re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", words[2]), "no MAC address", seen)
            check(words[3] == "1", "no IPv6 address by router advertisement", seen)
            import urllib.request
            page = urllib.request.urlopen(f"http://127.0.0.1:{tcp}/page", timeout=60).read()
            check(page == b"from the guest\n", "the published TCP port gives something else", page)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(5)
                client.connect(("127.0.0.1", udp))
                answer = b""
                for _ in range(10):
                    client.send(b"hello")
                    try:
                        answer = client.recv(100)
                        break
                    except socket.timeout:
                        continue
                check(answer == b"echo hello", "the published UDP port gives something else", answer)
            check(len(passt_processes()) == 1, "not one passt", passt_processes())
            held = hold(process.pid)
            socket.create_connection(("127.0.0.1", tcp + 1), 60).close()
            out, err = process.communicate(timeout=BOUND)
        finally:
            process.kill()
            process.wait()
            server.shutdown()
        check(process.returncode == 0, f"status {process.returncode}", seen + out, err)
        check(not passt_processes(), "passt is still there", passt_processes())
        check_gone(held)


@test
def net_user_host_loopback_is_shut_unless_asked_for():
    import http.server
    import threading
    need_uplink()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        ended = guest(TINY, "--cmdline", "quiet", "--net", "user", command=(
            "gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); echo gateway $gateway; "
            f"(timeout 5 wget -q -O - http://$gateway:{server.server_port}/ > /dev/null 2>&1) 2>/dev/null && echo reached || echo shut")).expect(0)
    finally:
        server.shutdown()
    words = marked(ended).split()
    check(words[0] == "gateway" and "." in words[1], "no gateway", ended.out)
    check(words[-1] == "shut" and "reached" not in words, "the host's loopback is open", ended.out)


@test
def net_user_survives_the_end_of_passt():
    need_uplink()
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--timeout", "300s", "--cmdline", "quiet",
                                "--net", "user", "--", "sh", "-c",
                                "echo carrier $(cat /sys/class/net/eth0/carrier); "
                                "while [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.1; done; echo unplugged; "
                                "while [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done; "
                                "udhcpc -i eth0 -n -q -t 20 -T 1 > /dev/null 2>&1 && echo back"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        seen = b""
        deadline = time.monotonic() + BOUND
        while b"carrier 1" not in seen:
            check(time.monotonic() < deadline and process.poll() is None, "the guest did not start", seen)
            if select.select([process.stdout], [], [], 1)[0]:
                seen += os.read(process.stdout.fileno(), 4096)
        subprocess.run(["pkill", "-KILL", "-x", "passt|passt.avx2"], check=True)
        out, err = process.communicate(timeout=BOUND)
    finally:
        process.kill()
        process.wait()
    check(b"unplugged" in out and b"back" in out, "the guest did not get its network back", seen + out, err)
    check(b"passt killed by signal 9" in err, "not a word of it", err)
    check(not passt_processes(), "passt is still there", passt_processes())


@test
def net_user_leaves_no_process_when_killed():
    need_uplink()
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet", "--net", "user",
                                "--", "sh", "-c", "echo up; sleep 1000"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    check(process.stdout.readline(), "the guest did not start")
    check(len(passt_processes()) == 1, "not one passt", passt_processes())
    kill_machine(process)
    process.communicate()
    deadline = time.monotonic() + 20
    while passt_processes():
        check(time.monotonic() < deadline, "passt outlives a killed snug", passt_processes())
        time.sleep(0.1)


# A name server that knows one name. (Port 53 of an address of the loopback, as systemd-resolved has it.)
NAME_SERVER = """
import socket, struct, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.53", 53))
print("serving", flush=True)
while True:
    query, client = server.recvfrom(512)
    end = query.index(0, 12) + 5
    kind = struct.unpack(">H", query[end - 4:end - 2])[0]
    answer = query[:2] + b"\\x81\\x80\\0\\1" + (b"\\0\\1" if kind == 1 else b"\\0\\0") + b"\\0\\0\\0\\0" + query[12:end]
    if kind == 1:
        answer += b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + socket.inet_aton("198.51.100.42")
    server.sendto(answer, client)
"""

# In namespaces of its own: a network with nothing but lo, and a resolv.conf. What follows is run there.
ALONE = ("unshare", "--net", "--mount", "sh", "-c", """
ip link set lo up
mount -t tmpfs none /mnt && cat > /mnt/resolv.conf && mount --bind /mnt/resolv.conf /etc/resolv.conf || exit
exec "$@" < /dev/null
""", "alone")


@test
def net_user_asks_the_hosts_stub():
    """The host's name server is on its loopback, and the host itself without a route: names are found all the same."""
    serve = ("sh", "-c", 'python3 -c "$0" > /tmp/served & server=$!; '
             'i=0; until grep -q serving /tmp/served || [ $((i += 1)) -gt 600 ]; do sleep 0.1; done; '
             '"$@"; status=$?; kill $server; exit $status', NAME_SERVER)
    with tempfile.TemporaryFile() as resolv:
        resolv.write(b"nameserver 127.0.0.53\nsearch example\n")
        resolv.seek(0)
        ended = guest(TINY, "--cmdline", "quiet", "--net", "user", prefix=(*ALONE, *serve), stdin=resolv, command=(
            "cat /etc/resolv.conf; nslookup name.example; "
            "timeout 5 wget -q -O - http://$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p')/ 2>&1 || false")).expect(1)
    shown = marked(ended)
    check("198.51.100.42" in shown, "the name was not found", shown, ended.err)


@test
def net_user_offline():
    """No route at all: the machine runs, its published ports work on the loopback; the guest's network works once the
    host has one."""
    script = ("httpd -p 80 -h /etc; echo serving; "
              "until ping -c 1 -W 1 192.0.2.1 > /dev/null; do sleep 0.2; done; echo online")
    inside = """
import subprocess, sys, urllib.error, urllib.request
guest = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
assert guest.stdout.readline() == b"serving\\n"
try:
    urllib.request.urlopen("http://127.0.0.1:8080/nothing", timeout=60)
except urllib.error.HTTPError as error:
    print("answered", error.code, flush=True)
for words in ("tuntap add there mode tap", "addr add 192.0.2.1/24 dev there", "link set there up"):
    subprocess.run(["ip", *words.split()], check=True)
subprocess.run(["sysctl", "-q", "-w", "net.ipv4.ping_group_range=0 2147483647"], check=True)
print(guest.stdout.readline().decode(), end="")
sys.exit(guest.wait())
"""
    with tempfile.TemporaryFile() as resolv:
        # It is a script that runs snug, and its output that counts.
        ended = snug("run", "--kernel", TINY, "--initrd", INITRD, "--timeout", "300s", "-p", "8080:80",
                     "-p", "[::1]:8081:80", "--", "sh", "-c", script, prefix=(*ALONE, "python3", "-c", inside), stdin=resolv)
    check(ended.status == 0 and ended.out == "answered 404\nonline\n", "not what was expected", ended.out, ended.err)
    # Nothing but lo: passt has no IPv6 there, and the machine runs all the same.
    check("[::1]:8081:80 is not published: no interface" in ended.err, "it is not said", ended.err)


@test
def net_user_ipv6_without_a_route():
    """A port on an IPv6 address of a host that has no route of that version."""
    inside = """
import fcntl, struct, subprocess, sys, time, urllib.error, urllib.request
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454ca, 2, 0x1000
tap = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", b"there", IFF_TAP | IFF_NO_PI))
subprocess.run(["ip", "link", "set", "there", "up"], check=True)
deadline = time.monotonic() + 60
while "fe80" not in subprocess.run(["ip", "-6", "addr", "show", "there", "-tentative"], capture_output=True, text=True).stdout:
    assert time.monotonic() < deadline
    time.sleep(0.1)
guest = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
assert guest.stdout.readline() == b"serving\\n"
while True:  # passt knows a guest's address once it has seen it, and gives up on one that it has not after 10 s
    try:
        urllib.request.urlopen("http://[::1]:8081/nothing", timeout=60)
    except urllib.error.HTTPError as error:
        print("answered", error.code, flush=True)
        break
    except OSError as error:
        assert time.monotonic() < deadline + 60, error
guest.kill()
"""
    with tempfile.TemporaryFile() as resolv:
        ended = snug("run", "--kernel", TINY, "--initrd", INITRD, "--timeout", "300s", "-p", "[::1]:8081:80", "--", "sh", "-c",
                     "httpd -p 80 -h /etc; echo serving; sleep 1000", prefix=(*ALONE, "python3", "-c", inside), stdin=resolv)
    check(ended.status == 0 and ended.out == "answered 404\n", "not what was expected", ended.out, ended.err)


# What passt would be: the first two times it sends what is no frame, once after frames full of nonsense. The
# very first answers before, as passt does when it is at work.
GARBAGE = """#!/bin/sh
count=$(cat "$0.count" 2>/dev/null || echo 0)
echo $((count + 1)) > "$0.count"
case $count in
  0) dd bs=46 count=1 status=none <&3 >&3; sleep 4; head -c 300000 /dev/urandom >&3 ;;
  1) i=0; while [ $i -lt 200 ]; do printf '\\000\\000\\000\\144'; head -c 100 /dev/urandom; i=$((i + 1)); done >&3
     printf '\\377\\377\\377\\377' >&3 ;;
  *) exec dd bs=256k status=none <&3 >&3 ;;
esac
exec sleep 1000
"""


@test
@exhaustive
def net_user_survives_garbage():
    """The stream breaks off, the guest loses its link, and gets it back with the next passt."""
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/passt", "w") as peer:
            peer.write(GARBAGE)
        os.chmod(folder + "/passt", 0o755)
        ended = guest(TINY, "--cmdline", "quiet", "--net", "user", "--log-level", "debug", command=(
            "cd /sys/class/net/eth0; ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0; "
            # Up at first, then twice down and up again.
            "i=0; until [ $(cat carrier_up_count) -ge 3 ] || [ $i -gt 1500 ]; do sleep 0.1; i=$((i + 1)); done; "
            "echo up $(cat carrier_up_count); was=$(cat statistics/rx_packets); "
            "i=0; until [ $(cat statistics/rx_packets) -gt $((was + 2)) ] || [ $i -gt 100 ]; do "
            "ping -c 1 -W 1 10.9.0.9 >/dev/null; i=$((i + 1)); done; echo back $((i <= 100)); "
            "dmesg -r | grep -E '^<[0-4]>.*virtio' || true"),
            env={**os.environ, "PATH": folder + ":" + os.environ["PATH"]}).expect(0)
    check(marked(ended).split() == ["up", "3", "back", "1"], "not what was expected", ended.out, ended.err)
    check(ended.err.count("without network until it has been started again") == 2, "not two ends of passt", ended.err)
    check("a frame of 4294967295 bytes" in ended.err, "the second garbage was not seen", ended.err)


# By the name of the machine, as vmm/spec/network.cpp makes it.
def address_of(name):
    value = 0xcbf29ce484222325
    for byte in f"{name}/0".encode():
        value = (value ^ byte) * 0x100000001b3 % 2**64
    bytes_ = list(value.to_bytes(8, "little")[:6])
    bytes_[0] = bytes_[0] & 0xfc | 2
    return ":".join(f"{byte:02x}" for byte in bytes_)
