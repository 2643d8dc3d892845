"""Machines that are saved and begin again where they stood; and snapshots that are none."""
import functools
import hashlib
import json
import lzma
import random
import shutil
import struct
import zlib

from life import Place
from micro import *  # noqa: F403


class Snapshots(Place):
    """A place with snapshots of its own."""

    def __enter__(self):
        super().__enter__()
        self.data = tempfile.TemporaryDirectory()
        self.env["XDG_DATA_HOME"] = self.data.name
        return self

    def __exit__(self, *arguments):
        super().__exit__(*arguments)
        self.data.cleanup()

    def path(self, snapshot, file=""):
        return f"{self.data.name}/snug/snapshots/{snapshot}/{file}"

    def saved(self, *flags):
        """The name of a snapshot of a guest that echoes."""
        self.start("echo", "--name", "first", *flags)
        self.wait_log("first", "echo ready")
        self.snug("snapshot", "first", "s").expect(0)
        self.snug("kill", "first").expect(0)
        return "s"

    def goes_on(self, snapshot, *flags):
        """Whether a guest that begins there answers. (A byte each: nothing is lost on the way.)"""
        ended = self.snug("restore", snapshot, *flags, stdin=text_pipe("more\4"))
        return ended.status == 0 and ended.out == "more\4"


def text_pipe(text):
    read_end, write_end = os.pipe()
    os.write(write_end, text.encode())
    os.close(write_end)
    return read_end


@test
def a_machine_is_saved_and_begins_again():
    with Snapshots() as place:
        place.start("echo", "--name", "first", "--memory", "64M")
        place.wait_log("first", "echo ready")
        ended = place.snug("snapshot", "first").expect(0)
        check(ended.out == "first\n" and "stood still" in ended.err, "nothing is said of it", ended)
        check(place.row("first")["state"] == "running", "it does not run on")
        listed = [json.loads(line) for line in place.snug("snapshot", "list", "--json").expect(0).out.splitlines()]
        check(len(listed) == 1 and listed[0]["machine"] == "first" and listed[0]["memory_bytes"] == 64 << 20, "not listed", listed)
        check(listed[0]["disk_bytes"] < 4 << 20, "zeros are on the disk", listed)
        check(os.stat(place.path("first")).st_mode & 0o777 == 0o700, "others may read it")
        # Beside the one that it is of, under a name of its own, as often as one likes.
        for _ in range(3):
            check(place.goes_on("first"), "it does not go on")
        restored = place.snug("restore", "-d", "first", "--name", "second").expect(0).out.strip()
        check(restored == "second" and place.row("second")["state"] == "running", "not in the background")
        # One of one.
        place.snug("snapshot", "second", "third").expect(0)
        place.snug("kill", "first", "second").expect(0)
        check(place.goes_on("third"), "a snapshot of one that was restored does not go on")
        place.snug("snapshot", "rm", "first", "third").expect(0)
        check(os.listdir(place.path("")) == [], "something is left", os.listdir(place.path("")))


@test
def a_paused_machine_is_saved_and_stays_paused():
    with Snapshots() as place:
        place.start("echo", "--name", "p")
        place.wait_log("p", "echo ready")
        place.snug("pause", "p").expect(0)
        place.snug("snapshot", "p").expect(0)
        check(place.row("p")["state"] == "paused", "it runs", place.row("p"))
        place.snug("kill", "p").expect(0)
        check(place.goes_on("p"), "what was saved in a pause does not go on")


@test
def a_share_that_nobody_has_mounted_is_saved():
    with Snapshots() as place:
        os.mkdir(place.data.name + "/shared")
        place.saved("--memory", "64M", "-v", place.data.name + "/shared:/work")
        check(os.stat(place.path("s", "memory")).st_blocks * 512 < 4 << 20, "zeros are on the disk")
        for _ in range(2):
            check(place.goes_on("s"), "it does not go on")
        os.rmdir(place.data.name + "/shared")
        ended = place.snug("restore", "s").expect(125)
        check("/shared" in ended.err and "no such folder" in ended.err, "odd words", ended.err)


