"""What the tests of Linux guests share: the images, guests that run a command, small files for them.

Images come from guest-images/build; tools/test hands their paths over in SNUG_IMAGE_*.
"""
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


def monitor_kib(pid, kind="Rss"):
    """Resident memory but guest RAM, KiB; of kind Anonymous only what no file holds, which code that is run for the
    first time does not add to. Guest RAM is what no child may inherit (MADV_DONTFORK, flag "dc"): a
    cached kernel splits it into several mappings, so size alone does not tell."""
    total = 0
    resident = 0
    with open(f"/proc/{pid}/smaps") as maps:
        for line in maps:
            if line.startswith(kind + ":"):
                resident = int(line.split()[1])
            elif line.startswith("VmFlags:") and "dc" not in line.split():
                total += resident
    return total


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
