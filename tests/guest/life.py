"""Machines in the background: found by name, attached to, paused, stopped; what is left of them, and when nothing is."""
import concurrent.futures
import json
import shutil
import socket
import threading

from micro import *  # noqa: F403


class Place:
    """An XDG_RUNTIME_DIR of a test's own, and snug in it."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.env = {**os.environ, "XDG_RUNTIME_DIR": self.folder.name}
        self.limits = []  # flags of machines that are to have some
        return self

    def __exit__(self, *_):
        for name in self.names():
            self.snug("rm", "--force", name)
        self.folder.cleanup()

    def snug(self, *arguments, **keywords):
        return snug(*arguments, env=self.env, **keywords)

    def start(self, guest, *flags):
        """The name of a machine that runs now."""
        return self.snug("run", "-d", "--kernel", f"{MICRO}/{guest}.elf", *flags).expect(0).out.strip()

    def names(self, *flags):
        return self.snug("ps", "-q", "-a", *flags).out.split()

    def left(self):
        """Folders and processes."""
        folders = os.listdir(self.folder.name + "/snug") if os.path.isdir(self.folder.name + "/snug") else []
        return folders + processes_in(self.folder.name)

    def row(self, name):
        rows = [json.loads(line) for line in self.snug("ps", "-a", "--json").expect(0).out.splitlines()]
        return next(row for row in rows if row["name"] == name)

    def wait_log(self, name, text):
        deadline = time.monotonic() + BOUND
        while text not in self.snug("logs", name).out:
            check(time.monotonic() < deadline, f"{text!r} does not come", self.snug("logs", name).out)
            time.sleep(0.05)


@test
def life_of_a_machine_in_the_background():
    with Place() as place:
        check(place.start("echo", "--name", "web") == "web", "the name is not printed")
        place.wait_log("web", "echo ready")
        check(place.row("web")["state"] == "running", "not running", place.row("web"))
        place.snug("pause", "web").expect(0)
        check(place.row("web")["state"] == "paused", "not paused", place.row("web"))
        again = place.snug("pause", "web").expect(125)
        check("web is paused" in again.err, "the message does not say why", again.err)
        place.snug("resume", "web").expect(0)
        info = json.loads(place.snug("inspect", "web").expect(0).out)
        check(info["state"] == "running" and "echo.elf" in info["spec"], "inspect says something else", info)
        check("web" in place.snug("stats").expect(0).out, "stats does not know it")
        # Its end by the guest itself: Ctrl-D.
        with tempfile.TemporaryFile() as typed:
            typed.write(b"hello\x04")
            typed.seek(0)
            attached = place.snug("attach", "web", stdin=typed).expect(0)
        check("hello" in attached.out, "what was typed does not come back", attached.out)
        place.snug("wait", "web").expect(0)
        check(place.row("web")["state"] == "ended (0)", "not ended", place.row("web"))
        check("hello" in place.snug("logs", "web").expect(0).out, "the log is lost")
        place.snug("rm", "web").expect(0)
        check(not place.left(), "something is left", place.left())


@test
def life_logs_are_of_one_run():
    with Place() as place:
        for runs in (1, 2):
            place.start("hello", "--name", "web")
            place.snug("wait", "web").expect(0)
            check(place.snug("logs", "web").expect(0).out.count("micro-guest: hello") == 1, "not the log of one run", runs)
            before = place.snug("logs", "--previous", "web")
            if runs == 1:
                check(before.status == 125 and "web" in before.err, "nothing is said of none before", before.err)
        check(before.expect(0).out.count("micro-guest: hello") == 1, "not the run before", before.out)


@test
def life_stop_kill_and_statuses():
    with Place() as place:
        place.start("spin", "--name", "deaf")
        ended = place.snug("stop", "-t", "0.2", "deaf").expect(0)
        check(place.snug("wait", "deaf").expect(143).out.strip() == "143", "not the status of a stop", ended.err)
        place.start("spin", "--name", "deaf", "--rm")
        place.snug("pause", "deaf").expect(0)
        place.snug("stop", "-t", "0.2", "deaf").expect(0)
        check(not place.left(), "--rm leaves something", place.left())
        place.start("spin", "--name", "other")
        waiting = subprocess.Popen([SNUG, "wait", "other"], env=place.env, stdout=subprocess.PIPE)
        place.snug("kill", "other").expect(0)
        out, _ = waiting.communicate(timeout=BOUND)
        check(waiting.returncode == 137 and out.strip() == b"137", "wait does not tell", out)
        check(place.snug("rm", "other", "nobody").expect(125).err.startswith("snug: no machine named nobody"), "wrong words")
        check(not place.left(), "something is left", place.left())


@test
def life_monitor_killed():
    with Place() as place:
        for flags in ((), ("--rm",)):
            name = place.start("spin", "--name", "gone", *flags)
            pid = place.row(name)["pid"]
            held = hold(pid)
            os.kill(pid, signal.SIGKILL)
            place.snug("wait", name)  # by its lock: it may be gone already
            check_gone(held)
            deadline = time.monotonic() + BOUND
            while (name in place.names()) != (not flags) or (not flags and place.row(name)["state"] != "killed"):
                check(time.monotonic() < deadline, "a killed machine is not seen as such", place.names())
            place.snug("rm", "--force", name)
        check(not place.left(), "something is left", place.left())


@test
def life_machine_process_killed():
    """Where the guest has a process of its own: the one that was started ends too, and not well."""
    with Place() as place:
        name = place.start("spin", "--name", "gone")
        pid = place.row(name)["pid"]
        held = hold(pid)
        os.kill(machine_process(pid), signal.SIGKILL)
        check(place.snug("wait", name).status != 0, "it has ended well")
        check_gone(held)
        place.snug("rm", "--force", name)
        check(not place.left(), "something is left", place.left())


def has_a_way_out():
    """Whether passt works here."""
    with open("/proc/net/route") as routes:
        return shutil.which("passt") and any(line.split()[1] == "00000000" for line in routes)


class Doomed:
    """A machine in the foreground with a disk, a network, sockets and a share, and what is known of its processes."""

    def __init__(self, place, folder, name):
        self.folder = f"{place.folder.name}/snug/{name}"
        self.process = subprocess.Popen(
            [SNUG, "run", "--kernel", f"{MICRO}/spin.elf", "--name", name, "--disk", f"{folder}/disk.img,readonly=true", "--net",
             "user", "--vsock", "auto", "--share", f"source={folder},tag=files", *place.limits], env=place.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.known = ()
        deadline = time.monotonic() + BOUND
        while len(self.known) != 2 or not self.passt() or not os.path.exists(self.folder + "/control.sock"):
            self.known = inner_processes(self.process.pid)
            if self.process.poll() is not None:
                check(False, f"it has ended with status {self.process.returncode}", *self.process.communicate())
            check(time.monotonic() < deadline, "it does not run", self.machine(), self.shares(), self.passt())
            time.sleep(0.01)

    def machine(self):
        """The process behind the wall; none before there is one."""
        return self.known[1] if len(self.known) == 2 and os.path.exists(f"/proc/{self.known[1]}") else 0

    def shares(self):
        """The process that serves them, or 0."""
        return self.known[0] if len(self.known) == 2 and os.path.exists(f"/proc/{self.known[0]}") else 0

    def passt(self):
        """Its process; 0 while it is not there, or still snug."""
        for child in set(children_of(self.process.pid)) - set(self.known):
            with contextlib.suppress(OSError), open(f"/proc/{child}/comm") as file:
                if not file.read().startswith("snug"):
                    return child
        return 0

    def end(self, status, *held):
        """With that status, and nothing is left of it but what a killed one's folder holds."""
        _, err = self.process.communicate(timeout=BOUND)
        check(self.process.returncode == status, f"status {self.process.returncode}, not {status}", err)
        check_gone(held)
        return err.decode()


