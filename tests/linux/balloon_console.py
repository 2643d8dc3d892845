"""Memory given back to the host; virtio consoles and channels."""
from guests import *  # noqa: F403
import contextlib
import json
import socket


class Running:
    """A guest whose command prints lines that the test waits for; words typed on its console reach the command."""

    def __init__(self, command, *flags):
        self.process = subprocess.Popen(
            [SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--timeout", f"{BOUND - 30:.0f}s", "--cmdline", "quiet", *flags,
             *on_console(command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.seen = b""

    def wait_for(self, text):
        deadline = time.monotonic() + BOUND
        while text not in self.seen:
            check(time.monotonic() < deadline, f"{text!r} did not come", self.seen)
            if not select_read(self.process.stdout, 1)[0]:
                check(self.process.poll() is None, f"snug ended before {text!r} came", self.seen)
                continue
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                check(False, f"the guest ended before {text!r} came", self.seen, self.process.stderr.read())
            self.seen += chunk

    def type(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def end(self, status=0):
        out, err = self.process.communicate(timeout=BOUND)
        self.seen += out
        check(self.process.returncode == status, f"status {self.process.returncode}", self.seen, err)
        return err.decode("utf-8", "replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def eventually(condition, what, bound=BOUND):
    deadline = time.monotonic() + bound
    while not condition():
        check(time.monotonic() < deadline, what)
        time.sleep(0.1)


# Waits in the guest for the channel of a name, then sets $port.
FIND_PORT = ("port=; until [ -n \"$port\" ]; do for p in /sys/class/virtio-ports/*; do "
             "[ \"$(cat $p/name 2>/dev/null)\" = NAME ] && port=/dev/${p##*/}; done; done; ")


def usage_of(name):
    return json.loads(snug("stats", "--json", name).expect(0).out)


def available_mib(name):
    """What `snug stats` says of the guest's memory."""
    usage = usage_of(name)
    check(0 < usage["guest_free_bytes"] <= usage["guest_total_bytes"] <= 256 << 20, "odd figures", str(usage))
    return usage["guest_available_bytes"] / 1048576


@test
def balloon_reports_free_pages():
    """What the guest frees falls out of the monitor's resident memory."""
    command = ("echo started; read line; dd if=/dev/zero of=/tmp/big bs=1M count=128 2>/dev/null; echo filled; "
               "read line; rm /tmp/big; echo freed; read line; dmesg -r | grep -E '^<[0-4]>.*(balloon|virtio)' || echo clean")
    with Running(f"mount -t tmpfs -o size=160m none /tmp; {command}", "-m", "256M", "--name", "reports") as guest:
        guest.wait_for(b"started")
        before = guest_ram_kib(guest.process.pid)
        available = available_mib("reports")
        guest.type("")
        guest.wait_for(b"filled")
        full = guest_ram_kib(guest.process.pid)
        # Present values, however little time has passed since the guest was asked before.
        check(available - available_mib("reports") > 100, f"{available} MiB available at first, and then as much")
        check(full - before > 100 << 10, f"the guest's memory did not grow: {before} to {full} KiB")
        guest.type("")
        guest.wait_for(b"freed")
        # The guest's kernel sets 64 MiB of free pages apart while it reports them.
        eventually(lambda: abs(available - available_mib("reports")) < 50, f"{available} MiB available at first, and now others")
        eventually(lambda: full - guest_ram_kib(guest.process.pid) > 100 << 10, "freed pages did not come back")
        print(f"    guest RAM: {before} KiB, filled {full} KiB, freed {guest_ram_kib(guest.process.pid)} KiB")
        guest.type("")
        guest.end()
        check(b"clean" in guest.seen, "warnings", guest.seen)


@test
def balloon_inflates_and_gives_way():
    """A target is reached; a guest that needs the memory gets it back; with a cached kernel as without."""
    command = ("until [ $(sed -n 's/^MemFree: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo) -lt 90000 ]; do sleep 0.1; done; echo small; "
               "read line; mount -t tmpfs -o size=200m none /tmp; "
               "dd if=/dev/zero of=/tmp/big bs=1M count=120 2>/dev/null; ls -l /tmp/big | tr -s ' ' | cut -d' ' -f5; "
               "dmesg | grep -ci 'out of memory'; echo done")
    with Running(command, "-m", "256M", "--balloon", "160M", "--log-level", "debug") as guest:
        guest.wait_for(b"small")
        check(guest_ram_kib(guest.process.pid) < 110 << 10, f"guest RAM: {guest_ram_kib(guest.process.pid)} KiB")
        guest.type("")
        guest.wait_for(b"done")
        err = guest.end()
        words = guest.seen.decode().split()
        check(str(120 << 20) in words and words[words.index(str(120 << 20)) + 1] == "0", "the guest ran out of memory", guest.seen)
        sizes = [int(size) for size in re.findall(r"balloon: (\d+) KiB", err)]
        check(max(sizes) > 140 << 10 and sizes[-1] < max(sizes), "the balloon was not blown up and let out", err)
        check(re.search(r"balloon: the guest has \d+ KiB free of \d+", err), "no statistics", err)


@test
def console_on_a_pty():
    """hvc0 on a pseudo terminal: both directions and the size of its window."""
    import fcntl
    import struct
    import termios
    command = ("until [ -e /dev/hvc0 ]; do :; done; exec < /dev/hvc0 > /dev/hvc0; stty raw -echo; echo opened; "
               "until [ \"$(stty size)\" = '41 123' ]; do sleep 0.1; done; echo sized; head -c 6 | tr a-z A-Z; "
               "until [ \"$(stty size)\" = '25 80' ]; do sleep 0.1; done; echo resized; head -c 1 > /dev/null")
    with Running(command, "--virtio-console", "pty") as guest:
        line = guest.process.stderr.readline().decode()
        found = re.search(r"console hvc0 is (/dev/pts/\d+)", line)
        check(found, "where hvc0 is was not said", line)
        slave = os.open(found.group(1), os.O_RDWR | os.O_NOCTTY)
        seen = b""

        def size(rows, columns):
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

        def heard(text):
            nonlocal seen
            if select_read(slave, 1)[0]:
                seen += os.read(slave, 4096)
            return text in seen

        size(41, 123)
        eventually(lambda: heard(b"sized"), "the first size did not reach the guest")
        os.write(slave, b"hello\n")
        eventually(lambda: heard(b"HELLO"), "hvc0 does not answer")
        size(25, 80)
        eventually(lambda: heard(b"resized"), "the second size did not reach the guest")
        os.write(slave, b"x")
        guest.end()
        os.close(slave)


@test
def console_on_a_file_and_one_without_a_client():
    with tempfile.TemporaryDirectory() as folder:
        command = ("until [ -e /dev/hvc1 ]; do :; done; seq 5000 > /dev/hvc0; "
                   "seq 5000 > /dev/hvc1; echo both written")
        text = marked(guest(TINY, "--cmdline", "quiet", "--virtio-console", f"file:{folder}/log", "--virtio-console",
                            f"socket:{folder}/sock", command=command).expect(0))
        check("both written" in text, "the guest did not write on", text)
        with open(folder + "/log") as log:
            lines = log.read().replace("\r", "").split()
        check(lines == [str(n) for n in range(1, 5001)], f"{len(lines)} lines in the file", lines[:5], lines[-5:])
        check(not os.path.exists(folder + "/sock"), "the socket was left behind")


def connect(path):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(BOUND)
    client.connect(path)
    return client


@test
def channel_carries_bytes_and_comings_and_goings():
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = folder + "/agent.sock"
        data = os.urandom(2 << 20)
        # The reader sees the end when the client goes; the writer's guest is told when one comes.
        command = (FIND_PORT.replace("NAME", "org.example.agent") +
                   "cat $port | md5sum; seq 100000 > $port; echo written; "
                   # A reader while nobody is connected is at the end at once.
                   "line=; until [ -n \"$line\" ]; do line=$(head -n 1 $port); done; echo heard $line; read line")
        guest = stack.enter_context(Running(command, "--channel", f"org.example.other,socket={folder}/other.sock",
                                            "--channel", f"org.example.agent,socket={path}"))
        eventually(lambda: os.path.exists(path), "no socket")
        with connect(path) as client:
            client.sendall(data)
        guest.wait_for(hashlib.md5(data).hexdigest().encode())
        # A client that does not read holds the guest's writer, and the monitor's memory stays as it is.
        with connect(path) as client:
            eventually(lambda: client.recv(1, socket.MSG_PEEK), "nothing comes")
            time.sleep(2)
            check(b"written" not in guest.seen, "the guest's words were not held back", guest.seen)
            monitor = monitor_kib(guest.process.pid)
            check(monitor < 16 << 10, f"the monitor has grown to {monitor} KiB")
            expected = "".join(f"{n}\n" for n in range(1, 100001)).encode()
            read = b""
            while len(read) < len(expected):
                chunk = client.recv(65536)
                check(chunk, "the channel ended early", len(read))
                read += chunk
            check(read == expected, "what came is not what was written")
        guest.wait_for(b"written")
        with connect(path) as client:
            # What arrives while the guest closes the channel is lost, as it is with a pipe.
            deadline = time.monotonic() + BOUND
            while b"heard third client" not in guest.seen:
                check(time.monotonic() < deadline, "the guest does not hear the third client", guest.seen)
                client.sendall(b"third client\n")
                if select_read(guest.process.stdout, 0.5)[0]:
                    guest.seen += os.read(guest.process.stdout.fileno(), 65536)
        guest.type("")
        guest.end()
        check(not os.path.exists(path), "the socket was left behind")


@test
def small_drivers_rebound_under_load():
    """The drivers of a console, a channel and the balloon leave while there is work, and all works when they are back."""
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/agent.sock"
        more = small_initrd(folder, {"etc/rings.sh": os.path.dirname(__file__) + "/rings.sh"})
        command = (". /etc/rings.sh; for n in 1 2 3; do rebind_small_under_load $n; answer org.example.agent \"line $n\"; done; "
                   "dmesg -r | grep -E '^<[0-4]>.*(virtio|hvc|balloon)' || echo clean")
        with Running(command, "--initrd", more, "-m", "256M", "--balloon", "64M", "--name", "rebound",
                     "--virtio-console", f"file:{folder}/log", "--channel", f"org.example.agent,socket={path}") as guest:
            for n in (1, 2, 3):
                guest.wait_for(b"round %d" % n)
                eventually(lambda: usage_of("rebound")["balloon_bytes"] == 64 << 20, "the balloon is not blown up again")
                with connect(path) as client:
                    heard = b""
                    deadline = time.monotonic() + BOUND
                    while b"heard line %d\n" % n not in heard:
                        check(time.monotonic() < deadline, "the channel does not answer", heard, guest.seen)
                        # What arrives while the guest closes the channel is lost.
                        client.sendall(b"line %d\n" % n)
                        if select_read(client, 0.5)[0]:
                            heard += client.recv(4096)
            err = guest.end()
            check(b"clean" in guest.seen, "warnings", guest.seen)
            check("broke the rules" not in err, "snug complains of Linux's driver", err)
        with open(folder + "/log") as log:
            lines = log.read().replace("\r", "").split("\n")
        check([f"round {n}" in lines for n in (1, 2, 3)] == [True] * 3, "the console is not back after each round", lines[-5:])
