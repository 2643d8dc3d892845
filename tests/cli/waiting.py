"""Commands for a guest that does not answer yet: how long they wait, for what, and what they say. The machine is a folder and
a control interface of ours, its agent the real one on this machine: no KVM is needed."""
import contextlib
import fcntl
import json
import socket
import threading

from harness import *  # noqa: F403
from streams import agent_machine


class Machine:
    """As others see one: alive, and asked by HTTP. `agent`, `state`: what it says. end() ends it."""

    def __init__(self, runtime, name="web"):
        self.path = f"{runtime}/snug/{name}"
        os.makedirs(self.path, mode=0o700)
        self.env = {**os.environ, "XDG_RUNTIME_DIR": runtime}
        self.agent, self.state, self.asked = "awaited", "running", 0
        self.ended = threading.Event()
        self.lock = open(self.path + "/lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        open(self.path + "/keep", "w").close()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path + "/control.sock")
        self.listener.listen(64)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.answer, args=(self.listener.accept()[0],), daemon=True).start()

    def answer(self, client):
        with client, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(4096)
            if b"/v1/wait" in request:
                self.ended.wait()
                body = json.dumps({"exit_status": self.status, "message": self.message})
            else:
                self.asked += 1
                body = json.dumps({"name": "web", "state": self.state, "agent": self.agent, "vsock": self.path + "/vsock.sock"})
            client.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    def wait_asked(self, times):
        """Until somebody has looked so often from now on."""
        before, deadline = self.asked, time.monotonic() + BOUND
        while self.asked < before + times:
            check(time.monotonic() < deadline, "nobody looks")
            time.sleep(0.01)

    def end(self, status, message):
        self.status, self.message = status, message
        with open(self.path + "/exit.json", "w") as file:
            json.dump({"exit_status": status, "message": message}, file)
        self.ended.set()
        time.sleep(0.05)
        self.lock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.lock.close()


@contextlib.contextmanager
def machine():
    """One with an agent that answers when the machine says that it is ready."""
    with tempfile.TemporaryDirectory() as runtime, Machine(runtime) as vm:
        with agent_machine(vm.path, takes=lambda: vm.agent == "ready"):
            yield vm


def started(vm, *words):
    return subprocess.Popen([SNUG, *words], env=vm.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


@test
def waiting_until_the_guest_has_booted():
    """exec, shell and cp: they say what they wait for, and then go on."""
    with machine() as vm, tempfile.TemporaryDirectory() as folder:
        with open(folder + "/file", "w") as file:
            file.write("content")
        commands = [started(vm, "exec", "web", "--", "echo", "done"), started(vm, "cp", folder + "/file", f"web:{folder}/copy")]
        for process in commands:
            said = process.stderr.readline()
            check(said == b"snug: waiting for the agent in the guest of web, which boots\n", "not what it waits for", said)
        vm.agent = "ready"
        for process in commands:
            err = process.communicate(timeout=BOUND)[1]
            check(process.returncode == 0 and err == b"", f"status {process.returncode}", err)
        check(os.path.exists(folder + "/copy"), "nothing was copied")


@test
def waiting_by_the_path_of_a_socket():
    """As by the machine's name."""
    with machine() as vm:
        process = started(vm, "exec", vm.path + "/vsock.sock", "--", "echo", "done")
        said = process.stderr.readline()
        check(b"waiting for the agent" in said and b"which boots" in said, "not what it waits for", said)
        vm.agent = "ready"
        out, err = process.communicate(timeout=BOUND)
        check(process.returncode == 0 and out == b"done\n", f"status {process.returncode}", out, err)


@test
def waiting_no_longer_than_it_may():
    with machine() as vm:
        err = snug("exec", "--wait", "0", "web", "--", "true", env=vm.env).expect(125).err
        check("nobody answers" in err and "--wait" in err, "not what to do", err)
        snug("cp", "--wait", "300ms", "web:/etc/hostname", "/nowhere/to/be", env=vm.env).expect(125)
        # It has had its time, and is asked all the same.
        vm.agent = "silent"
        err = snug("exec", "--wait", "300ms", "web", "--", "true", env=vm.env).expect(125).err
        check("nobody answers" in err and "snug-agent" in err, "not what is missing", err)
        err = snug("exec", "--wait", "soon", "web", "--", "true", env=vm.env).expect(125).err
        check("--wait: " in err, "the flag is not named", err)
        vm.state = "paused"
        err = snug("exec", "web", "--", "true", env=vm.env).expect(125).err
        check("snug resume web" in err, "not what to do", err)


@test
def waiting_for_one_that_reboots():
    """It takes no connections while it goes down, then it boots."""
    with machine() as vm:
        vm.agent = "going down"
        process = started(vm, "exec", "web", "--", "echo", "done")
        vm.wait_asked(3)
        vm.agent = "awaited"
        vm.wait_asked(3)
        vm.agent = "ready"
        out, err = process.communicate(timeout=BOUND)
        check(process.returncode == 0 and out == b"done\n", f"status {process.returncode}", out, err)


@test
def waiting_for_one_that_ends():
    with machine() as vm:
        process = started(vm, "exec", "web", "--", "true")
        vm.wait_asked(2)
        vm.end(123, "the guest's kernel panicked")
        out, err = process.communicate(timeout=BOUND)
        check(process.returncode == 125 and b"web has ended (status 123): the guest's kernel panicked" in err,
              f"status {process.returncode}", err)
