"""Machines that are saved and begin again where they stood; and snapshots that are none."""
import json
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
