"""Commands in a guest: snug run -- COMMAND, through the agent."""
import json
import threading
import xml.etree.ElementTree

import in_guest
from guests import *  # noqa: F403


def sandbox(*words, flags=(), **keywords):
    """snug run FLAGS -- WORDS with the tiny kernel, in little memory."""
    return snug("run", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "--boot-timeout", "300s", *flags, "--", *words,
                **keywords)


@test
def sandbox_output_errors_and_status():
    ended = sandbox("uname", "-r").expect(0)
    check(re.fullmatch(r"6\.\d+\.\d+\n", ended.out), "not just the release", ended.out)
    check(ended.err == "", "something on stderr", ended.err)
    ended = sandbox("sh", "-c", "echo out; echo err >&2; pwd >&2; echo \"$GREETING\"; exit 7",
                    flags=["-e", "GREETING=hello world", "-w", "/tmp"]).expect(7)
    check(ended.out == "out\nhello world\n", "odd output", ended.out)
    check(ended.err == "err\n/tmp\n", "odd errors", ended.err)


@test
def sandbox_statuses():
    sandbox("sh", "-c", "kill -9 $$").expect(137)
    ended = sandbox("no-such-command").expect(127)
    check("no-such-command: not found" in ended.err, "the message does not say so", ended.err)
    ended = sandbox("/etc/fstab").expect(126)
    check("/etc/fstab" in ended.err, "the message does not say so", ended.err)


@test
def sandbox_timeout():
    ended = sandbox("sleep", "1000", flags=["--timeout", "2s"]).expect(124)
    check("timeout of 2s" in ended.err, "the message does not say so", ended.err)


def sandbox_told_to_go(script):
    """A shell script that waits for a line of input once it has printed "before"; the line is sent when that arrived.
    What a process has written and the agent has not yet read goes down with the guest: the tests below do not race it."""
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "-i", "--", "sh", "-c",
                                f"echo before; read go; {script}"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        check(select_read(process.stdout, BOUND)[0], "nothing came from the command")
        check(process.stdout.readline() == b"before\n", "what was printed before is lost")
        out, err = process.communicate(b"go\n", timeout=BOUND)
    finally:
        process.kill()
        process.wait()
    check(out == b"", "printed more than once", out)
    return process.returncode, err.decode()


@test
def sandbox_panic():
    status, err = sandbox_told_to_go("echo c > /proc/sysrq-trigger; sleep 1000")
    check(status == 123, f"status {status}", err)
    check("panicked" in err and "sysrq triggered crash" in err, "the message does not say why", err)


@test
def sandbox_power_off_is_no_status():
    status, err = sandbox_told_to_go("poweroff -f")
    check(status == 125, f"status {status}", err)
    # Which of the two is noticed first is a race.
    check("powered off before" in err or "closed the connection" in err, "the message does not say so", err)


@test
def sandbox_binary_input():
    process = subprocess.run([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "-i", "--", "cat"],
                             input=b"a\0b\xff\r\n", stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=BOUND)
    check(process.returncode == 0 and process.stdout == b"a\0b\xff\r\n", f"status {process.returncode}", process.stdout,
          process.stderr)


@test
def sandbox_megabytes_there_and_back():
    """64 MiB through stdin and back, exact, and the monitor holds none of it."""
    block = bytes(range(256)) * 4096
    blocks = 64
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "-i", "--", "cat"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        def feed():
            for _ in range(blocks):
                process.stdin.write(block)
            process.stdin.close()

        threading.Thread(target=feed, daemon=True).start()
        seen, digest, most = 0, hashlib.md5(), 0
        while True:
            chunk = os.read(process.stdout.fileno(), 1 << 20)
            if not chunk:
                break
            digest.update(chunk)
            if seen >> 23 != (seen + len(chunk)) >> 23:
                most = max(most, monitor_kib(process.pid))
            seen += len(chunk)
        check(process.wait(timeout=BOUND) == 0, f"status {process.returncode}")
        check(seen == blocks << 20, f"{seen} bytes came back")
        check(digest.digest() == hashlib.md5(block * blocks).digest(), "what came back is not what was sent")
        check(0 < most < 16 * 1024, f"the monitor held {most} KiB beyond guest memory")
    finally:
        process.kill()
        process.wait()