@test
def what_cannot_be_saved_is_said():
    with Snapshots() as place:
        place.start("echo", "--name", "m")
        place.wait_log("m", "echo ready")
        place.snug("snapshot", "m").expect(0)
        taken = place.snug("snapshot", "m").expect(125)
        check("already" in taken.err and "snapshot rm m" in taken.err, "odd words", taken.err)
        for name in ("a b", ".hidden", "x" * 65):
            check("is called by" in place.snug("snapshot", "m", name).expect(125).err, "odd words")
        check("no machine named nobody" in place.snug("snapshot", "nobody").expect(125).err, "odd words")
        check("there is no snapshot 'nothing'" in place.snug("restore", "nothing").expect(125).err, "odd words")
        check("which machine" in place.snug("snapshot").expect(125).err, "odd words")
        place.snug("snapshot", "m", place.data.name + "/else").expect(0)
        check(place.goes_on(place.data.name + "/else"), "a path does not do")
        # Nothing half-made.
        check(sorted(os.listdir(place.path(""))) == ["m"], "left over", os.listdir(place.path("")))
        place.snug("kill", "m").expect(0)
        late = place.snug("snapshot", "m", "late").expect(125).err
        check("m has ended" in late, "odd words", late)


@test
def a_full_disk_leaves_no_snapshot():
    with Snapshots() as place:
        place.start("echo", "--name", "m", "--memory", "16M")
        place.wait_log("m", "echo ready")
        small = f"mount -t tmpfs -o size=64k small {place.data.name} && {{ \"$0\" snapshot m; status=$?; find {place.data.name} -type f; exit $status; }}"
        ended = subprocess.run(["unshare", "-Urm", "sh", "-c", small, SNUG], env=place.env, capture_output=True, text=True, timeout=BOUND)
        if "unshare" in ended.stderr:
            raise Skip("needs user namespaces: " + ended.stderr.strip())
        check(ended.returncode == 125 and "No space left" in ended.stderr, "odd words", ended.returncode, ended.stderr)
        check(ended.stdout == "", "something is left", ended.stdout)
        check(place.row("m")["state"] == "running", "the machine has suffered")


@test
def memory_that_changes_all_the_time_is_of_one_moment():
    with Snapshots() as place:
        os.mkdir(place.data.name + "/shared")
        for kind, flags in (("one process", ()), ("two processes", ("-v", place.data.name + "/shared:/work"))):
            name = f"r{len(flags)}"
            place.start("rounds", "--name", name, "--memory", "64M", *flags)
            place.wait_log(name, "rounds ready")
            for _ in range(3):
                place.snug("snapshot", name).expect(0)
                ended = place.snug("restore", name, stdin=text_pipe("x"))
                check(ended.status == 0 and ended.out.split() == ["xwhole"], f"memory of {kind}: of several moments", ended)
                # One of one, too.
                place.snug("restore", "-d", name, "--name", "again").expect(0)
                place.snug("snapshot", "again").expect(0)
                ended = place.snug("restore", "again", stdin=text_pipe("x"))
                check(ended.status == 0 and ended.out.split() == ["xwhole"], f"memory of {kind}, restored: of several moments", ended)
                place.snug("kill", "again").expect(0)
                place.snug("snapshot", "rm", name, "again").expect(0)
            place.snug("kill", name).expect(0)


# --- disks ---------------------------------------------------------------------------------------------------


