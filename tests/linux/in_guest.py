"""What snug exec, cp and shell do in every guest that has the agent. Each function works in a guest that runs already:
in the initrd's (sandbox.py) and in a whole Debian (debian.py)."""
import fcntl
import hashlib
import struct
import termios

from guests import *  # noqa: F403


class Reach:
    """A machine by its name, or the path of its socket. `prefix`: the command that makes another user run snug."""

    def __init__(self, machine, prefix=()):
        self.machine = machine
        self.prefix = list(prefix)

    def run(self, *words, flags=(), **keywords):
        return snug("exec", *flags, self.machine, "--", *words, prefix=self.prefix, **keywords)

    def started(self, *words, flags=()):
        return subprocess.Popen([*self.prefix, SNUG, "exec", *flags, self.machine, "--", *words], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def copy(self, source, destination):
        return snug("cp", source, destination, prefix=self.prefix)

    def terminal(self, command, *flags, words=()):
        return Terminal(command, *flags, self.machine, *(["--", *words] if words else []), prefix=self.prefix)

    def wait_for_agent(self):
        """The agent is started some time after whatever else says that the guest is there."""
        deadline = time.monotonic() + BOUND
        while (ended := self.run("true")).status != 0:
            check(time.monotonic() < deadline, "the agent does not answer", ended.err)
            time.sleep(0.2)


def commands(guest):
    ended = guest.run("sh", "-c", "echo out; echo err >&2; echo $A $(pwd); exit 5", flags=["-e", "A=b", "-w", "/tmp"])
    ended.expect(5)
    check(ended.out == "out\nb /tmp\n" and ended.err == "err\n", "odd output", ended.out, ended.err)
    guest.run("sh", "-c", "kill -9 $$").expect(137)
    check("no-such-command: not found" in guest.run("no-such-command").expect(127).err, "the message does not say so")
    check("/no/such" in guest.run("true", flags=["-w", "/no/such"]).expect(125).err, "the message does not say so")
    data = os.urandom(1 << 20)
    process = guest.started("cat", flags=["-i"])
    out, err = process.communicate(data, timeout=BOUND)
    check(process.returncode == 0 and hashlib.md5(out).digest() == hashlib.md5(data).digest(), "not what was sent", err)
    process = guest.started("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.2; done")
    try:
        check(process.stdout.readline() == b"ready\n", "the command did not start")
        process.terminate()
        check(process.wait(timeout=BOUND) == 9, f"SIGTERM gave status {process.returncode}")
    finally:
        process.kill()
        process.communicate()


def users(guest):
    words = guest.run("sh", "-c", "id -un; id -gn; echo $USER; pwd").expect(0).out.split()
    check(words == ["root", "root", "root", "/root"], f"not root at home: {words}")
    words = guest.run("sh", "-c", "id -u; id -un; echo $USER", flags=["-u", "nobody"]).expect(0).out.split()
    check(words == ["65534", "nobody", "nobody"], f"not nobody: {words}")
    words = guest.run("sh", "-c", "id -u; id -g; id -G; cat /etc/shadow 2>&1 || touch /root/new 2>&1 || echo kept out",
                      flags=["-u", "12345:678"]).expect(0).out
    check(words.startswith("12345\n678\n678\n") and words.endswith("kept out\n"), "not 12345:678", words)
    check("no user nobody-there" in guest.run("true", flags=["-u", "nobody-there"]).expect(125).err, "not the reason")


def copies(guest):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        os.makedirs(folder + "/tree/deep")
        with open(folder + "/tree/deep/file", "wb") as file:
            file.write(os.urandom(300_000))
        os.chmod(folder + "/tree/deep/file", 0o755)
        os.chmod(folder + "/tree/deep", 0o555)
        os.utime(folder + "/tree/deep", (1_000_000_000, 1_000_000_000))
        os.chmod(folder + "/tree", 0o775)
        os.symlink("deep/file", folder + "/tree/link")
        guest.copy(folder + "/tree", guest.machine + ":/root/there").expect(0)
        words = guest.run("sh", "-c", "cd /root/there; readlink link; stat -c '%a %Y' deep; stat -c %a . deep/file").out.split()
        check(words == ["deep/file", "555", "1000000000", "775", "755"], f"not as it was: {words}")
        guest.copy(guest.machine + ":/root/there", folder + "/back").expect(0)
        check(checksum(folder + "/back/deep/file") == checksum(folder + "/tree/deep/file"), "not what was sent")
        modes = [os.stat(folder + "/back" + name).st_mode & 0o777 for name in ("", "/deep", "/deep/file")]
        check(modes == [0o775, 0o555, 0o755], "modes are lost", [oct(mode) for mode in modes])
        err = guest.copy(guest.machine + ":/no/such", folder).expect(125).err
        check("/no/such: No such file" in err, "the message does not say so", err)
        err = guest.copy(folder + "/tree", guest.machine + ":/no/such/place").expect(125).err
        check("/no/such/place" in err, "the message does not say so", err)
        os.chmod(folder + "/back/deep", 0o755)
        copies_as_cp_has_them(guest, folder)


def copies_as_cp_has_them(guest, folder):
    there = guest.machine + ":"
    # Into a device, and what is read as a file: /proc has no sizes.
    guest.copy(folder + "/tree/deep/file", there + "/dev/null").expect(0)
    check(guest.run("stat", "-c", "%F", "/dev/null").expect(0).out == "character special file\n", "not /dev/null any more")
    guest.copy(there + "/proc/cpuinfo", folder + "/cpuinfo").expect(0)
    with open(folder + "/cpuinfo") as file:
        check("processor\t: 0" in file.read(), "not what cat shows")
    # What is in a folder, into one that is there.
    guest.run("mkdir", "/tmp/filled").expect(0)
    guest.copy(folder + "/tree/.", there + "/tmp/filled").expect(0)
    check(guest.run("ls", "/tmp/filled").expect(0).out == "deep\nlink\n", "not the contents")
    here = subprocess.run([*guest.prefix, SNUG, "cp", ".", there + "/tmp/filled"], cwd=folder + "/tree/deep", stderr=subprocess.PIPE)
    check(here.returncode == 0 and "file" in guest.run("ls", "/tmp/filled").expect(0).out.split(), "not this folder", here.stderr)
    # More than the guest has memory, and nothing in it.
    with open(folder + "/sparse", "wb") as file:
        file.write(b"begin")
        file.truncate(1 << 30)
    guest.copy(folder + "/sparse", there + "/tmp/sparse").expect(0)
    guest.copy(there + "/tmp/sparse", folder + "/returned").expect(0)
    returned = os.stat(folder + "/returned")
    check(returned.st_size == 1 << 30 and returned.st_blocks < 1 << 12, f"the hole is {returned.st_blocks} blocks")
    # A live tree: the rest arrives, what does not is named.
    ended = guest.copy(there + "/proc/sys/vm", folder + "/settings").expect(1)
    check("in the guest: /proc/sys/vm/drop_caches" in ended.err, "nothing is named", ended.err)
    with open(folder + "/settings/overcommit_memory") as file:
        check(file.read() in ("0\n", "1\n", "2\n"), "the rest has not arrived")
    guest.run("rm", "-r", "/tmp/filled", "/tmp/sparse").expect(0)
    # A full disk is said, and leaves no half of a file.
    guest.run("sh", "-c", "mkdir /tmp/small && mount -t tmpfs -o size=1m tmpfs /tmp/small").expect(0)
    with open(folder + "/large", "wb") as file:
        file.write(os.urandom(3 << 20))
    ended = guest.copy(folder + "/large", there + "/tmp/small").expect(125)
    check("/tmp/small/large: No space left" in ended.err, "the message does not say so", ended.err)
    check(guest.run("ls", "-A", "/tmp/small").expect(0).out == "", "half a file is left")
    guest.run("umount", "/tmp/small").expect(0)


def place_to_work(guest):
    """What every Linux has."""
    out = guest.run("sh", "-c", '''
        ping -c 1 -W 10 localhost >/dev/null || echo no localhost
        echo err >/dev/stderr; echo out >/dev/stdout; echo in | cat /dev/stdin; echo fd | cat /dev/fd/0
        stat -c '%n %a' /tmp /var/tmp /dev/shm /dev/pts /dev/null /root
        [ -d /run ] && grep -q . /etc/mtab && /usr/bin/env true && grep -c devpts /proc/mounts''').expect(0)
    check(out.out == "out\nin\nfd\n/tmp 1777\n/var/tmp 1777\n/dev/shm 1777\n/dev/pts 755\n/dev/null 666\n/root 700\n1\n",
          "not what every Linux has", out.out, out.err)
    check(out.err == "err\n", "not on stderr", out.err)


def terminals_at_once(guest):
    processes = [guest.started("tty", flags=["-t"]) for _ in range(20)]
    names = [process.communicate(timeout=2 * BOUND) for process in processes]
    check(all(process.returncode == 0 for process in processes) and
          all(re.fullmatch(rb"/dev/pts/\d+\r\n", out) for out, _ in names), "not all on a terminal", names)


def kill_everything(guest):
    """The session is lost, and only that."""
    ended = guest.run("sh", "-c", "kill -9 -1; kill -9 $$")
    check(ended.status in (125, 137), f"status {ended.status}", ended.err)
    check(guest.run("echo", "alive").expect(0).out == "alive\n", "the machine does not live")


def shell(guest, prompt=b"# "):
    """A login shell on a terminal: its size from the start and as it changes, Ctrl-C, its status."""
    with guest.terminal("shell") as terminal:
        terminal.wait_for(prompt)
        terminal.expect_raw()
        check(terminal.settings()[1] & termios.OPOST == 0, "what the guest's terminal has made ready is processed again")
        fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 45, 67, 0, 0))
        terminal.type(b"while [ \"$(stty size)\" != '45 67' ]; do sleep 0.1; done; echo si''zed\r", until=b"sized")
        # Printed by what is to be interrupted: a shell that has not started it yet may miss a Ctrl-C.
        terminal.type(b"tty; sh -c 'echo sle\"\"eping; exec sleep 1000'\r", until=b"sleeping")
        check(b"/dev/pts/" in terminal.screen, "not on a terminal", terminal.screen)
        terminal.type(b"\x03")
        terminal.type(b"echo st''atus $?\r", until=b"status 130")
        terminal.type(b"exit 6\r")
        terminal.expect_end(6)