@test
def sandbox_signals():
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "--", "sh", "-c",
                                "trap 'echo usr' USR1; trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 1; done"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        for number, answer in ((0, b"ready\n"), (signal.SIGUSR1, b"usr\n"), (signal.SIGTERM, b"term\n")):
            if number:
                process.send_signal(number)
            line = process.stdout.readline()
            check(line == answer, f"{answer!r} did not come", line)
        check(process.wait(timeout=BOUND) == 9, f"status {process.returncode}")
    finally:
        process.kill()
        process.wait()


@test
def sandbox_second_signal_stops():
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "--", "sh", "-c",
                                "trap 'echo again' TERM; echo ready; while :; do sleep 1; done"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        process.stdout.readline()
        process.terminate()
        check(process.stdout.readline() == b"again\n", "the command did not get the signal")
        time.sleep(0.5)  # closer together, two signals are one wish
        process.terminate()
        check(process.wait(timeout=BOUND) == 143, f"status {process.returncode}")
    finally:
        process.kill()
        process.wait()


@test
def sandbox_stock_kernel():
    """What "snug run -- COMMAND" boots by itself: Debian's kernel, whose drivers are modules."""
    ended = snug("run", "--kernel", STOCK, "--initrd", INITRD, "--initrd", STOCK_MODULES, "--boot-timeout", "300s", "--",
                 "sh", "-c", "uname -r; exit 7").expect(7)
    check(re.fullmatch(r"6\.\d+\.\d+(-\d+|\+deb\d+)-cloud-amd64\n", ended.out), "not just the release", ended.out)


@test
def sandbox_many_at_once():
    many = 20 if EVERYTHING else 8
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder, "TMPDIR": folder}
        processes = [subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "--boot-timeout", "300s",
                                       "--", "sh", "-c", f"echo {number}; exit {number}"], env=env,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                     for number in range(many)]
        # One that is killed leaves nothing that the next command does not clean up.
        killed = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "--", "sleep", "1000"],
                                  env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for number, process in enumerate(processes):
                out, err = process.communicate(timeout=2 * BOUND)
                check(process.returncode == number and out == b"%d\n" % number, f"number {number}: status {process.returncode}",
                      out, err)
        finally:
            for process in processes:
                process.kill()
                process.wait()
            kill_machine(killed)
            killed.wait()
        subprocess.run([SNUG, "run", "--kernel", "/nonexistent"], env=env, stderr=subprocess.DEVNULL)
        sandbox("true", env=env).expect(0)
        # The folder of all machines stays.
        left = [os.path.join(top, name) for top, folders, names in os.walk(folder) for name in folders + names]
        check(left == [folder + "/snug"], "something is left", "\n".join(left))
        check(not processes_in(folder), "a process is left", processes_in(folder))


class Guest:
    """A guest that runs in the background, its console and its socket in a folder."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.socket = self.folder.name + "/vsock.sock"
        self.process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "--cmdline", "quiet",
                                         "--vsock", self.socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        seen = b""
        while b"snug-initrd: ready" not in seen:
            chunk = os.read(self.process.stdout.fileno(), 4096)
            check(chunk, "the guest ended before it was ready", seen)
            seen += chunk
        # The agent is started in the background, just before that line.
        guest = in_guest.Reach(self.socket)
        guest.wait_for_agent()
        return guest

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self.folder.cleanup()


@test
def sandbox_exec_copy_and_shell():
    with Guest() as guest:
        in_guest.terminals_at_once(guest)
        in_guest.place_to_work(guest)
        in_guest.commands(guest)
        in_guest.users(guest)
        in_guest.copies(guest)
        in_guest.shell(guest)
        in_guest.commands_on_a_terminal(guest)
        in_guest.kill_everything(guest)
        # As any Linux: poweroff(8) asks the first program.
        guest.run("poweroff")
        deadline = time.monotonic() + BOUND
        while os.path.exists(guest.machine) and guest.run("true").status == 0:
            check(time.monotonic() < deadline, "poweroff does not power off")


@test
@exhaustive
def sandbox_exec_by_name_with_a_socket_elsewhere():
    """Wherever its socket is, a machine is found by its name."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder}
        snug("run", "-d", "--name", "box", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "--vsock", folder + "/elsewhere", env=env).expect(0)
        try:
            check(snug("exec", "box", "--", "echo", "here", env=env).expect(0).out == "here\n", "another answer")
            check(not os.path.exists(folder + "/snug/box/vsock.sock"), "there is another socket in its folder")
        finally:
            snug("kill", "box", env=env)


