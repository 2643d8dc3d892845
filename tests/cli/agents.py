"""Hostile agents: a guest's end of exec and cp that speaks garbage, floods, half-closes. The command ends with 125 (or the
status it was given) and one clear message, writes nothing where it should not, and holds no more than its bounds.

The machine is a unix socket of ours: no KVM is needed. On the ASan build, when there is one."""
import contextlib
import random
import socket
import struct
import threading

from harness import *  # noqa: F403

PROGRAM = os.environ.get("SNUG_BIN_ASAN") or SNUG
HELLO, ERROR, DONE, STARTED, DATA, END, CREDIT, EXIT = 1, 2, 3, 19, 20, 21, 22, 26
ENTRY, FILE_END, HOLE, LEAVE, PROBLEM = 34, 35, 36, 37, 38
FILE, FOLDER, LINK, HARD_LINK = 1, 2, 3, 5


def frame(kind, payload=b"", channel=0):
    return struct.pack("<IBBH", len(payload), kind, channel, 0) + payload


def entry(kind, name, mode=0o755, target=b""):
    return frame(ENTRY, struct.pack("<BIIIqII", kind, mode, 0, 0, 0, 0, len(name)) + name + struct.pack("<I", len(target)) + target)


def hole(length):
    return frame(HOLE, struct.pack("<Q", length))


GREETING = frame(HELLO, b"SNUG" + struct.pack("<HH", 2, 2))
RUNNING = GREETING + frame(STARTED, struct.pack("<I", 7))


