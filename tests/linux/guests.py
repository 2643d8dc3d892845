"""What the tests of Linux guests share: the images, guests that run a command, small files for them.

Images come from guest-images/build; tools/test hands their paths over in SNUG_IMAGE_*.
"""
import contextlib
import functools
import hashlib
import select
import shutil
import sys
import urllib.parse

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/support")
from harness import *  # noqa: E402,F403
import harness  # noqa: E402

STOCK = os.environ["SNUG_IMAGE_STOCK"]
STOCK_MODULES = os.environ["SNUG_IMAGE_STOCK_MODULES"]  # goes behind the initrd
STOCK_FULL = os.environ["SNUG_IMAGE_STOCK_FULL"]
TRIXIE = os.environ.get("SNUG_IMAGE_TRIXIE")  # guest-images/build trixie-kernels
TINY = os.environ["SNUG_IMAGE_TINY"]  # vmlinux; the bzImages lie beside it
INITRD = os.environ["SNUG_IMAGE_INITRD"]
INITRD_LEAN = os.environ["SNUG_IMAGE_INITRD_LEAN"]
MICRO = os.environ["SNUG_IMAGE_MICRO"]
TINY_FOLDER = os.path.dirname(TINY)

# A marker that the kernel's own messages do not contain keeps what a command prints apart from them.
MARK = "==snug-test=="


def on_console(command):
    """Flags that make the initrd run a shell command on the console, without the agent."""
    return ["--cmdline", "snug.run=" + urllib.parse.quote(command)]


def guest(kernel, *flags, command=None, **keywords):
    arguments = ["run", "--kernel", kernel, "--initrd", INITRD, "--timeout", "300s", *flags]
    if command is not None:
        arguments += on_console(f"echo; echo '{MARK}'; {command}; r=$?; echo '{MARK}'; exit $r")
    return snug(*arguments, **keywords)


def marked(ended):
    """What the command in the guest printed."""
    parts = ended.out.replace("\r", "").split(MARK + "\n")
    check(len(parts) >= 3, "the guest's command did not run to its end", ended.out, ended.err)
    return parts[1]


def started(*flags):
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--timeout", "300s", *flags],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen = b""
    while b"snug-initrd: ready" not in seen:
        chunk = os.read(process.stdout.fileno(), 4096)
        check(chunk, "the guest ended before it was ready", seen)
        seen += chunk
    return process


def select_read(stream, seconds):
    return select.select([stream], [], [], seconds)


def mappings(pid):
    """Of each mapping of a process its "file", and the lines of smaps by name, sizes as KiB; of none that root alone may look into. Guest RAM
    is what no child may inherit (MADV_DONTFORK, flag "dc"): a cached kernel splits it into several, so size alone does not
    tell."""
    try:
        maps = open(f"/proc/{pid}/smaps")
    except PermissionError:
        say_that_root_sees_more()
        return
    # One that ends meanwhile has none any more.
    with maps, contextlib.suppress(ProcessLookupError):
        found = {}
        for line in maps:
            name, _, value = line.partition(":")
            if value.endswith(" kB\n"):
                found[name] = int(value.split()[0])
            elif name == "VmFlags":
                yield {**found, name: value.split()}
            elif re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                found = {"file": " ".join(line.split()[5:])}


@functools.cache
def say_that_root_sees_more():
    print("    the memory of the process that runs the guest is not looked at: root alone may", flush=True)


def outside_of_guest_ram(pid):
    return [mapping for mapping in mappings(pid) if "dc" not in mapping["VmFlags"]]


def monitor_kib(pid):
    """Resident memory of a machine but guest RAM, KiB: pages that its processes share count once."""
    private, shared = 0, 0
    for process in processes_of(pid):
        outside = outside_of_guest_ram(process)
        own = sum(mapping["Private_Clean"] + mapping["Private_Dirty"] for mapping in outside)
        private += own
        shared = max(shared, sum(mapping["Rss"] for mapping in outside) - own)
    return private + shared


def anonymous_kib(pid):
    """The same of what no file holds, which code that is run for the first time does not add to; for differences: what its
    processes share counts for each."""
    return sum(mapping["Anonymous"] for process in processes_of(pid) for mapping in outside_of_guest_ram(process))


def guest_ram_kib(pid):
    """Resident guest RAM, KiB; for an ordinary user with what else its process has resident."""
    machine = machine_process(pid)
    return sum(mapping["Rss"] for mapping in mappings(machine) if "dc" in mapping["VmFlags"]) or resident_kib(machine)


@contextlib.contextmanager
def kvm_for_everybody():
    """For tests that run snug as a user who is nobody here; in a lab, which is thrown away, /dev/kvm is opened up for that."""
    mode = os.stat("/dev/kvm").st_mode & 0o7777
    if mode & 0o002:
        yield
        return
    if os.geteuid() != 0 or not os.path.exists("/run/snug-lab"):
        raise Skip("/dev/kvm is not for everybody here")
    os.chmod("/dev/kvm", mode | 0o666)
    try:
        yield
    finally:
        os.chmod("/dev/kvm", mode)


def checksum(path, start=0, size=-1):
    with open(path, "rb") as file:
        file.seek(start)
        return hashlib.md5(file.read(size)).hexdigest()


def small_initrd(folder, files):
    """An archive with `files` (name in the guest: path here), to be loaded behind the initrd."""
    tree = folder + "/tree"
    for name, path in files.items():
        os.makedirs(os.path.dirname(f"{tree}/{name}"), exist_ok=True)
        shutil.copy(path, f"{tree}/{name}")
    archive = folder + "/more.cpio"
    with open(archive, "wb") as out:
        names = "\n".join(os.path.relpath(os.path.join(top, name), tree) for top, folders, leaves in os.walk(tree)
                          for name in folders + leaves)
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names.encode(), stdout=out, check=True)
    return archive


__all__ = [*harness.__all__, *[name for name in dir() if not name.startswith("_") and name != "harness"]]
