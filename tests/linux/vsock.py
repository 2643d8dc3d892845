"""Sockets between host and guest. One guest serves all of it: see vsock_guest.c for what it does at which port."""
import atexit
import functools
import shutil
import socket
import threading
from guests import *  # noqa: F403

ECHO, SINK, SOURCE, STALL, CONTROL = range(1000, 1005)
MIB = 1 << 20
# How much is sent each way where it must arrive exactly.
AMOUNT = int(os.environ.get("SNUG_TEST_VSOCK_MIB", "16")) * MIB
EPIPE, ECONNRESET, ETIMEDOUT = 32, 104, 110


@functools.cache
def pattern():
    """What the byte at each place of a stream is; it begins anew after 16 MiB."""
    plus = [bytes((byte + more) & 255 for byte in range(256)) for more in range(256)]
    page = bytes(at * 31 & 255 for at in range(256))
    block = b"".join(page.translate(plus[middle * 7 & 255]) for middle in range(256))
    return b"".join(block.translate(plus[high]) for high in range(256))


def pattern_of(size):
    return (pattern() * (size // len(pattern()) + 1))[:size]


class Guest:
    """A running guest with the services of vsock_guest.c."""

    def __init__(self, *flags, script="vsock-guest", where="vm.sock"):
        self.folder = tempfile.mkdtemp()
        atexit.register(self.end)
        self.socket = f"{self.folder}/{where}"
        built = subprocess.run(["gcc", "-static", "-O2", "-pthread", "-o", self.folder + "/vsock-guest",
                                os.path.dirname(__file__) + "/vsock_guest.c"], capture_output=True, text=True)
        check(built.returncode == 0, "vsock_guest.c", built.stderr)
        more = small_initrd(self.folder, {"bin/vsock-guest": self.folder + "/vsock-guest"})
        self.process = subprocess.Popen(
            [SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--initrd", more, "--cmdline", "quiet",
             *on_console(script), "--vsock", "auto" if "/" in where else self.socket, *flags], env={**os.environ, "XDG_RUNTIME_DIR": self.folder},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=open(self.folder + "/errors", "wb"))
        self.seen = b""
        self.wait_ready()

    def wait_ready(self):
        deadline = time.monotonic() + BOUND
        while b"vsock ready" not in self.seen:
            check(time.monotonic() < deadline and self.process.poll() is None, "the guest does not serve", self.seen,
                  self.errors())
            if select_read(self.process.stdout, 1)[0]:
                self.seen += os.read(self.process.stdout.fileno(), 4096)
        self.seen = self.seen.split(b"vsock ready", 1)[1]

    def errors(self):
        with open(self.folder + "/errors", "rb") as file:
            return file.read()

    def end(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def dial(self, port):
        """A stream to a port of the guest; None when it is refused."""
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(BOUND)
        stream.connect(self.socket)
        stream.sendall(b"CONNECT %d\n" % port)
        answer = b""
        while not answer.endswith(b"\n"):
            byte = stream.recv(1)
            if not byte:
                return None
            answer += byte
        check(re.fullmatch(rb"OK [0-9]+\n", answer), "not an OK", answer)
        return stream

    def ask(self, command):
        """An answer of the control port: numbers."""
        with self.dial(CONTROL) as stream:
            stream.sendall(command.encode() + b"\n")
            return [int(word) for word in read_line(stream).split()]

    def command(self, text):
        """Begins a shell command in the guest."""
        with self.dial(CONTROL) as stream:
            stream.sendall(b"run " + text.encode() + b"\n")
            check(read_line(stream) == b"0\n", "the command did not begin")

    def listen(self, port):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{self.socket}_{port}")
        listener.listen(128)
        listener.settimeout(BOUND)
        return listener


def read_line(stream):
    line = b""
    while not line.endswith(b"\n"):
        byte = stream.recv(1)
        check(byte, "the stream ended in the middle of a line", line)
        line += byte
    return line


def read_all(stream):
    data = bytearray()
    while chunk := stream.recv(1 << 20):
        data += chunk
    return bytes(data)


@functools.cache
def shared():
    return Guest()


def echo_all(listener, count):
    """Accepts `count` streams and gives back what comes, until its end."""
    def one(stream):
        with stream:
            while data := stream.recv(65536):
                stream.sendall(data)
    threads = []
    for _ in range(count):
        threads.append(threading.Thread(target=one, args=(listener.accept()[0],)))
        threads[-1].start()
    for thread in threads:
        thread.join(BOUND)


@test
def vsock_short_connections_leave_nothing():
    vm = shared()
    for _ in range(20):
        with vm.dial(ECHO) as stream:
            stream.sendall(b"warm")
            check(stream.recv(4) == b"warm", "no echo")
    half = 500 if EVERYTHING else 200
    memory, before = anonymous_kib(vm.process.pid), descriptors(vm.process.pid)
    for number in range(half):
        with vm.dial(ECHO) as stream:
            text = b"%d" % number
            stream.sendall(text)
            check(stream.recv(100) == text, "no echo")
    with vm.listen(700) as listener:
        server = threading.Thread(target=echo_all, args=(listener, half))
        server.start()
        for _ in range(half // 100):
            check(vm.ask("connect 700 100 10") == [100, 0], "100 connections of the guest at once")
        server.join(BOUND)
    grown = anonymous_kib(vm.process.pid) - memory
    check(grown < 1024, f"{2 * half} connections cost {grown} KiB")
    after = descriptors(vm.process.pid)
    check(after is None or after - before < 32, f"{after} open descriptors, and {before} before")


@test
def vsock_hundred_streams_at_once():
    vm = shared()
    streams = [vm.dial(ECHO) for _ in range(100)]
    check(None not in streams, "a connection was refused")
    data = [pattern()[i * 100:i * 100 + 20000] for i in range(len(streams))]
    for stream, part in zip(streams, data):
        stream.sendall(part)
        stream.shutdown(socket.SHUT_WR)
    for stream, part in zip(streams, data):
        check(read_all(stream) == part, "what came back is not what was sent")
        stream.close()


@test
def vsock_amounts_are_exact():
    vm = shared()
    memory = anonymous_kib(vm.process.pid)
    with vm.dial(SINK) as stream:
        stream.sendall(pattern_of(AMOUNT))
        stream.shutdown(socket.SHUT_WR)
        answer = read_all(stream)
    check(answer == b"%d 0\n" % AMOUNT, f"the guest got something else than {AMOUNT} bytes", answer)
    with vm.dial(SOURCE) as stream:
        stream.sendall(b"%d\n" % AMOUNT)
        check(read_all(stream) == pattern_of(AMOUNT), "the host got something else")
    grown = anonymous_kib(vm.process.pid) - memory
    check(grown < 1024, f"the monitor grew by {grown} KiB")


@test
def vsock_each_side_closes_its_half():
    vm = shared()
    with vm.listen(701) as listener:
        asked = threading.Thread(target=lambda: answer.extend(vm.ask("end 701 100000")))
        answer = []
        asked.start()
        with listener.accept()[0] as stream:
            check(read_all(stream) == pattern_of(100000), "what the guest sent before its end")
            stream.sendall(pattern_of(200000))
            stream.shutdown(socket.SHUT_WR)
            asked.join(BOUND)
    check(answer == [200000, 0], "what the host sent after the guest's end", answer)


@test
def vsock_stalled_readers_hold_up_nobody():
    vm = shared()
    memory = anonymous_kib(vm.process.pid)
    # A guest that reads nothing: the host's writer stops, after what both kernels and the guest's credit take.
    stalled = vm.dial(STALL)
    stalled.setblocking(False)
    sent = 0
    waits = 0
    while waits < 20:
        try:
            sent += stalled.send(bytes(65536))
            waits = 0
        except BlockingIOError:
            waits += 1
            time.sleep(0.1)
        check(sent < 16 * MIB, "a guest that reads nothing takes everything")
    # A host that reads nothing: the guest's writer stops.
    with vm.listen(702) as listener:
        filled = []
        asking = threading.Thread(target=lambda: filled.extend(vm.ask("fill 702")))
        asking.start()
        stream = listener.accept()[0]
        asking.join(BOUND)
    check(filled and 0 < filled[0] < 4 * MIB, "a host that reads nothing is sent to without end", filled)
    grown = anonymous_kib(vm.process.pid) - memory
    check(grown < 1024, f"stalled readers cost {grown} KiB")
    with vm.dial(ECHO) as other:
        other.sendall(b"hello")
        check(other.recv(5) == b"hello", "stalled streams hold up others")
    # What was held arrives when the host reads on.
    stream.settimeout(BOUND)
    got = 0
    while got < filled[0]:
        part = stream.recv(65536)
        check(part == pattern_of(got + len(part))[got:], "what was held is not what was sent")
        got += len(part)
    stream.close()
    stalled.close()


@test
def vsock_refusals_and_ends_are_told():
    vm = shared()
    check(vm.dial(999) is None, "nobody listens in the guest, yet there is an OK")
    check(vm.ask("connect 703 1 1") == [0, ECONNRESET], "nobody listens on the host")
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(BOUND)
        stream.connect(vm.socket)
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
        try:
            check(stream.recv(10) == b"", "an answer to what is not a CONNECT")
        except ConnectionResetError:
            pass
    # The host's end is closed while the guest writes.
    with vm.listen(704) as listener:
        answer = []
        asking = threading.Thread(target=lambda: answer.extend(vm.ask("flood 704")))
        asking.start()
        stream = listener.accept()[0]
        stream.recv(100000)
        stream.close()
        asking.join(BOUND)
    check(answer and answer[1] in (EPIPE, ECONNRESET), "the guest's writer was not told", answer)
    # A process of the host is killed, with its stream.
    with vm.listen(705) as listener:
        answer = []
        asking = threading.Thread(target=lambda: answer.extend(vm.ask("flood 705")))
        asking.start()
        stream = listener.accept()[0]
        child = os.fork()
        if child == 0:
            while True:
                stream.recv(4096)
        stream.close()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        asking.join(BOUND)
    check(answer and answer[1] in (EPIPE, ECONNRESET), "the guest's writer was not told", answer)
    # A process of the guest is killed while it writes.
    with vm.listen(706) as listener:
        answer = []
        asking = threading.Thread(target=lambda: answer.extend(vm.ask("die 706")))
        asking.start()
        with listener.accept()[0] as stream:
            stream.settimeout(BOUND)
            data = read_all(stream)
            check(data == pattern_of(len(data)), "what came before its end is wrong")
            try:
                while True:
                    stream.sendall(bytes(4096))
                    time.sleep(0.01)
            except (BrokenPipeError, ConnectionResetError):
                pass
        asking.join(BOUND)
    check(answer == [0], "the guest's killer did not come back", answer)


@test
def vsock_outlives_a_guest_that_restarts():
    vm = Guest("--on-reboot", "restart", "--name", "box", script="vsock-guest; sync; reboot -f",
               where="snug/box/vsock.sock")
    try:
        stream = vm.dial(ECHO)
        stream.sendall(b"first")
        check(stream.recv(5) == b"first", "no echo")
        with vm.dial(CONTROL) as control:
            control.sendall(b"quit\n")
            check(stream.recv(1) == b"", "the stream outlives its guest")
        vm.wait_ready()
        with vm.dial(ECHO) as stream:
            stream.sendall(b"second")
            check(stream.recv(6) == b"second", "no echo")
        check(os.stat(vm.socket).st_mode & 0o777 == 0o600, "the socket's mode", oct(os.stat(vm.socket).st_mode))
        vm.process.terminate()
        vm.process.wait(BOUND)
        check(not os.listdir(vm.folder + "/snug"), "the machine's folder is left behind", os.listdir(vm.folder + "/snug"))
        left = processes_in(vm.folder)
        check(not left, "a process is left behind", left)
    finally:
        vm.end()


@test
def vsock_driver_unbound_and_bound_again():
    vm = shared()
    stream = vm.dial(ECHO)
    vm.command("cd /sys/bus/virtio/drivers/vmw_vsock_virtio_transport; device=$(echo virtio*); sleep 1; "
               "echo $device > unbind; echo unbound; sleep 1; echo $device > bind; echo bound")
    check(read_all(stream) == b"", "the stream outlives its device")
    stream.close()
    deadline = time.monotonic() + BOUND
    while (stream := vm.dial(ECHO)) is None:
        check(time.monotonic() < deadline, "the device does not come back", vm.errors())
        time.sleep(0.1)
    with stream:
        stream.sendall(b"again")
        check(stream.recv(5) == b"again", "no echo")