@test
@exhaustive
def sandbox_clock_is_right_after_a_pause():
    """Whatever the guest's clock was: the agent sets it."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder}
        snug("run", "-d", "--name", "late", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", env=env).expect(0)
        try:
            guest = in_guest.Reach(folder + "/snug/late/vsock.sock")
            guest.wait_for_agent()
            year = guest.run("sh", "-c", "date -s '2001-02-03 04:05:06' >/dev/null; date +%Y").expect(0).out
            check(year == "2001\n", "the clock cannot be set back", year)
            snug("pause", "late", env=env).expect(0)
            time.sleep(3)
            snug("resume", "late", env=env).expect(0)
            deadline = time.monotonic() + BOUND
            while True:
                before = time.time()
                there = int(guest.run("date", "+%s").expect(0).out)
                if before - 2 <= there <= time.time() + 2:
                    break
                check(time.monotonic() < deadline, f"the guest's clock is {before - there:.0f} s late")
        finally:
            snug("kill", "late", env=env)


@test
@exhaustive
def sandbox_test_run_example():
    """guest-images/examples/test-run, as the manual has it."""
    examples = os.path.realpath(os.path.dirname(__file__) + "/../../guest-images/examples")
    with tempfile.TemporaryDirectory() as folder:
        def run(script, **variables):
            with open(folder + "/selftest", "w") as file:
                file.write("#!/bin/sh\n" + script)
            os.chmod(folder + "/selftest", 0o755)
            process = subprocess.run([examples + "/test-run", folder + "/selftest"], cwd=folder, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=BOUND,
                                     env={**os.environ, "SNUG": os.path.realpath(SNUG), "XDG_RUNTIME_DIR": folder, **variables})
            check(not os.listdir(folder + "/snug"), "a machine is left", os.listdir(folder + "/snug"))
            check(not processes_in(folder), "a process is left", processes_in(folder))
            return Ended(process.returncode, process.stdout, process.stderr)

        def result():
            with open(folder + "/result.txt") as file:
                return file.read()

        run("uname -r; exit 0").expect(0)
        check(re.fullmatch(r"6\.\d+\.\d+\n", result()), "not its result", result())
        run("echo 3 of 4 >&2; exit 7").expect(7)
        check(result() == "3 of 4\n", "not its result", result())
        run("echo begun; sleep 1000", TEST_TIMEOUT="2").expect(124)
        ended = run("echo c > /proc/sysrq-trigger").expect(123)
        check("sysrq triggered crash" in ended.err, "not the reason", ended.err)


@test
def sandbox_several_commands_and_junit():
    with tempfile.TemporaryDirectory() as folder:
        ended = snug("run", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "--boot-timeout", "300s", "--command", "echo one",
                     "--command", "echo '<two>' >&2; exit 3", "--command", r"printf '\033three\377\n'; seq 100000",
                     "--junit", folder + "/results.xml")
        ended.expect(3)
        check(ended.out.startswith("one\n\x1bthree") and ended.out.endswith("\n100000\n") and ended.err == "<two>\n",
              "odd output", ended.out, ended.err)
        suite = xml.etree.ElementTree.parse(folder + "/results.xml").getroot()
        check((suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0"), "odd counts")
        one, two, three = [[(child.tag, child.get("message") or child.text) for child in case] for case in suite]
        check(one == [("system-out", "one\n")], f"odd first case: {one}")
        check(two == [("failure", "status 3"), ("system-err", "<two>\n")], f"odd second case: {two}")
        check(len(three) == 1 and three[0][0] == "system-out" and "bytes left out" in three[0][1][:40]
              and three[0][1].endswith("\n100000\n") and 60_000 < len(three[0][1]) < 140_000, "odd third case", three[0][1][:100])


@test
def sandbox_command_in_the_background():
    """Its output in the log, its status from wait, its console apart; stop reaches it as SIGTERM."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder}
        boot = ["--kernel", TINY, "--initrd", INITRD, "-m", "64M", "--boot-timeout", "300s"]
        name = snug("run", "-d", *boot, "--name", "job", "--", "sh", "-c",
                    "echo out; echo err >&2; echo to the console > /dev/console; exit 7", env=env).expect(0).out
        check(name == "job\n", "not the name", name)
        snug("wait", "job", env=env).expect(7)
        check(sorted(snug("logs", "job", env=env).expect(0).out.splitlines()) == ["err", "out"], "not its output")
        console = snug("logs", "--console", "job", env=env).expect(0).out
        check("to the console" in console and "out" not in console.split("to the console")[0], "not its console", console)
        snug("rm", "job", env=env).expect(0)
        snug("run", "-d", *boot, "--name", "job", "--", "sh", "-c", "trap 'echo term; exit 9' TERM; echo ready; "
             "while :; do sleep 0.2; done", env=env).expect(0)
        try:
            follower = subprocess.Popen([SNUG, "logs", "-f", "job"], env=env, stdout=subprocess.PIPE)
            check(follower.stdout.readline() == b"ready\n", "its output does not come while it runs")
            snug("stop", "job", env=env).expect(0)
            # The shell may have a word to say about its sleep, too.
            check(b"term\n" in follower.communicate(timeout=BOUND)[0], "not what it printed last")
            snug("wait", "job", env=env).expect(9)
        finally:
            snug("rm", "-f", "job", env=env)
        err = snug("run", "-d", "-i", *boot, "--", "cat", env=env).expect(125).err
        check("snug exec -it" in err, "the message does not say what to do", err)


