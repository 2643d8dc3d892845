"""share: a folder of the host in a Linux guest: what work with its files costs, beside the same tree on a disk."""
import os
import shlex
import shutil
import subprocess
import tarfile

from bench import archives, processes, stepped
from bench.monitors import GuestSpec

ABOUT = "share: a folder of the host in a guest: data, many small files, git status, find, a build; CPU time"
WHERE = "counted"

CPU = "CPU time, guest, monitor and file server"
MEMORY_MIB, DATA_MIB, DISK_MIB = 512, 64, 400
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
PER_FOLDER = 50
KERNEL = "Debian full bzImage"
PREPARE = """
for id in $(cat /sys/bus/pci/devices/*/device); do
  [ -e /modules/$id.list ] || continue
  while read -r module; do [ -d /sys/module/$module ] || insmod /modules/$module.ko; done </modules/$id.list
done
mkdir -p /w
git config --global safe.directory '*'
case $share_type in
  ext4) mount -t ext4 -o noatime /dev/vda /w ;;
  9p) mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose work /w ;;
  *) mount -t virtiofs work /w ;;
esac || poweroff -f
"""
# What the guest knows of files is gone, and what it has written is where it belongs.
COLD = "sync; echo 3 >/proc/sys/vm/drop_caches"


class Sizes:
    def __init__(self, quick):
        self.small = 500 if quick else 10000
        self.tree = 1000 if quick else 50000
        self.reads = 500 if quick else 4000
        self.sources = 100 if quick else 1000


def rows(sizes):
    """(case, command); those without a case only prepare the next one."""
    yield "", "true"
    yield f"write {DATA_MIB} MiB, 1 MiB each, sync", f"dd if=/dev/zero of=/w/data bs=1M count={DATA_MIB} 2>&1; sync"
    yield "", COLD
    yield f"read {DATA_MIB} MiB, 1 MiB each", "dd if=/w/data of=/dev/null bs=1M 2>&1"
    yield "", COLD
    yield f"read 4 KiB at random, {sizes.reads:,} times", f"files random /w/data 4096 {sizes.reads} && echo done"
    yield "", f"rm /w/data; {COLD}"
    yield f"unpack {sizes.small:,} small files (tar), sync", "mkdir /w/small && tar xf /small.tar -C /w/small && sync && echo done"
    # Its index knows the files by the numbers that they had where the tree was made.
    yield "", f"cd /w/tree; git status --short | wc -l; {COLD}"
    yield f"git status, {sizes.tree:,} files", "git status --short | wc -l"
    yield "", COLD
    yield f"find | wc, {sizes.tree:,} files", "find /w/tree | wc -l"
    yield "", f"cd /; {COLD}"
    yield (f"build of {sizes.sources:,} files: look for headers, read, write, rename",
           f"files compile /w/build {sizes.sources} && sync && echo done")