def sha(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


class Disks(Snapshots):
    """With a disk of 8 MiB, the last part of a sector included, of which one holds something."""

    def __enter__(self):
        super().__enter__()
        self.disk = self.data.name + "/disk.img"
        with open(self.disk, "wb") as disk:
            disk.truncate((8 << 20) - 100)
            disk.seek(3 << 20)
            disk.write(os.urandom(1 << 20))
        return self


@test
def a_disk_is_saved_with_its_machine():
    with Disks() as place:
        place.saved("--disk", place.disk)
        copy = place.path("s", "disk1")
        with open(copy, "rb") as saved, open(place.disk, "rb") as disk:
            check(saved.read() == disk.read() + bytes(100), "the copy is another")
        check(os.stat(copy).st_blocks * 512 < 2 << 20, "holes are on the disk")
        check(os.stat(copy).st_mode & 0o777 == 0o600, "others may read it")
        before = sha(copy)
        # The disk itself is nobody's any more.
        os.unlink(place.disk)
        ended = place.snug("restore", "s", stdin=text_pipe("more\4")).expect(0)
        check("gone when it ends" in ended.err, "it is not said what becomes of its disk", ended.err)
        # Side by side, and one of one: it has the same file, which takes no more room.
        for name in ("a", "b"):
            place.snug("restore", "-d", "s", "--name", name).expect(0)
        place.snug("snapshot", "a", "t").expect(0)
        check(os.path.samefile(copy, place.path("t", "disk1")), "a copy of what nobody changes")
        check(os.path.exists(place.path("t", "overlay1")), "what the second had written is not there")
        place.snug("kill", "a", "b").expect(0)
        place.snug("snapshot", "rm", "s").expect(0)
        check(place.goes_on("t"), "a snapshot of one that was restored does not go on")
        check(sha(place.path("t", "disk1")) == before, "somebody has written to it")


@test
def an_ephemeral_disk_needs_what_is_below_it():
    with Disks() as place:
        place.saved("--disk", place.disk + ",ephemeral=true", "--disk", place.disk + ",readonly=true")
        check(not os.path.exists(place.path("s", "disk1")), "a disk that is elsewhere is copied")
        check(place.goes_on("s"), "it does not go on")
        was = os.stat(place.disk).st_mtime_ns
        os.utime(place.disk, ns=(was, was + 5))
        ended = place.snug("restore", "s").expect(125)
        check("written to after the snapshot" in ended.err and len(ended.err.splitlines()) == 1, "odd words", ended.err)
        # As it says.
        advice = re.search(r"(touch -d \S+ \S+)", ended.err).group(1)
        subprocess.run(advice.split(), check=True)
        check(place.goes_on("s"), "its advice does not help")
        with open(place.disk, "ab") as disk:
            disk.write(bytes(4096))
        check("not the one" in place.snug("restore", "s").expect(125).err, "odd words")
        os.unlink(place.disk)
        check("No such file" in place.snug("restore", "s").expect(125).err, "odd words")


@test
def overlays_that_are_none_end_in_one_line():
    with Disks() as place:
        place.saved("--disk", place.disk + ",ephemeral=true")
        good = open(place.path("s", "overlay1"), "rb").read()
        head = 8 << 20
        for what, bad in {"nothing": b"", "cut": good[:-1], "longer": good + b"x", "no magic": good[:head] + bytes(4096) + good[head + 4096:],
                          "later": good[:head + 8] + b"\2" + good[head + 9:]}.items():
            with open(place.path("s", "overlay1"), "wb") as file:
                file.write(bad)
            ended = place.snug("restore", "s").expect(125)
            check("overlay" in ended.err and len(ended.err.splitlines()) == 1, f"{what}: odd words", ended.err)
        os.unlink(place.path("s", "overlay1"))
        check("overlay1" in place.snug("restore", "s").expect(125).err, "it goes on without")
        # A spec that was changed: no machine may write to a disk of another moment.
        spec = open(place.path("s", "spec.yaml")).read()
        with open(place.path("s", "spec.yaml"), "w") as out:
            out.write(spec.replace("ephemeral: true", "ephemeral: false"))
        check("another moment" in place.snug("restore", "s").expect(125).err, "it writes to it")


@test
def a_file_that_is_memory_and_written_to_is_refused():
    with Disks() as place:
        os.truncate(place.disk, 8 << 20)
        place.start("echo", "--name", "m", "--disk", place.disk + ",mode=pmem")
        ended = place.snug("snapshot", "m").expect(125)
        check("mode: pmem" in ended.err and place.disk in ended.err, "odd words", ended.err)
        check(os.listdir(place.path("")) == [], "left over", os.listdir(place.path("")))


def under_load(flags, requests):
    """A guest that is saved while its devices work, and what becomes of it and of those that go on. (At once: on a software
    KVM the guest's clock counts the time on disk, and it waits for a request for 20 s.)"""
    with Disks() as place:
        place.start("virtio-bench", "--name", "first", "--memory", "64M", "--cmdline", f"requests={requests} requests_alone=100",
                    "--disk", place.disk + flags)
        place.wait_log("first", "bench: blk-write 4096 1 ")
        for snapshot in "st":
            taken = place.snug("snapshot", "first", snapshot)
            if snapshot != "s" and place.row("first")["state"] != "running":
                break  # it was quicker
            taken.expect(0)
            ended = place.snug("restore", snapshot).expect(0)
            check("bench: done" in ended.out, "the load does not go on", ended.out, ended.err)
        place.snug("wait", "first").expect(0)


for number, chosen in enumerate((("", 4000), (",ephemeral=true", 100000), (",thread=true", 4000), (",io=threads", 10000))):
    add(f"a_disk_is_saved_under_load_{number}", functools.partial(under_load, *chosen))


@test
def a_full_disk_takes_no_copy_of_one():
    with Disks() as place:
        place.start("echo", "--name", "m", "--memory", "16M", "--disk", place.disk)
        place.wait_log("m", "echo ready")
        small = (f"mount -t tmpfs -o size=800k small {place.data.name} && {{ \"$0\" snapshot m; status=$?; "
                 f"find {place.data.name} -type f; exit $status; }}")
        ended = subprocess.run(["unshare", "-Urm", "sh", "-c", small, SNUG], env=place.env, capture_output=True, text=True, timeout=BOUND)
        if "unshare" in ended.stderr:
            raise Skip("needs user namespaces: " + ended.stderr.strip())
        check(ended.returncode == 125 and "copy of a disk" in ended.stderr and "No space" in ended.stderr, "odd words", ended.stderr)
        check(ended.stdout == "" and place.row("m")["state"] == "running", "something is left, or the machine has suffered", ended.stdout)


# --- on their way to elsewhere -----------------------------------------------------------------------------------


@test
def a_snapshot_goes_through_a_pipe():
    with Disks() as place:
        other = place.data.name + "/other.img"
        shutil.copyfile(place.disk, other)
        place.saved("--disk", place.disk, "--disk", other + ",ephemeral=true", "--memory", "64M")
        sent = place.data.name + "/sent"
        place.snug("snapshot", "export", "s", sent).expect(0)
        check(os.stat(sent).st_mode & 0o777 == 0o600 and os.stat(sent).st_size < 4 << 20, "holes are sent, or others may read it")
        check("File exists" in place.snug("snapshot", "export", "s", sent).expect(125).err, "another file is overwritten")
        both = subprocess.run(["sh", "-c", '"$0" snapshot export s - | "$0" snapshot import - piped', SNUG], env=place.env,
                              capture_output=True, text=True, timeout=BOUND)
        check(both.returncode == 0 and both.stdout == "piped\n", "it does not go through a pipe", both.stderr)
        check(sorted(os.listdir(place.path("s"))) == sorted(os.listdir(place.path("piped"))), "another snapshot")
        for file in os.listdir(place.path("s")):
            check(sha(place.path("s", file)) == sha(place.path("piped", file)), f"{file} is another")
            check(os.stat(place.path("piped", file)).st_blocks <= os.stat(place.path("s", file)).st_blocks + 64, f"{file} has no holes")
        check(place.goes_on("piped"), "it does not go on")
        check("already" in place.snug("snapshot", "import", sent).expect(125).err, "odd words")
        place.snug("snapshot", "rm", "s").expect(0)
        check(place.snug("snapshot", "import", sent).expect(0).out == "s\n" and place.goes_on("s"), "not by its own name")
        check("there is no snapshot" in place.snug("snapshot", "export", "nobody", "-").expect(125).err, "odd words")
        full = place.snug("snapshot", "export", "s", "/dev/full").expect(125)
        check("No space left" in full.err, "odd words", full.err)


def record(kind, a, body=b""):
    head = struct.pack("<BQI", kind, a, len(body)) + body
    return head + struct.pack("<I", zlib.crc32(head))


@test
def streams_that_are_no_snapshot_end_in_one_line():
    chance = random.Random(3)
    with Snapshots() as place:
        place.saved("--memory", "16M")
        sent, bad = place.data.name + "/sent", place.data.name + "/bad"
        place.snug("snapshot", "export", "s", sent).expect(0)
        good = open(sent, "rb").read()
        head = b"snugsend" + struct.pack("<IB", 1, 1) + b"n"
        files = record(1, 1, b"spec.yaml") + record(2, 0, b"{") + record(1, 4, b"state") + record(1, 4096, b"memory")

        def refused(what, stream, words="", name=("n",)):
            with open(bad, "wb") as file:
                file.write(stream)
            ended = place.snug("snapshot", "import", bad, *name)
            check(ended.status == 125 and len(ended.err.splitlines()) == 1 and words in ended.err, f"{what}: not one line, or odd words",
                  ended.status, ended.err)
            check(os.listdir(place.path("")) == ["s"], f"{what}: something is left", os.listdir(place.path("")))

        for at in [0, 1, 12, 13, len(good) - 1] + [chance.randrange(len(good)) for _ in range(80)]:
            refused(f"cut at {at}", good[:at])
        for at in [8, 12] + [14 + chance.randrange(len(good) - 14) for _ in range(100)]:
            changed = bytearray(good)
            changed[at] ^= 1 << chance.randrange(8)
            refused(f"byte {at} changed", bytes(changed))
        for what, stream in {"nothing": b"", "text": b"hello\n" * 100, "a state": open(place.path("s", "state"), "rb").read()}.items():
            refused(what, stream)
        refused("a later format", b"snugsend" + struct.pack("<IB", 3, 1) + b"n", "format 3")
        refused("a path for a name", b"snugsend" + struct.pack("<IB", 1, 6) + b"../out" + files + record(3, 3), "no name", ())
        refused("an option for a name", b"snugsend" + struct.pack("<IB", 1, 2) + b"-x" + files + record(3, 3), "is called", ())
        for name in (b"../out", b"/etc/passwd", b"disk17", b"disk0", b"overlay", b"", b"state\0", b"x" * 300):
            refused(f"a file {name}", head + record(1, 1, name), "no file")
        refused("a file twice", head + files + record(1, 4, b"state"), "twice")
        refused("too large", head + record(1, 1 << 40, b"spec.yaml"), "are the most")
        refused("far too large", head + record(1, (1 << 64) - 1, b"memory"), "are the most")
        refused("no disk has so much", head + record(1, 1 << 60, b"memory"))
        refused("data before a file", head + record(2, 0, b"x"), "belong nowhere")
        for at, body in ((4096, b"x"), (4095, b"xx"), ((1 << 64) - 1, b"xx"), (0, b"")):
            refused(f"data at {at}", head + files + record(2, at, body), "belong nowhere")
        refused("data backwards", head + files + record(2, 10, b"xx") + record(2, 11, b"x"), "belong nowhere")
        refused("a record of another kind", head + files + record(4, 0), "kind 4")
        # What a machine that runs while it is sent has besides.
        head2 = b"snugsend" + struct.pack("<IB", 2, 1) + b"n"
        for what, bad_record in {"pages behind the memory": record(4, 4095, b"xx"), "pages far behind it": record(4, (1 << 64) - 1, b"xx"),
                                 "zeros without end": record(5, 0, struct.pack("<Q", 1 << 60)), "zeros behind it": record(5, 4096, struct.pack("<Q", 1)),
                                 "zeros of no number": record(5, 0, b"x"), "facts too late": record(6, 0, b"{}"), "another kind": record(7, 0)}.items():
            refused(what, head2 + files + bad_record + record(3, 3))
        for what, bad_record in {"pages of no file": record(4, 0, b"x"), "zeros of no file": record(5, 0, struct.pack("<Q", 1))}.items():
            refused(what, head2 + bad_record + files + record(3, 3))
        refused("pages of another file", head2 + record(1, 4, b"state") + record(4, 0, b"xx") + files + record(3, 3))
        for facts in (b"", b"[", b"5", b"{}" * 2, b"{\"cpu\": 7}", b"{" * 100_000):
            with open(bad, "wb") as file:
                file.write(head2 + record(6, 0, facts) + files + record(3, 3))
            with open(bad, "rb") as stream:
                ended = place.snug("receive", "--name", "m", stdin=stream)
            check(ended.status == 125 and len(ended.err.splitlines()) == 1, f"facts {facts[:10]}: not one line", ended.status, ended.err)
        refused("a long record", head + struct.pack("<BQI", 2, 0, 0xffffffff), "changed on its way")
        refused("files are missing", head + record(1, 4, b"state") + record(3, 1), "no spec.yaml")
        refused("another count", head + files + record(3, 4), "missing")
        # Whole as a stream, and yet nothing to begin with.
        with open(bad, "wb") as file:
            file.write(head + files + record(3, 3))
        place.snug("snapshot", "import", bad).expect(0)
        check(place.snug("restore", "n").expect(125).err.count("\n") == 1, "not one line")


# --- snapshots of before ------------------------------------------------------------------------------------------

# Each of a release's format, as its export wrote it: golden/GUEST-NUMBER.snap.xz. They are never made anew: a snapshot that was
# written once is read for ever. A new one is added when a section gets another version.
GOLDEN = os.path.dirname(os.path.abspath(__file__)) + "/golden/"

# Of a vCPU's section, what comes before registers that are as large as the CPU has them, its MSRs and what it is: KVM's
# structures for its state of running, registers, special ones, debug registers, XCRs, local APIC and events.
VCPU_FIXED = 4 + 144 + 312 + 128 + 392 + 1024 + 64


def replaced(state, name, content):
    """The state with another section of that name."""
    for at, size, found in sections(state):
        if found == name:
            body = at + 8 + len(name)
            state = bytearray(state[:body] + content + state[body + size:])
            struct.pack_into("<I", state, at, len(content))
            struct.pack_into("<Q", state, 16, len(state))
            return sealed(state)
    raise LookupError(name)


def content(state, name):
    return next(state[at + 8 + len(name):at + 8 + len(name) + size] for at, size, found in sections(state) if found == name)


def golden(file):
    with Snapshots() as place:
        with lzma.open(GOLDEN + file) as packed, open(place.data.name + "/golden", "wb") as out:
            out.write(packed.read())
        place.snug("snapshot", "import", place.data.name + "/golden", "g").expect(0)
        # What lay elsewhere then lies elsewhere again.
        with open(place.path("g", "spec.yaml")) as spec:
            text = spec.read()
        with open(place.path("g", "spec.yaml"), "w") as spec:
            spec.write(text.replace("/tmp/golden/kernel", f"{MICRO}/{file.split('-')[0]}.elf").replace("/tmp/golden/disk", place.data.name + "/disk"))
        with open(place.path("g", "snapshot.json")) as about:
            needed = json.load(about)
        for disk in needed["disks"]:
            disk["path"] = disk["path"].replace("/tmp/golden/disk", place.data.name + "/disk")
            with open(disk["path"], "wb") as made:
                made.truncate(disk["bytes"])
            os.utime(disk["path"], ns=(disk["modified_ns"], disk["modified_ns"]))
        with open(place.path("g", "snapshot.json"), "w") as about:
            json.dump(needed, about)
        ended = place.snug("restore", "g", stdin=text_pipe("more\4"))
        if ended.status == 125 and "restore it on" in ended.err:
            # Another CPU than it was made on: the guest goes on with this one's, which it has never looked at.
            print("    with this host's CPU: " + ended.err.strip())
            place.saved("--memory", "16M")
            own = content(open(place.path("s", "state"), "rb").read(), "vcpu0")
            state = open(place.path("g", "state"), "rb").read()
            state = replaced(state, "vcpu0", content(state, "vcpu0")[:VCPU_FIXED] + own[VCPU_FIXED:])
            with open(place.path("g", "state"), "wb") as out:
                out.write(state)
            ended = place.snug("restore", "g", stdin=text_pipe("more\4"))
        check(ended.status == 0 and ended.out == "more\4", f"{file} does not go on", ended.status, ended.out, ended.err)


for golden_file in sorted(os.listdir(GOLDEN)):
    add(f"golden_{golden_file.split('.')[0]}_goes_on", functools.partial(golden, golden_file))


# --- snapshots that are none ---------------------------------------------------------------------------------


def sections(state):
    """(start, bytes of content, name) of each."""
    count, = struct.unpack_from("<I", state, 12)
    at, found = 28, []
    for _ in range(count):
        size, _, name_size = struct.unpack_from("<IHH", state, at)
        found.append((at, size, state[at + 8:at + 8 + name_size].decode()))
        at += 8 + name_size + size + 4
    return found


def sealed(state):
    """The same with checksums that are right again."""
    state = bytearray(state)
    struct.pack_into("<I", state, 24, zlib.crc32(bytes(state[:24])))
    for at, size, name in sections(state):
        end = at + 8 + len(name) + size
        struct.pack_into("<I", state, end, zlib.crc32(bytes(state[at:end])))
    return bytes(state)


def refused(place, what, state=None, memory=None, spec=None):
    for file, content in (("state", state), ("memory", memory), ("spec.yaml", spec)):
        if content is None:
            continue
        with open(place.path("bad", file), "wb") as out:
            out.write(content)
    ended = place.snug("restore", "bad", bound=30)
    lines = [line for line in ended.err.splitlines() if line]
    check(ended.status == 125 and len(lines) == 1, f"{what}: not one line and 125", ended.status, ended.err)
    return ended.err


@test
def broken_snapshots_end_in_one_line():
    chance = random.Random(1)
    with Snapshots() as place:
        place.saved("--memory", "16M")
        state = open(place.path("s", "state"), "rb").read()
        memory = open(place.path("s", "memory"), "rb").read()
        spec = open(place.path("s", "spec.yaml"), "rb").read()
        shutil.copytree(place.path("s"), place.path("bad"))
        cases = 0
        for cut in [0, 1, 27, 28] + [chance.randrange(len(state)) for _ in range(40)]:
            refused(place, f"cut at {cut}", state=state[:cut])
            cases += 1
        for at in [8, 12, 16, 24] + [chance.randrange(len(state)) for _ in range(80)]:
            changed = bytearray(state)
            changed[at] ^= 1 << chance.randrange(8)
            refused(place, f"byte {at} changed", state=bytes(changed))
            cases += 1
        for what, other in {"text": b"hello\n" * 100, "zeros": bytes(4096), "memory": memory[:65536], "spec": spec}.items():
            refused(place, what, state=other)
            cases += 1
        refused(place, "more behind it", state=state + b"x")
        # Whole by its checksums, and still not what it should be.
        for at, size, name in sections(state):
            body = at + 8 + len(name)
            shorter = bytearray(state[:body] + state[body + 1:]) if size else None
            if shorter:
                struct.pack_into("<I", shorter, at, size - 1)
                struct.pack_into("<Q", shorter, 16, len(shorter))
                refused(place, f"{name} a byte short", state=sealed(shorter))
                cases += 1
            longer = bytearray(state[:body + size] + b"\0" + state[body + size:])
            struct.pack_into("<I", longer, at, size + 1)
            struct.pack_into("<Q", longer, 16, len(longer))
            refused(place, f"{name} a byte long", state=sealed(longer))
            newer = bytearray(state)
            struct.pack_into("<H", newer, at + 4, 99)
            check("version 99" in refused(place, f"{name} newer", state=sealed(newer)), "the version is not said")
            unknown = bytearray(state)
            unknown[at + 8] ^= 0x20
            said = refused(place, f"{name} unknown", state=sealed(unknown))
            check("missing" in said or "does not know" in said, "the section is not named", said)
            cases += 3
        later = bytearray(state)
        struct.pack_into("<I", later, 8, 2)
        check("format 2" in refused(place, "a later format", state=sealed(later)), "the format is not said")
        refused(place, "memory too small", state=state, memory=memory[:-4096])
        refused(place, "memory too large", memory=memory + bytes(4096))
        refused(place, "no memory", memory=b"")
        refused(place, "other memory", memory=memory, spec=spec.replace(b"memory: 16M", b"memory: 32M"))
        refused(place, "more vCPUs", spec=spec.replace(b"cpus: 1", b"cpus: 2"))
        refused(place, "no spec", spec=b"{")
        refused(place, "without a device", spec=spec.replace(b"rng: true", b"rng: false"))
        cases += 8
        check(cases >= 200, f"{cases} cases")
        check(place.goes_on("s"), "the good one has suffered")


@test
def hostile_states_hurt_nobody():
    """Content of each section at random behind right checksums: the guest may be anything, snug is not hurt."""
    chance = random.Random(2)
    with Snapshots() as place:
        place.saved("--memory", "16M", "--balloon", "0", "--timeout", "60s")
        state = open(place.path("s", "state"), "rb").read()
        shutil.copytree(place.path("s"), place.path("bad"))
        spec = open(place.path("s", "spec.yaml")).read()
        check("timeout: 60s" in spec or "timeout: 1m" in spec, "the spec is another", spec)
        with open(place.path("bad", "spec.yaml"), "w") as out:
            out.write(re.sub(r"^timeout: .*$", "timeout: 300ms", spec, flags=re.M))
        for _ in range(max(12, 120 // int(os.environ.get("SNUG_HOSTILE_SHARE", "1")))):
            changed = bytearray(state)
            at, size, name = chance.choice(sections(state))
            body = at + 8 + len(name)
            for _ in range(chance.choice((1, 4, 64))):
                if size:
                    changed[body + chance.randrange(size)] = chance.randrange(256)
            with open(place.path("bad", "state"), "wb") as out:
                out.write(sealed(changed))
            ended = place.snug("restore", "bad", stdin=text_pipe("\4"), bound=30)
            # It ends by itself, by the timeout, as a guest that has crashed, or is refused; never by a signal.
            check(ended.status in (0, 15, 123, 124, 125) or name == "guest-status", f"{name}: {ended.status}", ended.err)
