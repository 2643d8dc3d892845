"""Streams, signals and the end of a command, as the commands' callers see them: against the real agent, which runs on this
machine and without a guest; and what commands print into pipes that do not block."""
import contextlib
import fcntl
import signal
import socket
import threading

from harness import *  # noqa: F403

AGENT = os.path.join(os.path.dirname(os.path.abspath(SNUG)), "../../guest-images/agent/snug-agent")


def pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def agent_machine(folder=None, takes=lambda: True):
    """The path of a vsock socket that leads to an agent, as a machine's does. Refuses while `takes` says so."""
    with contextlib.ExitStack() as stack, socket.socket(socket.AF_UNIX) as listener:
        folder = folder or stack.enter_context(tempfile.TemporaryDirectory())
        agent = subprocess.Popen([AGENT, "--unix", folder + "/agent.sock"])
        listener.bind(folder + "/vsock.sock")
        listener.listen()

        def serve(stream):
            with stream, socket.socket(socket.AF_UNIX) as inner:
                line = b""
                while not line.endswith(b"\n"):
                    byte = stream.recv(1)
                    if not byte:
                        return
                    line += byte
                if not takes():
                    return
                inner.connect(folder + "/agent.sock")
                stream.sendall(b"OK 1073741824\n")
                back = threading.Thread(target=pump, args=(inner, stream), daemon=True)
                back.start()
                pump(stream, inner)
                back.join(BOUND)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            deadline = time.monotonic() + BOUND
            while not os.path.exists(folder + "/agent.sock"):
                check(agent.poll() is None and time.monotonic() < deadline, "the agent does not start")
                time.sleep(0.01)
            yield folder + "/vsock.sock"
        finally:
            agent.kill()
            agent.wait()


@test
def streams_a_full_disk_is_no_success():
    with agent_machine() as vm:
        for script, status in (("echo out", 125), ("echo out; exit 3", 3)):
            with open("/dev/full", "w") as full:
                process = subprocess.run([SNUG, "exec", vm, "--", "sh", "-c", script], stdout=full, stderr=subprocess.PIPE,
                                         stdin=subprocess.DEVNULL, text=True, timeout=BOUND)
            check(process.returncode == status, f"status {process.returncode}, expected {status}", process.stderr)
            check("stdout: No space left on device" in process.stderr, "not the reason", process.stderr)
        # A stdout that is closed takes nothing either.
        for script, status in (("echo out", 125), ("true", 0)):
            done = subprocess.run(["sh", "-c", f"'{SNUG}' exec '{vm}' -- sh -c '{script}' >&-"], stdin=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True, timeout=BOUND)
            check(done.returncode == status, f"{script}: status {done.returncode}, expected {status}", done.stderr)
            check(status == 0 or "stdout: Bad file descriptor" in done.stderr, "not the reason", done.stderr)
        # A reader that has what it wanted is another matter.
        done = subprocess.run(["sh", "-c", f"'{SNUG}' exec '{vm}' -- sh -c 'yes; exit 0' | head -n 1"], capture_output=True,
                              text=True, timeout=BOUND)
        check(done.stdout == "y\n" and done.stderr == "", "a closed pipe is no error", done.stdout, done.stderr)


@test
def streams_a_closed_stdout_is_no_success():
    for stream, status in ((">&-", 125), ("<&-", 0), ("2>&-", 0)):
        done = subprocess.run(["sh", "-c", f"'{SNUG}' schema {stream}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=BOUND)
        check(done.returncode == status, f"{stream}: status {done.returncode}, expected {status}", done.stderr)
        check(status == 0 or "stdout: Bad file descriptor" in done.stderr, "not the reason", done.stderr)


@test
def streams_a_folder_is_no_input():
    with agent_machine() as vm, tempfile.TemporaryDirectory() as folder:
        stdin = os.open(folder, os.O_RDONLY)
        ended = snug("exec", "-i", vm, "--", "sh", "-c", f"cat; touch {folder}/ran", stdin=stdin).expect(125)
        os.close(stdin)
        check("stdin: Is a directory" in ended.err, "not the reason", ended.err)
        check(os.listdir(folder) == [], "the command ran all the same")


@test
def streams_one_wish_to_end_is_one():
    """timeout(1) signals its child, and then the group that the child is in."""
    with agent_machine() as vm:
        for _ in range(5):
            process = subprocess.Popen([SNUG, "exec", vm, "--", "sh", "-c", "trap 'sleep 0.5; echo cleaned; exit 9' TERM; "
                                        "echo ready; while :; do sleep 0.05; done"],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            check(process.stdout.readline() == b"ready\n", "it did not start")
            process.send_signal(signal.SIGTERM)
            time.sleep(0.002)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=BOUND)
            check(process.returncode == 9 and out == b"cleaned\n", f"status {process.returncode}", out, err)


@test
def streams_a_second_wish_to_end_ends_at_once():
    with agent_machine() as vm:
        process = subprocess.Popen([SNUG, "exec", vm, "--", "sh", "-c", "trap 'echo term' TERM; echo ready; "
                                    "while :; do sleep 0.05; done"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        check(process.stdout.readline() == b"ready\n", "it did not start")
        process.send_signal(signal.SIGTERM)
        check(process.stdout.readline() == b"term\n", "the command did not get it")
        deadline = time.monotonic() + BOUND
        while process.poll() is None:
            check(time.monotonic() < deadline, "it does not end")
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
        check(process.returncode == 143, f"status {process.returncode}")


def read_slowly(*words, env=None, ahead=0):
    """What snug prints into a pipe that does not block and has `ahead` bytes in it, to a reader that takes its time."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 65536)
    os.set_blocking(writing, False)
    os.write(writing, b"-" * ahead)
    process = subprocess.Popen([SNUG, *words], stdin=subprocess.DEVNULL, stdout=writing, stderr=subprocess.PIPE, env=env)
    # It has met a full pipe then.
    time.sleep(0.3)
    check(not os.get_blocking(writing), "the flags of others were changed")
    os.close(writing)
    seen = b""
    while data := os.read(reading, 20000):
        seen += data
        time.sleep(0.005)
    os.close(reading)
    err = process.communicate(timeout=BOUND)[1].decode()
    check(process.returncode == 0, f"status {process.returncode}", err)
    return seen[ahead:].decode()


@test
def streams_pipes_that_do_not_block():
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder}
        for i in range(200):
            os.makedirs(f"{folder}/snug/{i:03d}-{'x' * 50}", mode=0o700)
            for file in ("lock", "keep"):
                open(f"{folder}/snug/{i:03d}-{'x' * 50}/{file}", "w").close()
        log = "".join(f"line {i} of a long log\n" for i in range(30000))
        name = f"000-{'x' * 50}"
        with open(f"{folder}/snug/{name}/console.log", "w") as file:
            file.write(log)
        check(read_slowly("logs", name, env=env) == log, "the log is not whole")
        names = [f"{i:03d}-{'x' * 50}" for i in range(200)]
        check(read_slowly("ps", "-a", "-q", env=env, ahead=65000).split() == names, "the list is not whole")
        inspected = read_slowly("inspect", *names, env=env, ahead=65000)
        check(inspected.count('"state": "killed"') == 200, "not all of them")
    for words in (["schema"], ["run", "--help"], ["completion"]):
        check(read_slowly(*words, ahead=65000) == snug(*words).expect(0).out, f"{words} is not whole")