def write_file(path, size):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write((os.path.basename(path).encode() * (size // 4 + 1))[:size])


def make_tree(folder, sizes):
    """What is shared: a repository of git's, and the sources of a build."""
    tree = os.path.join(folder, "tree")
    # Few contents: git keeps each of them once.
    for number in range(sizes.tree):
        write_file(f"{tree}/{number // PER_FOLDER // 20}/{number // PER_FOLDER}/{number % PER_FOLDER}.txt", 1000)
    git = ["git", "-C", tree, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True, env=dict(os.environ, HOME=folder))
    for number in range(sizes.sources):
        write_file(f"{folder}/build/src/{number}.c", 3000)
    for number in range(10):
        write_file(f"{folder}/build/include/c/{number}.h", 8000)
    for name in ("a", "b"):
        os.mkdir(f"{folder}/build/include/{name}")
    os.mkdir(f"{folder}/build/out")


def write_tar(path, sizes):
    with tarfile.open(path, "w") as archive:
        for number in range(sizes.small):
            if number % PER_FOLDER == 0:
                entry = tarfile.TarInfo(f"{number // PER_FOLDER}")
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            entry = tarfile.TarInfo(f"{number // PER_FOLDER}/{number}.txt")
            entry.size = 1024
            with open("/dev/zero", "rb") as zeros:
                archive.addfile(entry, zeros)


class Place:
    """The guest's initrd and the tree, of which each way gets a fresh copy."""

    def __init__(self, setting, sizes, work):
        self.setting = setting
        self.tree = setting.path("tree")
        setting.kernels[KERNEL] = shutil.copy(setting.images["STOCK_FULL"], setting.path("full-bzImage"))
        make_tree(self.tree, sizes)
        program = setting.path("files")
        source = os.path.join(os.path.dirname(os.path.realpath(__file__)), "files.c")
        subprocess.run(["gcc", "-static", "-O1", "-o", program, source], check=True)
        tar = setting.file("small.tar", lambda path: write_tar(path, sizes))
        more = setting.path("share-steps")
        archives.write(more, {**archives.program("git"), "bin/files": program, "small.tar": tar,
                              "steps": stepped.script(work, PREPARE)})
        self.initrd = archives.joined(setting.path("share-initrd"), setting.initrd, setting.images["SHARE_MODULES"], more)

    def folder(self):
        path = self.setting.path("shared")
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self.tree, path, symlinks=True)
        return path

    def disk(self):
        path = self.setting.path("ext4")
        with open(path, "wb") as file:
            file.truncate(DISK_MIB << 20)
        subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", "-N", "120000", "-E", "lazy_itable_init=0", "-d", self.tree, path], check=True)
        return path


def served(command, socket, folder):
    """QEMU with the server of files that it has to find."""
    server = shlex.join([VIRTIOFSD, f"--socket-path={socket}", "-o", f"source={folder}", "-o", "cache=auto"])
    wait = f"rm -f {socket}; {server} >/dev/null 2>&1 & until [ -S {socket} ]; do sleep 0.1; done"
    return ["sh", "-c", wait + '; exec "$@"', "sh", *command]


def ways(setting, place):
    """(name, monitor, how it is started with a guest whose tree is fresh)"""
    snug, _, q35 = setting.monitors[:3]
    memory = ["-object", f"memory-backend-memfd,id=m,size={MEMORY_MIB}M,share=on", "-machine", "memory-backend=m"]

    def of_snug(guest):
        return snug.command(guest.changed(extra=["--share", f"source={place.folder()},tag=work"]))

    def of_virtiofsd(guest):
        socket, folder = setting.path("fs.sock"), place.folder()
        return served(q35.command(guest.changed(more=[*memory, "-chardev", f"socket,id=c,path={socket}", "-device",
                                                      "vhost-user-fs-pci,chardev=c,tag=work"])), socket, folder)

    def of_9p(guest):
        return q35.command(guest.changed(more=[
            "-fsdev", f"local,id=f,path={place.folder()},security_model=passthrough,multidevs=remap", "-device",
            "virtio-9p-pci,fsdev=f,mount_tag=work,disable-legacy=on"]))

    def of_disk(guest):
        return snug.command(guest.changed(disk=place.disk()))

    yield "snug", snug, "virtiofs", of_snug, None
    yield "QEMU q35, virtiofsd", q35, "virtiofs", of_virtiofsd, not os.path.exists(VIRTIOFSD) and f"{VIRTIOFSD} is not there"
    yield "QEMU q35, 9p, cache=loose", q35, "9p", of_9p, None
    yield "snug, the same on a disk (ext4)", snug, "ext4", of_disk, None


def measure(setting, figures):
    sizes = Sizes(setting.quick)
    work = list(rows(sizes))
    try:
        place = Place(setting, sizes, [command for _, command in work])
    except (OSError, subprocess.CalledProcessError) as problem:
        figures.missing("share", "Linux guest", CPU, "all", str(problem))
        return
    for name, monitor, kind, command, why in ways(setting, place):
        if not figures.begin("share", name):
            continue
        guest = GuestSpec(KERNEL, place.initrd, memory_mib=MEMORY_MIB, ends=False,
                          words=f"quiet rdinit=/steps share_type={kind}")
        why = why or monitor.missing(guest)
        if why:
            figures.missing("share", "Linux guest", CPU, name, why)
            continue
        try:
            runs = [run(setting, guest, command, len(work)) for _ in range(1 if setting.quick else 2)]
            report(setting, figures, name, work, runs)
        except processes.Failed as problem:
            figures.missing("share", "Linux guest", CPU, name, str(problem))


def run(setting, guest, command, steps):
    # Another guest goes on with the tree as it is made anew: every step makes what it needs, but for the data that is read.
    return stepped.run(lambda first: processes.Guest(command(guest.changed(words=f"{guest.words} {stepped.words(first)}")),
                                                     setting.environment), steps,
                       lambda guest: processes.cpu_seconds_of_all(guest.pid))


def report(setting, figures, name, work, runs):
    for number, (case, command) in enumerate(work):
        if not case:
            continue
        for text, _ in (result[number] for result in runs):
            if not any(word in text for word in ("done", "records out")) and not text.strip().isdigit():
                raise processes.Failed(f"{case}: {text.strip()[-200:]}")
        figures.add("share", case, CPU, name, [(result[number][1] - result[0][1]) * 1e3 for result in runs], "ms",
                    setting.method("CPU clocks of the monitor's processes and virtiofsd's, less what an empty step costs; "
                                   "nothing of it in the guest's caches, all of it in the host's"))
