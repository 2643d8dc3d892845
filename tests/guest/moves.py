"""Machines that begin where another stands, and machines that move."""
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
        for arguments, words in ((("fork", "nobody"), "no machine named nobody"), (("fork", "m", "-n", "0"), "1 to 1000"), (("fork", "m", "-n", "1001"), "1 to 1000"),
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
