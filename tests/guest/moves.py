"""Machines that begin where another stands, and machines that move."""
import zlib

from snapshots import *  # noqa: F403


def told(place, name, text):
    """What a guest that echoes answers; it ends with it."""
    return place.snug("attach", name, stdin=text_pipe(text + "\4")).out


@test
def a_machine_is_forked():
    with Snapshots() as place:
        place.start("echo", "--name", "first", "--memory", "64M")
        place.wait_log("first", "echo ready")
        ended = place.snug("fork", "first", "-n", "3").expect(0)
        names = ended.out.split()
        check(len(set(names)) == 3 and all(name.startswith("first-") for name in names), "not three names", ended.out)
        check(re.fullmatch(r"snug: first stood still for [\d.]+ ms\n", ended.err), "odd words", ended.err)
        check(place.snug("fork", "first", "--name", "other").expect(0).out == "other\n", "another name")
        check(place.snug("fork", "first", "-n", "2", "--name", "more").expect(0).out == "more-1\nmore-2\n", "other names")
        check({place.row(name)["state"] for name in [*names, "other", "more-1", "first"]} == {"running"}, "not all of them run")
        check(os.listdir(place.path("")) == [], "files are left", os.listdir(place.path("")))
        # Each is a machine of its own; one of one, too.
        check(place.snug("fork", "other", "--name", "third").expect(0).out == "third\n", "no fork of a fork")
        for name in (names[0], "third", "first"):
            check("hello" in told(place, name, "hello"), f"{name} does not answer")
        check(place.row("more-2")["state"] == "running", "it ends with another")


@test
def a_fork_has_disks_of_its_own():
    with Snapshots() as place:
        disk = place.data.name + "/disk.img"
        with open(disk, "wb") as file:
            file.write(os.urandom(1 << 20))
        before = sha(disk)
        place.start("echo", "--name", "first", "--disk", disk)
        place.wait_log("first", "echo ready")
        place.snug("fork", "first", "--name", "other", "--rm").expect(0)
        for command in ("snapshot", "fork"):
            check("is a fork" in place.snug(command, "other").expect(125).err, "odd words")
        for name in ("first", "other"):
            check("do not go with" in place.snug("send", name, "--", "cat").expect(125).err, "odd words")
            check(place.row(name)["state"] == "running", "something has become of it")
        check("hello" in told(place, "other", "hello"), "it does not answer")
        deadline = time.monotonic() + BOUND
        while "other" in place.names():
            check(time.monotonic() < deadline, "it is kept")
            time.sleep(0.05)
        check(place.row("first")["state"] == "running" and sha(disk) == before, "the first one's disk is another")


@test
def what_cannot_be_forked_or_sent_is_said():
    with Snapshots() as place:
        place.start("echo", "--name", "m")
        for arguments, words in ((("fork", "nobody"), "no machine named nobody"), (("fork", "m", "-n", "0"), "1000"), (("fork", "m", "-n", "1001"), "1000"),
                                 (("fork",), "MACHINE"), (("send", "nobody"), "no machine named nobody"), (("send", "m", "--", "/no/such"), "status 127"),
                                 (("receive",), "too early"), (("fork", "m", "--name", "m"), "m")):
            ended = place.snug(*arguments).expect(125)
            check(words in ended.err and not ended.out, f"{arguments}: odd words", ended.err)
        check(place.names() == ["m"] and place.row("m")["state"] == "running", "something has become of it", place.names())
        check(os.listdir(place.path("")) == [], "files are left")


@test
def a_machine_is_sent():
    with Snapshots() as place:
        place.start("echo", "--name", "m", "--memory", "64M")
        place.wait_log("m", "echo ready")
        # Where it does not run it goes on here.
        for command in (["false"], ["sh", "-c", "cat >/dev/null; exit 3"], ["sh", "-c", "head -c 1000 | \"$0\" receive", SNUG], ["sh", "-c", "kill -9 $$"]):
            ended = place.snug("send", "m", "--", *command).expect(125)
            check("m goes on here" in ended.err and not ended.out, "odd words", ended.err)
            check(place.names() == ["m"] and place.row("m")["state"] == "running", f"{command}: something has become of it")
        ended = place.snug("send", "m", "--", SNUG, "receive", "--name", "there").expect(0)
        check(ended.out == "there\n" and re.search(r"m stood still for \d+ ms, and runs there", ended.err), "odd words", ended)
        check("m: round 1: " in ended.err, "it has not gone while it ran", ended.err)
        check([name for name in place.names() if place.row(name)["state"] == "running"] == ["there"], "not there, or still here", place.names())
        # One that was paused stays so when it cannot be sent.
        place.snug("pause", "there").expect(0)
        place.snug("send", "there", "--", "false").expect(125)
        check(place.row("there")["state"] == "paused", "it runs on")
        # Through a file: here it stays, paused.
        sent = place.data.name + "/sent"
        with open(sent, "wb") as file:
            done = subprocess.run([SNUG, "send", "there"], env=place.env, stdout=file, stderr=subprocess.PIPE, text=True, timeout=BOUND)
        check(done.returncode == 0 and "there is paused" in done.stderr, "odd words", done.stderr)
        place.snug("rm", "--force", "there").expect(0)
        with open(sent, "rb") as file:
            check(place.snug("receive", stdin=file).expect(0).out == "there\n", "not under its name")
        check("hello" in told(place, "there", "hello"), "it does not answer")
        check(os.listdir(place.path("")) == [], "files are left")


