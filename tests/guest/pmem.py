"""Files that are memory of a guest: what one writes, the other reads; what may not be written; what is gone."""
import shutil

from micro import *  # noqa: F403

MIB = 1 << 20


class Guest:
    """The micro-guest `pmem` with a file, spoken to over its serial port; and a disk of a sector's use."""

    def __init__(self, folder, *options, size=4 * MIB, flags=()):
        self.path, self.disk = folder + "/pmem.img", folder + "/disk.img"
        if not os.path.exists(self.path):
            with open(self.path, "wb") as file:
                file.write(b"12345678" * 512)
                file.truncate(size)
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [SNUG, "run", "--kernel", MICRO + "/pmem.elf", "--timeout", "120s", *flags, "--disk", self.disk, "--disk",
             ",".join((self.path, "mode=pmem", *options))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        self.size = self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()
        self.log.close()

    def errors(self):
        self.log.seek(0)
        return self.log.read().decode()

    def answer(self):
        line = self.process.stdout.readline().decode().strip()
        check(line, "the guest has ended", self.errors())
        return line

    def ask(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self.answer()

    def say(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def expect_end(self, status, text):
        self.process.wait(timeout=BOUND)
        Ended(self.process.returncode, b"", self.errors().encode()).expect(status)
        check(text in self.errors(), f"nothing about {text!r}", self.errors())

    def file(self, offset, count):
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(count)


def numbered(text):
    return int(text.rpartition(" ")[2], 16)


FIRST = int.from_bytes(b"12345678", "little")


@test
def pmem_is_the_file():
    with folder_with_peer(None) as (folder, _), Guest(folder) as guest:
        check(numbered(guest.size) == 4 * MIB, "another size", guest.size)
        check(numbered(guest.ask("read 8")) == FIRST, "not the file's bytes")
        check(guest.ask("write 1ffff8 1122334455667788") == "written", "not written")
        check(guest.file(0x1ffff8, 8)[::-1].hex() == "1122334455667788", "the file does not have what the guest wrote")
        check(numbered(guest.ask("flush")) == 0, "a flush fails")
        with open(guest.path, "r+b") as file:
            file.seek(0x3ffff8)
            file.write(bytes(range(8)))
        check(numbered(guest.ask("read 3ffff8")) == 0x0706050403020100, "the guest does not see what the file has")
        guest.say("quit")
        guest.expect_end(0, "")


@test
def pmem_is_memory_for_devices():
    with folder_with_peer(None) as (folder, _), Guest(folder) as guest:
        check(numbered(guest.ask("out 0")) == 0, "a disk cannot read from it")
        with open(guest.disk, "rb") as disk:
            check(disk.read(512) == b"12345678" * 64, "the disk has something else")
        check(numbered(guest.ask("in 2ffe00")) == 0, "a disk cannot write to it")
        check(guest.file(0x2ffe00, 512) == b"12345678" * 64, "the file has something else")
        check(guest.ask("in 3fff00") == "needs reset", "a transfer over its end is taken")
        check(numbered(guest.ask("out 3ffe00")) == 0, "the disk does not work again")


@test
def pmem_read_only_is_not_written():
    with folder_with_peer(None) as (folder, _):
        with open(folder + "/pmem.img", "wb") as file:
            file.write(b"12345678" * 600)
        os.chmod(folder + "/pmem.img", 0o444)
        with Guest(folder, "readonly=true") as guest:
            check(numbered(guest.size) == 2 * MIB, "not filled up to what Linux wants", guest.size)
            check(numbered(guest.ask("read 0")) == FIRST and numbered(guest.ask("read 1ffff8")) == 0, "odd content")
            check(numbered(guest.ask("flush")) == 0, "a flush of nothing fails")
            for offset in (0, 8, 0x1000, 0x1ffff8):
                guest.ask(f"write {offset:x} ffff")
            check(numbered(guest.ask("read 0")) == FIRST, "the guest has written")
            check(guest.file(0, 4800) == b"12345678" * 600, "the file is another one")
            check(numbered(guest.ask("flush")) == 0xffffffff, "a flush of what was refused is done")
            check(numbered(guest.ask("flush")) == 0, "each flush fails")
            check(guest.errors().count("can only read") == 1, "said not once", guest.errors())
            check(numbered(guest.ask("out 0")) == 0, "a disk cannot read from it")
            check(guest.ask("in 0") == "needs reset", "a disk may write to it")
            check(guest.file(0, 4800) == b"12345678" * 600, "the file is another one")
            check("nobody may write to" in guest.errors(), "the log does not say why", guest.errors())


@test
def pmem_whose_file_is_cut_off_ends_the_machine():
    for jail in ("auto" if jail_missing() else "require", "off"):
        # By the guest itself; by a device that works on its behalf.
        for access in ("read 3ff000", "write 3ff000 1", "head 3ff000"):
            with folder_with_peer(None) as (folder, _), Guest(folder, flags=("--jail", jail)) as guest:
                os.truncate(guest.path, 2 * MIB)
                check(numbered(guest.ask("read 0")) == FIRST, "what is left is gone too")
                guest.say(access)
                guest.expect_end(125, "has become shorter")
                check(guest.path in guest.errors(), "the message does not name the file", guest.errors())
        with folder_with_peer(None) as (folder, _), Guest(folder, flags=("--jail", jail)) as guest:
            os.truncate(guest.path, 2 * MIB)
            check(numbered(guest.ask("out 3ff000")) == 1, "a disk reads what is not there")


@test
def pmem_that_cannot_be_is_refused():
    with folder_with_peer(None) as (folder, _):
        path = folder + "/odd.img"
        with open(path, "wb") as file:
            file.truncate(5000)
        for options, words in (("", "truncate -s %2M"), (",readonly=true,direct=true", "direct does not go with"),
                               (",ephemeral=true,readonly=false", "ephemeral does not go with"),
                               (",readonly=true,queues=2,serial=a", "serial does not go with")):
            ended = snug("run", "--kernel", MICRO + "/hello.elf", "--disk", f"{path},mode=pmem{options}").expect(125)
            check(words in ended.err, f"nothing about {words!r}", ended.err)
        with open(folder + "/vm.yaml", "w") as spec:
            spec.write(f"kernel: {MICRO}/hello.elf\ndisks:\n  - path: odd.img\n    mode: pmem\n    thread: true\n")
        ended = snug("validate", folder + "/vm.yaml").expect(1)
        check("vm.yaml:5:13: disks[0].thread: thread does not go" in ended.err and "vm.yaml:3:11: disks[0].path: " in ended.err,
              "the place is missing", ended.err)


@test
def pmem_of_two_machines():
    """Readers share a file, a writer has it alone."""
    with folder_with_peer(None) as (folder, _), Guest(folder, "readonly=true") as first:
        os.mkdir(folder + "/other")
        for name in ("pmem.img", "disk.img"):
            (os.link if name == "pmem.img" else shutil.copy)(f"{folder}/{name}", f"{folder}/other/{name}")
        with Guest(folder + "/other", "readonly=true") as second:
            check(numbered(second.ask("read 0")) == numbered(first.ask("read 0")) == FIRST, "not the same")
        ended = snug("run", "--kernel", MICRO + "/hello.elf", "--disk", first.path + ",mode=pmem").expect(125)
        check("in use" in ended.err, "the message does not say so", ended.err)


@test
def pmem_is_reset_with_its_ring_full():
    with folder_with_peer(None) as (folder, _), Guest(folder) as guest:
        rounds = 0x200
        answered = numbered(guest.ask(f"storm {rounds:x}"))
        print(f"    {answered} flushes answered before {rounds} resets")
        check(numbered(guest.ask("flush")) == 0, "it does not flush any more")
        for page in (0, 1, 255):
            check(int.from_bytes(guest.file(page * 4096, 8), "little") == rounds - 256 + page, "the file lacks what was written", page)
        check(numbered(guest.ask("out 0")) == 0, "a disk cannot read from it any more")
        # The slot goes with the machine, and the next one has it again.
        for number in range(20):
            check(guest.ask(f"write 2000 {number:x}") == "written", "not written")
            guest.say("reboot")
            check(numbered(guest.answer()) == 4 * MIB, "another size")
            check(numbered(guest.ask("read 2000")) == number, "lost with the reset")
            check(numbered(guest.ask("flush")) == 0, "it does not flush any more")
        guest.say("quit")
        guest.expect_end(0, "")


@test
def pmem_read_only_is_reset_with_its_ring_full():
    with folder_with_peer(None) as (folder, _), Guest(folder, "readonly=true") as guest:
        before = guest.file(0, 4 * MIB)
        guest.ask("storm 40")
        guest.ask("flush")
        check(numbered(guest.ask("flush")) == 0, "it does not answer any more")
        guest.say("reboot")
        check(numbered(guest.answer()) == 4 * MIB and numbered(guest.ask("read 0")) == FIRST, "not there again")
        check(guest.file(0, 4 * MIB) == before, "the file is another one")
