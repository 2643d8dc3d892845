"""Machines whose process is another from one moment to the next: of the same program, or of another one."""
import contextlib
import shutil
import signal

from moves import told
from snapshots import *  # noqa: F403


def processes(pid):
    """Those of a machine, by their command lines' first words: its warden's children."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(one) for one in file.read().split()]


def state_of(place, name):
    return json.loads(place.snug("inspect", name).expect(0).out)


@test
def a_machine_is_updated_again_and_again():
    with Snapshots() as place:
        place.start("echo", "--name", "m", "--memory", "64M")
        place.wait_log("m", "echo ready")
        before = state_of(place, "m")
        check(before["updates"] == 0 and "update_seconds" not in before and before["program"].startswith("snug "), "odd beginning", before)
        seen = set(processes(before["pid"]))
        for number in range(1, 21):
            ended = place.snug("update", "m").expect(0)
            check(re.fullmatch(r"snug: m stood still for \d+ ms; it is run by snug .*\n", ended.err) and not ended.out, "odd words", ended)
            now = state_of(place, "m")
            check(now["updates"] == number and now["boots"] == 1 and now["update_seconds"] < 10, "not updated", now)
            check((now["pid"], now["started_at"]) == (before["pid"], before["started_at"]), "another machine", now)
            # The one before may still be on its way out.
            deadline = time.monotonic() + BOUND
            while len(children := processes(before["pid"])) > 1:
                check(time.monotonic() < deadline, "the process before is there still", children)
                time.sleep(0.02)
            check(len(children) == 1 and children[0] not in seen, "not one new process", children, seen)
            seen.add(children[0])
        check(sorted(os.listdir(f"/proc/{before['pid']}/fd"), key=int)[-1] < "9" * 3, "descriptors are left", os.listdir(f"/proc/{before['pid']}/fd"))
        check("hello" in told(place, "m", "hello"), "it does not answer")
        check(place.snug("wait", "m").expect(0).out == "0\n", "another status")


@test
def who_waits_for_an_updated_machine_hears_of_its_end():
    with Snapshots() as place:
        place.start("echo", "--name", "m")
        place.wait_log("m", "echo ready")
        waiting = subprocess.Popen([SNUG, "wait", "m"], env=place.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(0.3)
        place.snug("update", "m").expect(0)
        time.sleep(0.3)
        check(waiting.poll() is None, "it has ended", waiting)
        told(place, "m", "x")
        out, err = waiting.communicate(timeout=BOUND)
        check((waiting.returncode, out, err) == (0, "0\n", ""), "another end", out, err)
        place.start("echo", "--name", "k")
        place.wait_log("k", "echo ready")
        place.snug("update", "k").expect(0)
        place.snug("kill", "k").expect(0)
        check(place.snug("wait", "k").status == 137, "another status of one that was killed")


@test
def an_update_is_a_snapshot_and_a_fork_of_the_machine_itself():
    """What else can be done with it can be done afterwards."""
    with Snapshots() as place:
        place.start("echo", "--name", "m", "--memory", "64M")
        place.wait_log("m", "echo ready")
        place.snug("update", "m").expect(0)
        place.snug("snapshot", "m", "s").expect(0)
        check(place.goes_on("s"), "its snapshot does not go on")
        place.snug("fork", "m", "--name", "f").expect(0)
        place.snug("update", "f").expect(0)
        check("hello" in told(place, "f", "hello"), "its fork does not answer")
        place.snug("pause", "m").expect(0)
        check("is paused" in place.snug("update", "m").expect(125).err, "a paused one is updated")
        place.snug("resume", "m").expect(0)
        place.snug("update", "m").expect(0)
        check(place.snug("send", "m", "--", SNUG, "receive", "--name", "there").expect(0).out == "there\n", "it cannot be sent")
        check("hello" in told(place, "there", "hello"), "it does not answer where it was sent")


@test
def one_with_an_ephemeral_disk_keeps_what_was_written():
    with Snapshots() as place:
        disk = place.data.name + "/disk.img"
        with open(disk, "wb") as file:
            file.write(os.urandom(1 << 20))
        before = sha(disk)
        place.start("echo", "--name", "m", "--disk", disk + ",ephemeral=true", "--disk", disk + ",readonly=true")
        place.wait_log("m", "echo ready")
        for _ in range(3):
            place.snug("update", "m").expect(0)
        # The lock stays with the machine.
        check("in use" in place.snug("run", "--kernel", f"{MICRO}/hello.elf", "--disk", disk).expect(125).err, "its disk is another's")
        told(place, "m", "x")
        place.snug("wait", "m").expect(0)
        place.snug("run", "--kernel", f"{MICRO}/hello.elf", "--disk", disk).expect(0)
        check(sha(disk) == before, "the disk was written to")


@test
def a_program_that_does_not_take_it_over_leaves_it_as_it_was():
    """Whatever the file is that its user names."""
    with Snapshots() as place:
        place.start("echo", "--name", "m", "--memory", "64M")
        place.wait_log("m", "echo ready")
        pid = state_of(place, "m")["pid"]
        before = processes(pid)
        folder = place.data.name
        with open(f"{folder}/no program", "w") as file:
            file.write("nothing\n")
        os.chmod(f"{folder}/no program", 0o755)
        shutil.copy("/bin/false", f"{folder}/ends")
        shutil.copy("/bin/sleep", f"{folder}/sleep")
        for name, words in (("ends", "ended with status 1"), ("no program", "ended with status 126"), ("sleep", "ended with status 1"), ("missing", "No such file")):
            with open(f"{place.row('m')['directory']}/program", "w") as file:
                file.write(f"{folder}/{name}")
            said = subprocess.run(["curl", "-s", "-X", "POST", "--unix-socket", f"{place.row('m')['directory']}/control.sock", "http://snug/v1/update"],
                                  capture_output=True, text=True, check=True).stdout
            check(words in json.loads(said)["error"], f"{name}: odd words", said)
            check(processes(pid) == before and place.row("m")["state"] == "running", f"{name}: something has become of it")
        place.snug("update", "m").expect(0)
        check(processes(pid) != before, "not updated")
        check("hello" in told(place, "m", "hello"), "it does not answer")


@test
def what_cannot_be_updated_is_said():
    with Snapshots() as place:
        place.start("echo", "--name", "shares", "-v", place.data.name + ":/mnt")
        place.start("echo", "--name", "pty", "--console", "pty")
        place.start("echo", "--name", "m")
        for arguments, words in ((("shares",), "shares"), (("pty",), "pty"), (("nobody",), "no machine named nobody"), ((), "which machine?"), (("--all", "m"), "which machine?")):
            ended = place.snug("update", *arguments).expect(125)
            check(words in ended.err and not ended.out, f"{arguments}: odd words", ended.err)
        # The others are, and the status tells of those that are not.
        ended = place.snug("update", "--all").expect(125)
        check("m stood still" in ended.err and ended.err.count("goes on as it was") == 2, "odd words", ended.err)
        check({place.row(name)["state"] for name in ("m", "shares", "pty")} == {"running"}, "something has become of them")


@test
def whoever_is_killed_in_the_middle_of_an_update_leaves_one_machine_or_none():
    """The process before, the one behind, the program between them, and the command."""
    with Snapshots() as place:
        for number in range(24):
            name = f"m{number}"
            place.start("echo", "--name", name, "--memory", "64M")
            place.wait_log(name, "echo ready")
            pid = state_of(place, name)["pid"]
            before = processes(pid)
            update = subprocess.Popen([SNUG, "update", name], env=place.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            time.sleep(0.002 * number)
            kind = number % 3
            if kind == 0:
                update.kill()
            else:
                with contextlib.suppress(ProcessLookupError, FileNotFoundError, IndexError):
                    victims = [one for one in processes(pid) if (one in before) == (kind == 1)]
                    os.kill(victims[-1], signal.SIGKILL)
            update.communicate(timeout=BOUND)
            deadline = time.monotonic() + BOUND
            while True:
                left = processes(pid) if os.path.exists(f"/proc/{pid}") else []
                row = [one for one in place.snug("ps", "-q").out.split() if one == name]
                if (not left and not row) or (len(left) == 1 and row):
                    break
                check(time.monotonic() < deadline, f"{kind}: {len(left)} processes", left, row)
                time.sleep(0.02)
            if left:
                check("hello" in told(place, name, "hello"), "it does not answer")


@test
def a_machine_in_the_foreground_of_no_terminal_is_updated():
    """As a service is: what it prints goes on where it went, and who waits for it gets its status."""
    with Snapshots() as place:
        machine = subprocess.Popen([SNUG, "run", "--kernel", f"{MICRO}/echo.elf", "--name", "m"], env=place.env, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            check(machine.stdout.read(10) == b"echo ready", "it does not begin")
            for word in (b"one", b"two", b"three"):
                place.snug("update", "m").expect(0)
                machine.stdin.write(word)
                machine.stdin.flush()
                seen = b""
                while not seen.endswith(word):
                    part = os.read(machine.stdout.fileno(), 100)
                    check(part, "it has ended", seen)
                    seen += part
            machine.stdin.write(b"\4")
            out, err = machine.communicate(timeout=BOUND)
            check(machine.returncode == 0, f"status {machine.returncode}", out, err)
        finally:
            machine.kill()
            machine.communicate()