# --- while it runs -------------------------------------------------------------------------------------------

# Passes on what it reads, 16 MiB a second, to the command of its arguments.
SLOW = """
import subprocess, sys, time
taker = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
while part := sys.stdin.buffer.read1(1 << 16):
    taker.stdin.write(part)
    time.sleep(len(part) / (16 << 20))
taker.stdin.close()
sys.exit(taker.wait())
"""


def whole(place, name):
    """Whether the memory of a guest that writes it round after round is of one moment; it ends with that."""
    said = place.snug("attach", name, stdin=text_pipe("x")).out
    return "xwhole" in "".join(said.split()) and "torn" not in said


class Sender:
    """snug send, under way."""

    def __init__(self, place, *arguments):
        self.process = subprocess.Popen([SNUG, "send", *arguments], env=place.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        stdin=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # With the program that it has started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def says(self, words):
        """Reads to the line that has them."""
        for line in self.process.stderr:
            if words in line:
                return
        check(False, f"{words!r} is not said")


def wait_state(place, name, state):
    deadline = time.monotonic() + BOUND
    while place.row(name)["state"] != state:
        check(time.monotonic() < deadline, f"{name} is not {state}", place.row(name))
        time.sleep(0.02)


@test
def memory_that_changes_while_it_is_sent_is_of_one_moment():
    with Snapshots() as place:
        os.mkdir(place.data.name + "/shared")
        most = 0
        for kind, flags in (("one", ()), ("two", ("-v", place.data.name + "/shared:/work"))):
            place.start("rounds", "--name", kind, "--memory", "64M", *flags)
            place.wait_log(kind, "rounds ready")
            # Again, by one that has come that way itself.
            for name, there in ((kind, kind + "-2"), (kind + "-2", kind + "-3")):
                ended = place.snug("send", name, "--downtime", "1m", "--", sys.executable, "-c", SLOW, SNUG, "receive", "--name", there).expect(0)
                rounds = re.findall(r": round (\d+): ", ended.err)
                most = max(most, len(rounds))
            check(whole(place, kind + "-3"), f"memory of {kind} process(es): of several moments")
        if most < 2:
            raise Skip("a busy machine: the guest has written next to nothing meanwhile")


@test
def what_changes_more_quickly_than_it_goes_is_sent_or_not():
    with Snapshots() as place:
        place.start("rounds", "--name", "m", "--memory", "64M")
        place.wait_log("m", "rounds ready")
        slowly = ["--", sys.executable, "-c", SLOW, SNUG, "receive", "--name", "there"]
        ended = place.snug("send", "m", "--downtime", "1ms", *slowly).expect(125)
        check("m goes on here" in ended.err and "more quickly" in ended.err and "longer than 1 ms" in ended.err, "odd words", ended.err)
        check([name for name in place.names() if place.row(name)["state"] == "running"] == ["m"], "it does not run here, or runs there", place.names())
        check("expected a duration" in place.snug("send", "m", "--downtime", "soon", *slowly).expect(125).err, "odd words")
        # Unless that matters.
        ended = place.snug("send", "m", "--downtime", "1m", *slowly).expect(0)
        check("more quickly" not in ended.err, "odd words", ended.err)
        check(whole(place, "there"), "of several moments")
        place.snug("rm", "m", "there")
        place.start("rounds", "--name", "m", "--memory", "64M")
        place.wait_log("m", "rounds ready")
        ended = place.snug("send", "m", *slowly).expect(0)
        in_vain = "more quickly" in ended.err
        check(in_vain == ("stands still for as long" in ended.err) and (": round 11: " in ended.err or not in_vain), "odd words", ended.err)
        check(whole(place, "there"), "of several moments")
        if not in_vain:
            raise Skip("a busy machine: the guest has written less than went meanwhile")


@test
def whoever_sends_may_be_killed_at_any_time():
    with Snapshots() as place:
        place.start("rounds", "--name", "m", "--memory", "64M")
        place.wait_log("m", "rounds ready")
        slowly = [sys.executable, "-c", SLOW, "sh", "-c", "cat > /dev/null"]
        for number, taker, moment in ((signal.SIGKILL, ["sleep", "1000"], "first"), (signal.SIGTERM, ["sleep", "1000"], "first"),
                                      (signal.SIGKILL, slowly, "round 2"), (signal.SIGTERM, slowly, "round 3"),
                                      (signal.SIGKILL, ["sh", "-c", "cat > /dev/null; sleep 1000"], "paused")):
            with Sender(place, "m", "--downtime", "1m" if moment == "paused" else "1ms", "--", *taker) as sender:
                if moment == "paused":
                    wait_state(place, "m", "paused")
                    check("being sent" in place.snug("snapshot", "m").expect(125).err, "odd words")
                elif moment != "first":
                    sender.says(moment)
                else:
                    time.sleep(0.5)
                check(sender.process.poll() is None, "it has ended", sender.process.returncode)
                sender.process.send_signal(number)
                sender.process.wait(BOUND)
                wait_state(place, "m", "running")
            place.snug("snapshot", "m", "s").expect(0)
            ended = place.snug("restore", "s", stdin=text_pipe("x")).expect(0)
            check(ended.out.split() == ["xwhole"], f"{moment}: memory of several moments", ended)
            place.snug("snapshot", "rm", "s").expect(0)
            check(os.listdir(place.path("")) == [], "files are left", os.listdir(place.path("")))
        place.snug("send", "m", "--", SNUG, "receive", "--name", "there").expect(0)
        check(whole(place, "there"), "of several moments")


@test
def one_that_is_made_to_run_on_is_not_sent():
    with Snapshots() as place:
        place.start("rounds", "--name", "m", "--memory", "64M")
        place.wait_log("m", "rounds ready")
        done = place.data.name + "/done"
        taker = f"cat > /dev/null; until [ -e {done} ]; do sleep 0.1; done"
        with Sender(place, "m", "--downtime", "1m", "--", "sh", "-c", taker) as sender:
            wait_state(place, "m", "paused")
            place.snug("resume", "m").expect(0)
            wait_state(place, "m", "running")
            with open(done, "w"):
                pass
            _, said = sender.process.communicate(timeout=BOUND)
            check(sender.process.returncode == 125 and "here as well" in said, "odd words", said)
        check(whole(place, "m"), "of several moments")


def records(stream):
    """Of a stream: (kind, number, body) and how long it is so far."""
    at = 13 + stream[12]
    while at < len(stream):
        kind, number, length = struct.unpack_from("<BQI", stream, at)
        at += 13 + length + 4
        yield kind, number, stream[at - 4 - length:at - 4], at


def record(kind, number, body):
    text = struct.pack("<BQI", kind, number, len(body)) + body
    return text + struct.pack("<I", zlib.crc32(text))


@test
def a_host_that_is_another_is_said_before_memory_goes():
    with Disks() as place:
        place.start("echo", "--name", "m", "--disk", place.disk + ",readonly=true")
        place.wait_log("m", "echo ready")
        place.snug("pause", "m").expect(0)
        sent = subprocess.run([SNUG, "send", "m"], env=place.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=BOUND)
        check(sent.returncode == 0, "it is not sent", sent.stderr)
        kind, _, facts, end = next(records(sent.stdout))
        check(kind == 6, "not what comes first", kind)
        place.snug("resume", "m").expect(0)
        says = json.loads(facts)
        head = sent.stdout[:13 + sent.stdout[12]]
        other_cpu = {**says, "cpuid": [[*says["cpuid"][0][:5], says["cpuid"][0][5] ^ 1], *says["cpuid"][1:]]}
        other_disk = {**says, "disks": [{**says["disks"][0], "bytes": 1}]}
        for facts, words in ((other_cpu, "another CPU"), ({**says, "cpuid": [[1]]}, "cannot be read"), ({**says, "cpuid": 7}, "cannot be read"),
                             (other_disk, "is not the one"), ([], "cannot be read")):
            # Nothing else comes, and the pipe stays open.
            with subprocess.Popen([SNUG, "receive"], env=place.env, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as receiver:
                receiver.stdin.write(head + record(6, 0, json.dumps(facts).encode()))
                receiver.stdin.flush()
                said = receiver.stderr.read().decode()
                check(receiver.wait(BOUND) == 125 and words in said, "odd words", said)
        # The same disk, by the same path.
        ended = place.snug("send", "m", "--", SNUG, "receive", "--name", "there").expect(0)
        check(ended.out == "there\n" and "hello" in told(place, "there", "hello"), "it does not answer")