def kill_rounds(rounds, do):
    """`do` with so many machines, a few at a time: afterwards all is as it was."""
    # Where exits are dear, one in so many.
    rounds = -(-rounds // int(os.environ.get("SNUG_KILL_SHARE", "1")))
    def mounts():
        with open("/proc/self/mountinfo") as file:
            return file.read()

    before = mounts()
    # passt locks itself in as well, and does not start where it cannot.
    with folder_with_peer(None if has_a_way_out() and not jail_missing() else ECHO) as (folder, environment), Place() as place:
        place.env["PATH"] = environment["PATH"]
        # As far as the host gives them: then there are control groups that could be left.
        had = limits_here()
        place.limits = [flag for key, flag in (("cpu", "--limits-cpu=1"), ("memory", "--limits-memory=+64M")) if key in had]

        def one(number):
            doomed = Doomed(place, folder, f"doomed{number}")
            try:
                time.sleep(number % 5 / 100)
                do(place, doomed)
            finally:
                doomed.process.kill()
                doomed.process.wait()

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            for done in [pool.submit(one, number) for number in range(rounds)]:
                done.result()
        # What killed machines have left goes with the next command.
        check(not place.names(), "machines are left", place.names())
        check(not place.left(), "something is left", place.left())
        check(not cgroups_of("doomed"), "control groups are left", cgroups_of("doomed"))
    check(mounts() == before, "a mount is left", mounts())


@test
def life_warden_killed_again_and_again():
    def kill(_, doomed):
        held = [os.pidfd_open(pid) for pid in (doomed.machine(), doomed.shares(), doomed.passt())]
        os.kill(doomed.process.pid, signal.SIGKILL)
        doomed.end(-signal.SIGKILL, *held)

    kill_rounds(34, kill)


@test
def life_machine_process_killed_again_and_again():
    def kill(_, doomed):
        held = [os.pidfd_open(pid) for pid in (doomed.shares(), doomed.passt())]
        os.kill(doomed.machine(), signal.SIGKILL)
        err = doomed.end(128 + signal.SIGKILL, *held)
        check("the machine's process was killed by SIGKILL" in err, "it is not said", err)
        check(not os.path.exists(doomed.folder), "its folder is left")

    kill_rounds(34, kill)


@test
def life_share_server_killed_again_and_again():
    """A guest whose files are gone would hang sooner or later: it ends as well."""
    def kill(_, doomed):
        held = [os.pidfd_open(pid) for pid in (doomed.machine(), doomed.passt())]
        os.kill(doomed.shares(), signal.SIGKILL)
        err = doomed.end(125, *held)
        check("the process that serves shares was killed by SIGKILL" in err, "it is not said", err)
        check(not os.path.exists(doomed.folder), "its folder is left")

    kill_rounds(34, kill)


@test
def life_passt_killed_again_and_again():
    def kill(place, doomed):
        name = os.path.basename(doomed.folder)
        deadline = time.monotonic() + BOUND

        def wait_running():
            """On a busy host ps may find it "not answering" once."""
            while (row := place.row(name))["state"] != "running":
                check(time.monotonic() < deadline, "it does not run", row)

        wait_running()  # before, it would be no network that works
        first, machine, shares = doomed.passt(), doomed.machine(), doomed.shares()
        held = os.pidfd_open(first)
        os.kill(first, signal.SIGKILL)
        check_gone([held])
        while not (second := doomed.passt()) or second == first:
            check(time.monotonic() < deadline and doomed.process.poll() is None, "passt is not started anew")
            time.sleep(0.02)
        wait_running()
        check(doomed.machine() == machine, "it is another machine")
        held = [os.pidfd_open(pid) for pid in (machine, shares, second)]
        place.snug("kill", name).expect(0)
        err = doomed.end(128 + signal.SIGKILL, *held)
        check("without network" in err, "it is not said", err)
        check(not os.path.exists(doomed.folder), "its folder is left")

    kill_rounds(32, kill)


@test
def life_under_a_parent_that_hears_of_no_children():
    """Ignored signals are inherited; with SIGCHLD the kernel would forget how the machine's process ended."""
    ended = snug("run", "--kernel", f"{MICRO}/hello.elf",
                 prefix=("python3", "-c", "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
                                          " os.execv(sys.argv[1], sys.argv[1:])"))
    check(ended.expect(0).out == "micro-guest: hello\r\n", "odd output", ended.out)


@test
def life_of_a_machine_in_the_foreground():
    with Place() as place:
        process = subprocess.Popen([SNUG, "run", "--kernel", MICRO + "/spin.elf", "--name", "fore"], env=place.env,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + BOUND
            while "fore" not in place.names():
                check(time.monotonic() < deadline, "it is not listed")
            second = place.snug("run", "--kernel", MICRO + "/spin.elf", "--name", "fore").expect(125)
            check("a machine named fore is running" in second.err and "--name" in second.err, "wrong words", second.err)
            check("not kept by snug" in place.snug("logs", "fore").expect(125).err, "logs has no words for it")
            place.snug("kill", "fore").expect(0)
            _, err = process.communicate(timeout=BOUND)
            check(process.returncode == 137 and b"killed" in err, "it did not end as killed", err)
        finally:
            process.kill()
            process.wait()
        check(not place.left(), "something is left", place.left())


@test
def life_twenty_at_once():
    with Place() as place:
        ended = []

        def run():
            ended.append(place.snug("run", "--kernel", MICRO + "/hello.elf"))

        threads = [threading.Thread(target=run) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check([e.status for e in ended] == [0] * 20, "not all ended well", [(e.status, e.err) for e in ended])
        check(not place.left(), "something is left", place.left())


@test
def life_a_name_is_taken_once():
    with Place() as place:
        processes = [subprocess.Popen([SNUG, "run", "-d", "--kernel", MICRO + "/spin.elf", "--name", "one"], env=place.env,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(6)]
        statuses = sorted(process.wait(timeout=BOUND) for process in processes)
        check(statuses == [0] + [125] * 5, "not just one of six got the name", statuses)


@test
def life_failures_are_said_where_they_are_seen():
    with Place() as place:
        ended = place.snug("run", "-d", "--kernel", "/no/such/kernel").expect(125)
        check("no such file" in ended.err and not ended.out, "the message is lost", ended.out, ended.err)
        with tempfile.NamedTemporaryFile() as broken:
            broken.write(b"\x7fELF" + bytes(100))
            broken.flush()
            ended = place.snug("run", "-d", "--kernel", broken.name).expect(125)
            check("kernel" in ended.err, "the message is lost", ended.err)
        check(not place.left(), "something is left", place.left())


@test
def life_attach_on_a_terminal():
    with Place() as place:
        place.start("echo", "--name", "web")
        os.environ["XDG_RUNTIME_DIR"] = place.folder.name
        try:
            with Terminal("attach", "web") as terminal:
                terminal.wait_for(b"echo ready")
                terminal.type(b"typed\r", until=b"typed")
                terminal.type(b"\x01h", until=b"Ctrl-A d")
                terminal.type(b"\x01d")
                terminal.expect_end(0)
        finally:
            del os.environ["XDG_RUNTIME_DIR"]
        check(place.row("web")["state"] == "running", "it did not run on")


@test
def life_control_socket_and_rough_clients():
    with Place() as place:
        place.start("echo", "--name", "web")
        path = json.loads(place.snug("inspect", "web").out)["directory"] + "/control.sock"
        check(os.stat(path).st_mode & 0o777 == 0o600, "the socket is open to others")

        def raw(data):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(BOUND)
                client.connect(path)
                client.sendall(data)
                answer = b""
                while chunk := client.recv(65536):
                    answer += chunk
                return answer

        silent = []
        for _ in range(100):
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
            silent.append(client)
        # One that dribbles, and some that ask and never read.
        silent[0].sendall(b"GET /v1/vm HT")
        for client in silent[1:20]:
            client.sendall(b"GET /v1/vm HTTP/1.1\r\n\r\n")
        check(b" 400 " in raw(b"\x00\xff nonsense\r\n\r\n"), "no 400")
        check(b" 413 " in raw(b"POST /v1/stop HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 4096), "no 413")
        check(b" 404 " in raw(b"GET /nothing HTTP/1.1\r\n\r\n"), "no 404")
        check(b" 200 OK" in raw(b"GET /v1/vm HTTP/1.1\r\nHost: x\r\n\r\n"), "no 200")
        place.wait_log("web", "echo ready")
        with tempfile.TemporaryFile() as typed:
            typed.write(b"still here\x04")
            typed.seek(0)
            check("still here" in place.snug("attach", "web", stdin=typed).out, "the guest was disturbed")
        for client in silent:
            client.close()


@test
def life_control_socket_as_the_manual_says():
    if not shutil.which("curl"):
        raise Skip("curl is not installed")
    with Place() as place:
        place.start("echo", "--name", "web")
        path = json.loads(place.snug("inspect", "web").out)["directory"] + "/control.sock"
        for word, state in (("pause", "paused"), ("resume", "running")):
            done = subprocess.run(["curl", "-sS", "--fail", "--unix-socket", path, "-X", "POST", f"http://snug/v1/{word}"],
                                  capture_output=True, text=True, timeout=BOUND)
            check(done.returncode == 0, "curl", done.stderr)
            check(place.row("web")["state"] == state, f"not {state}")


@test
def life_a_folder_is_no_input():
    """It would be an empty one, without a word."""
    folder = os.open("/", os.O_RDONLY)
    folder = os.open("/", os.O_RDONLY)
    try:
        ended = snug("run", "--kernel", f"{MICRO}/echo.elf", stdin=folder).expect(125)
    finally:
        os.close(folder)
    check(ended.err == "snug: error: console: stdin: is a folder; give it a file, or nothing: </dev/null\n", "another word", ended.err)


@test
def life_detached_answers_when_the_network_is_known():
    """A network that cannot work is said at once, with the status; the machine is not there."""
    with folder_with_peer("sleep 0.5; echo External interface not usable >&2; exit 1") as (_, environment), Place() as place:
        place.env["PATH"] = environment["PATH"]
        ended = place.snug("run", "-d", "--kernel", f"{MICRO}/echo.elf", "--net", "user", "--name", "web").expect(125)
        check(not ended.out, "it prints a name", ended.out)
        check("passt: External interface not usable" in ended.err, "it does not say why", ended.err)
        check(not place.names(), "a machine is left", place.names())


@test
def life_the_network_ends_with_the_machine_without_a_word():
    """Such a passt ends with its socket, at once."""
    with folder_with_peer(SINK) as (_, environment):
        ended = snug("run", "--kernel", f"{MICRO}/reset.elf", "--net", "user", "--timeout", "1s", "--stats", env=environment)
        check(ended.expect(124).stat("boots") >= 2, "not booted again", ended.err)
        check("passt" not in ended.err, "its end is told as if it were early", ended.err)


@test
def life_ports_of_the_hosts_choice():
    """Where the host chooses, ps and inspect name the port; ranges are one port each."""
    with folder_with_peer(f"{ANSWER}; exec sleep 1000") as (_, environment), Place() as place:
        place.env["PATH"] = environment["PATH"]
        with socket.create_server(("127.0.0.1", 0)) as taken:
            first = taken.getsockname()[1]
            name = place.start("echo", "--name", "web", "-p", "0:80", "-p", "81/udp", "-p", f"{first}-{first + 50}:82",
                               "-p", "127.0.0.2::90-91")
        ports = json.loads(place.snug("inspect", name).expect(0).out)["ports"]
        found = [re.fullmatch(r"(127\.0\.0\.[12]):(\d+):(\d+(?:/udp)?)", port) for port in ports]
        check(all(found) and [match[3] for match in found] == ["80", "81/udp", "82", "90", "91"], "other ports", ports)
        numbers = [int(match[2]) for match in found]
        check(0 not in numbers and len(set(numbers)) == len(numbers), "no ports of their own", ports)
        check(first < numbers[2] <= first + 50, "not one of the range that is free", ports)
        check(place.row(name)["ports"] == ports and ports[0] in place.snug("ps").out, "ps says something else", ports)


@test
def life_a_kernel_that_does_not_come_can_be_interrupted():
    command = ["bash", "-c", 'exec "$0" run --kernel <(exec sleep 1000)', SNUG]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True)
    try:
        deadline = time.monotonic() + BOUND
        while not status_of(process.pid)["Name"].startswith("snug") or state_of(process.pid) != "S":
            check(time.monotonic() < deadline and process.poll() is None, "it does not wait")
            time.sleep(0.02)
        held = hold(process.pid)
        process.send_signal(signal.SIGINT)
        check(process.wait(timeout=BOUND) == -signal.SIGINT, f"status {process.returncode}")
        check_gone(held)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@test
def life_what_came_through_a_pipe_is_there_at_the_next_boot():
    through_pipe = ("bash", "-c", 'file=$1; shift; exec "$@" --kernel <(cat "$file")', "bash", f"{MICRO}/reset.elf")
    ended = snug("run", "--timeout", "2s", "--stats", prefix=through_pipe).expect(124)
    check(ended.stat("boots") >= 2, "not booted again", ended.err)