@test
def sandbox_console_of_a_command():
    """While it runs snug logs shows the console; when the guest panics its last lines are shown."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder}
        process = subprocess.Popen([SNUG, "run", "--name", "box", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", "-i", "--",
                                    "sh", "-c", "echo on the console >/dev/console; echo ready; read go; "
                                    "echo last words >/dev/kmsg; echo c >/proc/sysrq-trigger; sleep 1000"],
                                   env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            check(process.stdout.readline() == b"ready\n", "the command did not start")
            check("on the console" in snug("logs", "box", env=env).expect(0).out, "not the console")
            out, err = process.communicate(b"go\n", timeout=BOUND)
            check(process.returncode == 123 and out == b"", f"status {process.returncode}", out, err)
            check(b"the end of the guest's console:" in err and b"Kernel panic" in err, "no trace of the panic", err)
        finally:
            process.kill()
            process.wait()


@test
def sandbox_without_an_agent():
    """exec says what is missing, within its time, whether the guest refuses or has no driver at all."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder}
        try:
            for name, flags in (("bare", ["--kernel", TINY, "--initrd", INITRD, *on_console("sleep 1000")]),
                                ("blind", ["--kernel", STOCK, "--initrd", INITRD])):
                snug("run", "-d", "--name", name, "-m", "128M", *flags, env=env).expect(0)
            for process in [subprocess.Popen([SNUG, "exec", "--wait", "10s", name, "--", "true"], env=env, stderr=subprocess.PIPE)
                            for name in ("bare", "blind")]:
                err = process.communicate(timeout=BOUND)[1]
                check(process.returncode == 125 and b"nobody answers" in err and b"snug-agent" in err, "not what is missing", err)
            snug("pause", "bare", env=env).expect(0)
            err = snug("exec", "bare", "--", "true", env=env).expect(125).err
            check("snug resume bare" in err, "not what to do", err)
        finally:
            snug("kill", "bare", "blind", env=env)
        ended = snug("exec", "bare", "--", "true", env=env).expect(125)
        check("bare has ended" in ended.err, "not what has happened", ended.err)