def commands_on_a_terminal(guest):
    with guest.terminal("exec", "-it", words=["sh", "-c", "echo re''ady; exec cat"]) as terminal:
        terminal.wait_for(b"ready")
        terminal.stop_and_go(signal.SIGTSTP, restores=True)
        terminal.stop_and_go(signal.SIGSTOP, restores=False)
        terminal.type(b"goes on\r", until=b"goes on\r\ngoes on")
        terminal.type(b"\x04")
        terminal.expect_end(0)
    with guest.terminal("exec", "-it", words=["sh", "-c", "printf 'a\\nb\\n'; exit 3"]) as terminal:
        terminal.expect_end(3)
        check(terminal.screen == b"a\r\nb\r\n", "lines that end oddly", repr(terminal.screen))
    with guest.terminal("exec", "-it", words=["sleep", "1000"]) as terminal:
        while not terminal.is_raw() and terminal.process.poll() is None:
            terminal.poll(0.1)
        terminal.type(b"\x1d\x1d\x1d")
        terminal.expect_end(125)
        check(b"left by" in terminal.screen, "Ctrl-] does not say so", terminal.screen)


def debian(machine, prefix=()):
    """All of it in a Debian with systemd, which has accounts, and an agent that is started again when it dies."""
    guest = Reach(machine, prefix)
    guest.wait_for_agent()
    commands(guest)
    users(guest)
    copies(guest)
    shell(guest)
    commands_on_a_terminal(guest)
    guest.run("useradd", "-m", "-s", "/bin/bash", "-G", "adm,audio", "dev").expect(0)
    words = guest.run("sh", "-c", "id -un; id -Gn; pwd; echo $HOME $USER $LOGNAME $SHELL", flags=["-u", "dev"]).expect(0).out
    check(words == "dev\ndev adm audio\n/home/dev\n/home/dev dev dev /bin/bash\n", "not the account dev", words)
    with guest.terminal("shell", "-u", "dev", "-w", "/tmp", "-e", "GREETING=hello") as terminal:
        terminal.wait_for(b"$ ")
        terminal.type(b"echo $(id -un):$(pwd):$GREETING:$(tty | cut -c 1-9); exit 4\r")
        terminal.expect_end(4)
        check(b"dev:/tmp:hello:/dev/pts/" in terminal.screen, "not a shell of dev's", terminal.screen)
    main = ["systemctl", "show", "-p", "MainPID", "--value", "snug-agent"]
    before = guest.run(*main).expect(0).out
    guest.run("systemctl", "kill", "-s", "KILL", "--kill-who=main", "snug-agent")
    guest.wait_for_agent()
    check(guest.run(*main).expect(0).out not in ("0\n", before), "not another agent", before)