@contextlib.contextmanager
def fake_machine(says):
    """The path of a vsock socket; whoever has dialled is spoken to by `says(stream)`, and hung up on behind it."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(folder + "/vsock.sock")
        listener.listen()

        def serve():
            stream, _ = listener.accept()
            with stream:
                line = b""
                while not line.endswith(b"\n"):
                    line += stream.recv(1)
                stream.sendall(b"OK 1073741824\n")
                with contextlib.suppress(OSError):
                    says(stream)
                    stream.shutdown(socket.SHUT_WR)
                with contextlib.suppress(OSError):
                    while stream.recv(65536):
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield folder + "/vsock.sock"
        thread.join(BOUND)


def ends(says, *words, status=125):
    """What snug prints against such an agent. In `words`, SOCKET stands for the machine."""
    with fake_machine(says if callable(says) else lambda stream: stream.sendall(says)) as path:
        process = subprocess.run([PROGRAM, *[word.replace("SOCKET", path) for word in words]], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=BOUND)
    ended = Ended(process.returncode, process.stdout, process.stderr).expect(status)
    check("Sanitizer" not in ended.err and "runtime error" not in ended.err, "a sanitizer complains", ended.err)
    lines = ended.err.splitlines()
    check(1 <= len(lines) <= 2 and lines[0].startswith("snug: ") and len(ended.err) < 2000, "not one clear message", ended.err)
    check(re.fullmatch(r"[\x20-\x7e\n]*", ended.err), "the guest's bytes reach the terminal", ended.err)
    return ended


EXEC = ["exec", "SOCKET", "--", "true"]


@test
def agents_that_speak_garbage():
    pick = random.Random(5)
    for case in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100, GREETING, GREETING[:11], RUNNING, RUNNING[:-1],
                 RUNNING + frame(DATA, b"x" * 100, 1)[:50], frame(EXIT, b"\0\0"), GREETING + frame(EXIT, b"\0\0"),
                 RUNNING + frame(EXIT, b"\0"), RUNNING + frame(EXIT, b"\2\0"), RUNNING + frame(DATA, b"x", 0),
                 RUNNING + frame(DATA, b"x", 3), RUNNING + frame(CREDIT, struct.pack("<I", 1)), RUNNING + GREETING,
                 RUNNING + frame(200), *(RUNNING[:len(RUNNING) * (n % 2)] + pick.randbytes(3000) for n in range(20))):
        ends(case, *EXEC)
    check("version 9" in ends(frame(HELLO, b"SNUG" + struct.pack("<HH", 9, 9)), *EXEC).err, "the message does not say so")
    refusal = ends(GREETING + frame(ERROR, b"\x7f" + b"\x1b[2Jno\r\n" + b"y" * 100_000), *EXEC, status=127)
    check("no" in refusal.err, "not its reason", refusal.err)


@test
def agents_that_flood():
    """More output than the credit, to a reader that stalls: the window is all that is held, then the session is over."""
    cut_off = threading.Event()

    def flood(stream):
        try:
            stream.sendall(RUNNING)
            while True:
                stream.sendall(frame(DATA, b"x" * 65536, 1))
        except OSError:
            cut_off.set()

    with fake_machine(flood) as path:
        process = subprocess.Popen([PROGRAM, "exec", path, "--", "true"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        check(cut_off.wait(BOUND), "the flood is taken for ever")
        out, err = process.communicate(timeout=BOUND)
    check(process.returncode == 125 and b"more than it may" in err, f"status {process.returncode}", err)
    check(len(out) <= 256 * 1024 + 65536, f"{len(out)} bytes were held")
    # Of what asks for no room there may be any amount: it ends with its sender, or with what cannot be.
    ends(lambda stream: stream.sendall(RUNNING + frame(END, b"", 1) * 100_000), *EXEC)
    ends(lambda stream: stream.sendall(RUNNING + frame(CREDIT, struct.pack("<I", 0xffffffff)) * 1000), *EXEC)
    ends(lambda stream: stream.sendall(frame(HELLO, b"SNUG" + struct.pack("<HH", 1, 1)) * 100_000), *EXEC)


@test
def agents_that_copy_badly():
    with tempfile.TemporaryDirectory() as folder:
        inside = folder + "/inside"
        os.mkdir(inside)
        with open(folder + "/mine", "w") as file:
            file.write("mine")
        root = entry(FOLDER, b"")
        for case in (b"", GREETING, b"nonsense nonsense nonsense", GREETING + entry(FILE, b"../evil"), GREETING + root,
                     GREETING + root + entry(FILE, b"../evil"), GREETING + root + entry(FILE, b"/evil"),
                     GREETING + root + entry(LINK, b"way", target=folder.encode()) + entry(FILE, b"way/evil"),
                     GREETING + entry(LINK, b"", target=folder.encode()), GREETING + entry(HARD_LINK, b"", target=b"a"),
                     GREETING + root + entry(HARD_LINK, b"a", target=b"../../mine"),
                     GREETING + root + frame(LEAVE) + entry(FILE, b"evil"), GREETING + frame(LEAVE),
                     GREETING + root + entry(FILE, b"file") + frame(DATA, b"x" * 65536, 3),
                     GREETING + root + entry(FILE, b"file") + frame(END, b"", 3),
                     GREETING + root + entry(FILE, b"file") + hole(0),
                     GREETING + root + frame(PROBLEM, b""), GREETING + root + frame(PROBLEM, b"\2what"),
                     GREETING + root + frame(EXIT, b"\0\0"), GREETING + entry(9, b""),
                     GREETING + root + entry(FOLDER, b"d") * 70_000,
                     frame(HELLO, b"SNUG" + struct.pack("<HH", 9, 9)), GREETING + frame(ERROR, b"\x7d\x1b[2Jno")):
            ends(case, "cp", "SOCKET:/there", inside + "/copy")
            check(sorted(os.listdir(folder)) == ["inside", "mine"] and read_text(folder + "/mine") == "mine",
                  "it wrote outside", os.listdir(folder))
            subprocess.run(["rm", "-rf", inside])
            os.mkdir(inside)
        with open(folder + "/large", "wb") as file:
            file.truncate(64 << 20)
        for case in (GREETING, b"nonsense nonsense", GREETING + frame(STARTED, bytes(4)),
                     GREETING + frame(ERROR, b"\x7dno room")):
            # Hung up on, or refused, in the middle.
            def breaks_off(stream, case=case):
                stream.sendall(case)
                stream.recv(100_000)
                stream.close()
            ends(breaks_off, "cp", folder + "/large", "SOCKET:/there")


@test
def agents_that_name_problems():
    """The rest arrives, each is named, status 1; and no more of them than anybody would read."""
    with tempfile.TemporaryDirectory() as folder:
        says = (GREETING + entry(FOLDER, b"") + frame(PROBLEM, b"\0/there/a: gone\x1b[2J") + entry(FILE, b"b")
                + frame(DATA, b"content", 3) + frame(FILE_END, b"\0") + frame(LEAVE) + frame(END, b"", 3))
        ended = copied(says, "SOCKET:/there", folder + "/copy", status=1)
        check("in the guest: /there/a: gone?[2J" in ended.err, "not the problem", ended.err)
        check(read_text(folder + "/copy/b") == "content", "the rest is missing")
        ended = copied(GREETING + frame(PROBLEM, b"\0x") * 50_000 + says[len(GREETING):], "SOCKET:/there", folder + "/copy", status=1)
        check("and 49001 more" in ended.err and len(ended.err) < 100_000, "not counted", ended.err[-200:])
        # What is left out is named, and no failure.
        says = says.replace(b"\0/there/a", b"\1/there/a")
        ended = copied(says, "SOCKET:/there", folder + "/copy", status=0)
        check("/there/a" in ended.err, "not named", ended.err)
        # Of an image made by an earlier snug.
        ended = copied(GREETING.replace(b"\2\0\2\0", b"\1\0\1\0"), "SOCKET:/there", folder + "/copy", status=125)
        check("older than this snug" in ended.err, "not the reason", ended.err)


def copied(says, *words, status):
    with fake_machine(lambda stream: stream.sendall(says)) as path:
        process = subprocess.run([PROGRAM, "cp", *[word.replace("SOCKET", path) for word in words]], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=BOUND)
    return Ended(process.returncode, process.stdout, process.stderr).expect(status)


@test
def agents_that_are_interrupted():
    """Ctrl-C in the middle of a copy: ended by the signal, with nothing left of the file. So by timeout(1), which signals
    twice."""
    for number, times in ((signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 2)):
        with tempfile.TemporaryDirectory() as folder:
            def says(stream):
                stream.sendall(GREETING)
                asked = b""
                while b"/there" not in asked:
                    asked += stream.recv(65536)
                stream.sendall(entry(FILE, b"") + frame(DATA, b"x" * 65536, 3))
                while stream.recv(65536):
                    pass

            with fake_machine(says) as path:
                process = subprocess.Popen([PROGRAM, "cp", path + ":/there", folder + "/copy"], stderr=subprocess.PIPE)
                deadline = time.monotonic() + BOUND
                while not any(len(name) > len(folder) + 1 for name in open_files(process.pid) if name.startswith(folder)):
                    check(time.monotonic() < deadline, "the file is not begun")
                    check(process.poll() is None, "it has ended", process.stderr.read() if process.poll() is not None else "")
                    time.sleep(0.01)
                # Stopped in between, so that both are there before it looks.
                process.send_signal(signal.SIGSTOP)
                for _ in range(times):
                    process.send_signal(number)
                process.send_signal(signal.SIGCONT)
                err = process.communicate(timeout=BOUND)[1]
            check(process.returncode == -number, f"status {process.returncode}", err)
            check(os.listdir(folder) == [], "something is left", os.listdir(folder))


def open_files(pid):
    names = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return names


def read_text(path):
    with open(path) as file:
        return file.read()