@test
def sandbox_ready_and_after_a_reboot():
    """-d --wait returns when the agent answers; whoever comes while the guest boots anew is waited for. Meanwhile the streams of a
    user who is not root, a terminal whose input ends behind an unfinished line, and variables byte for byte."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder}
        value = b"a\n\t\xff,'\\ b"
        try:
            name = snug("run", "-d", "--wait", "--name", "box", "--kernel", TINY, "--initrd", INITRD, "-m", "64M",
                        "--boot-timeout", "300s", env=env).expect(0).out
            check(name == "box\n", "not the name", name)
            check(json.loads(snug("inspect", "box", env=env).out)["agent"] == "ready", "the agent has not called")
            ended = snug("exec", "--wait", "0", "-u", "1000:1000", "-e", b"VALUE=" + value, "box", "--", "sh", "-c",
                         'printf %s "$VALUE" | od -An -tx1 >/proc/self/fd/1; id -u >/proc/self/fd/2', env=env).expect(0)
            check(bytes.fromhex(ended.out) == value and ended.err == "1000\n", "not what was sent", ended.out, ended.err)
            typed = subprocess.run([SNUG, "exec", "-it", "box", "--", "cat"], env=env, input=b"abc", capture_output=True, timeout=BOUND)
            check(typed.returncode == 0 and b"abcabc" in typed.stdout, f"status {typed.returncode}", typed.stdout, typed.stderr)
            snug("exec", "box", "--", "sh", "-c", "reboot -f & exit 0", env=env)
            deadline = time.monotonic() + BOUND
            while json.loads(snug("inspect", "box", env=env).out)["boots"] < 2:
                check(time.monotonic() < deadline, "it does not reboot")
                time.sleep(0.02)
            check(snug("exec", "box", "--", "echo", "again", env=env).expect(0).out == "again\n", "not its answer")
        finally:
            snug("rm", "-f", "box", env=env)
        # One that ends before says why, with its status; one that is to leave nothing has the status all the same.
        for options, word in (["--name", "ended"], "panicked"), (["--rm"], "has ended"):
            ended = snug("run", "-d", "--wait", *options, "--kernel", TINY, "--initrd", INITRD, "-m", "64M",
                         "-a", "rdinit=/no/such/init init=/none", "--boot-timeout", "300s", env=env).expect(123)
            check(word in ended.err, "not the reason", ended.err)
        snug("rm", "ended", env=env)


@test
def sandbox_hostile_agent():
    """One in the guest, against exec and run: clear words, and the monitor is none the worse."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder}
        built = subprocess.run(["gcc", "-static", "-O1", "-Wall", "-Werror", "-o", folder + "/bad-agent",
                                os.path.dirname(__file__) + "/bad_agent.c"], capture_output=True, text=True)
        check(built.returncode == 0, "bad_agent.c", built.stderr)
        # Found before the initrd's own.
        boot = ["--kernel", TINY, "--initrd", INITRD, "--initrd", small_initrd(folder, {"sbin/snug-agent": folder + "/bad-agent"}),
                "-m", "64M", "--boot-timeout", "300s"]
        ended = snug("run", *boot, "--", "true", env=env).expect(125)
        check("the guest's agent" in ended.err, "not whose fault it is", ended.err)
        snug("run", "-d", "--name", "bad", *boot, env=env).expect(0)
        try:
            pid = json.loads(snug("inspect", "bad", env=env).expect(0).out)["pid"]
            snug("exec", "bad", "--", "true", env=env).expect(125)
            memory = monitor_kib(pid)
            said = ""
            for _ in range(20):
                said += snug("exec", "bad", "--", "true", env=env).expect(125).err
            for words in ("version 9", "cannot be", "more than it may", "closed the connection", "credit that cannot be"):
                check(words in said, f"nothing of {words!r}", said)
            # Floods at one that reads nothing.
            stopped = [subprocess.Popen([SNUG, "exec", "bad", "--", "true"], env=env, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL) for _ in range(14)]
            for process in stopped:
                process.send_signal(signal.SIGSTOP)
            check(json.loads(snug("inspect", "bad", env=env).expect(0).out)["state"] == "running", "not running")
            grown = monitor_kib(pid) - memory
            # 256 KiB of credit for each.
            check(grown < 8192, f"the monitor grew by {grown} KiB")
            for process in stopped:
                process.kill()
                process.wait()
            check(json.loads(snug("inspect", "bad", env=env).expect(0).out)["state"] == "running", "not running")
        finally:
            snug("rm", "-f", "bad", env=env)
