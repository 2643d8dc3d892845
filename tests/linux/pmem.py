"""Files of the host that are memory of the guest (disks of mode pmem), and what a guest's DAX makes of them."""
from guests import *  # noqa: F403

MIB = 1 << 20
HERE = os.path.dirname(__file__)


def compiled(folder, name):
    subprocess.run(["gcc", "-static", "-O1", "-Wall", "-Werror", "-o", f"{folder}/{name}", f"{HERE}/{name}.c"], check=True)
    return f"{folder}/{name}"


def ext4(path, size, tree=None):
    """A file system that DAX takes: its blocks are pages."""
    with open(path, "wb") as file:
        file.truncate(size)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", "-b", "4096", *(("-d", tree) if tree else ()), path], check=True)


def dumped(path, name, to):
    """What a file of an ext4 holds, as the host finds it."""
    subprocess.run(["/sbin/debugfs", "-R", f"dump {name} {to}", path], check=True, stderr=subprocess.DEVNULL)
    return checksum(to)


def running(command, *flags):
    """A machine whose command has said "ready", and what it said before."""
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--timeout", "300s", "--memory", "128M", *flags,
                                *on_console(command)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen = b""
    while b"ready" not in seen:  # the command line, which the kernel prints, is quoted
        chunk = os.read(process.stdout.fileno(), 4096)
        if not chunk:
            check(False, "the guest ended before it was ready", seen, process.communicate()[1])
        seen += chunk
    return process, seen.decode("utf-8", "replace")


# As a word that the kernel's own line about it does not contain.
READY = "echo rea''dy"


# Linux warns that it cannot guarantee the persistence of writes: before it looks whether the device flushes (6.1).
@test
def pmem_ext4_dax_is_written_in_place():
    with tempfile.TemporaryDirectory() as folder:
        path, disk = folder + "/pmem.img", folder + "/disk.img"
        ext4(path, 64 * MIB)
        with open(disk, "wb") as file:
            file.truncate(4 * MIB)
        archive = small_initrd(folder, {"dax_direct": compiled(folder, "dax_direct")})
        ended = guest(TINY, "--initrd", archive, "--cmdline", "quiet", "--disk", path + ",mode=pmem", "--disk", disk, command=
                      "mkdir -p /mnt; mount -t ext4 -o dax /dev/pmem0 /mnt && grep -c 'pmem0 .*dax' /proc/mounts; cat /sys/block/pmem0/dax "
                      "/sys/block/pmem0/queue/dax 2>/dev/null | head -n1; dd if=/dev/urandom of=/mnt/data bs=1M count=8 2>/dev/null; "
                      "/dax_direct /mnt/data /dev/vda || echo broken; sync; md5sum < /mnt/data; dd if=/dev/vda bs=1M count=1 2>/dev/null | "
                      "md5sum; for part in 0 1; do dd if=/mnt/data bs=1M skip=$part count=1 2>/dev/null | md5sum; done; umount /mnt; "
                      "dmesg -r | grep -E '^<[0-4]>.*(virtio|pmem|nd_|dax|EXT4)' | grep -v 'guarantee persistence' || true").expect(0)
        words = marked(ended).replace(" -", "").split()
        check(len(words) == 6 and words[:2] == ["1", "1"], "not mounted with DAX, or the kernel complains", ended.out)
        check(words[3] == words[4] == words[5], "a disk does not read and write the file's memory", words)
        check(checksum(disk, 0, MIB) == words[3], "the disk has something else", words)
        check(dumped(path, "data", folder + "/data") == words[2], "the host's file does not hold what the guest wrote", words)
        subprocess.run(["/sbin/e2fsck", "-f", "-n", path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@test
def pmem_holds_what_was_synced_when_killed():
    """What a flush was answered for is in the file, whatever becomes of the machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/pmem.img"
        ext4(path, 16 * MIB)
        process, _ = running(f"mkdir -p /mnt; mount -t ext4 -o dax /dev/pmem0 /mnt; echo kept > /mnt/data; sync; {READY}; sleep 1000",
                             "--disk", path + ",mode=pmem,io=threads")
        kill_machine(process)
        process.communicate()
        subprocess.run(["/sbin/e2fsck", "-f", "-y", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        dumped(path, "data", folder + "/data")
        with open(folder + "/data", "rb") as file:
            check(file.read() == b"kept\n", "what was synced is lost")


@test
def pmem_read_only_is_read_and_not_written():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/tree")
        with open(folder + "/tree/data", "wb") as file:
            file.write(os.urandom(3 * MIB))
        path = folder + "/pmem.img"
        ext4(path, 16 * MIB + 4096, folder + "/tree")  # no multiple of 2 MiB
        before = checksum(path)
        ended = guest(TINY, "--cmdline", "quiet", "--disk", path + ",mode=pmem,readonly=true", command=
                      "cat /sys/block/pmem0/size; mkdir -p /mnt; mount -t ext4 -o ro,dax /dev/pmem0 /mnt && md5sum < /mnt/data; umount /mnt; "
                      "dd if=/dev/urandom of=/dev/pmem0 bs=4096 seek=16 count=1 conv=fsync 2>/dev/null || echo refused").expect(0)
        words = marked(ended).replace(" -", "").split()
        check(words == [str(18 * MIB // 512), checksum(folder + "/tree/data"), "refused"], "not what was expected", ended.out)
        check(checksum(path) == before, "the file has changed")
        check(ended.err.count("can only read") == 1, "said not once", ended.err)


@test
def pmem_root_with_dax():
    """Several, in the order of the spec; the second is the root."""
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(folder + "/tree/proc")
        os.makedirs(folder + "/tree/dev")
        shutil.move(compiled(folder, "dax_root"), folder + "/tree/init")
        first, root = folder + "/first.img", folder + "/root.img"
        with open(first, "wb") as file:
            file.truncate(2 * MIB)
        ext4(root, 16 * MIB, folder + "/tree")
        # A disk between them counts for itself.
        flags = ["--disk", first + ",mode=pmem", "--disk", HERE + "/pmem.py,readonly=true", "--disk",
                 root + ",mode=pmem,readonly=true"]
        ended = snug("run", "--kernel", TINY, "--timeout", "300s", *flags, "--cmdline",
                     "quiet root=/dev/pmem1 rootfstype=ext4 rootflags=dax ro rootwait init=/init").expect(0)
        check(re.search(r"root: /dev/root / ext4 ro,.*dax", ended.out), "another root", ended.out, ended.err)


def file_mapping(pid, path):
    """What smaps says of a file's mapping in the process that runs the guest, KiB by name."""
    found, inside = {}, False
    with open(f"/proc/{machine_process(pid)}/smaps") as smaps:
        for line in smaps:
            name, _, value = line.partition(":")
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                inside = line.rstrip().endswith(path)
            elif inside and value.endswith(" kB\n"):
                found[name] = found.get(name, 0) + int(value.split()[0])
            elif inside and name == "VmFlags":
                found[name] = value.split()
    return found


@test
def pmem_guests_of_one_file_share_its_pages():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/tree")
        with open(folder + "/tree/data", "wb") as file:
            file.write(os.urandom(32 * MIB))
        path = folder + "/shared-pmem.img"
        ext4(path, 64 * MIB, folder + "/tree")
        machines = []
        try:
            for _ in range(2):
                process, text = running("mkdir -p /mnt; mount -t ext4 -o ro,dax /dev/pmem0 /mnt; md5sum < /mnt/data; grep ^Cached /proc/meminfo; "
                                        f"{READY}; sleep 1000", "--disk", path + ",mode=pmem,readonly=true")
                machines.append(process)
                check(checksum(folder + "/tree/data") in text, "the guest reads something else", text)
                cached = int(re.search(r"Cached:\s+(\d+)", text)[1])
                check(cached < 24 << 10, f"the guest keeps a copy of its own: {cached} KiB", text)
            for process in machines:
                has = file_mapping(process.pid, "/shared-pmem.img")
                if os.geteuid() != 0:
                    return say_that_root_sees_more()
                print(f"    a file of 32 MiB in memory of two guests: {has['Rss']} KiB resident of it in one, private "
                      f"{has['Private_Clean'] + has['Private_Dirty']} KiB")
                check(has["Rss"] >= 32 << 10, "the file is not mapped", has)
                check(has["Private_Clean"] + has["Private_Dirty"] < 4 << 10, "its pages are not shared", has)
                check("dd" in has["VmFlags"], "it would be in a core dump", has)
        finally:
            for process in machines:
                process.kill()
                process.communicate()


@test
def pmem_whose_file_is_cut_off_ends_the_guest():
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/pmem.img"
        with open(path, "wb") as file:
            file.truncate(8 * MIB)
        process, _ = running(f"{READY}; while :; do dd if=/dev/pmem0 of=/dev/null bs=1M iflag=direct 2>/dev/null; done",
                             "--disk", path + ",mode=pmem")
        try:
            os.truncate(path, 4 * MIB)
            out, err = process.communicate(timeout=BOUND)
        finally:
            process.kill()
            process.communicate()
        check(process.returncode == 125 and b"has become shorter" in err and path.encode() in err, f"status {process.returncode}",
              err, out)


@test
def pmem_is_memory_for_a_share():
    """The server of a share reads from the file's memory, and writes to it, with a balloon beside that takes RAM alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/pmem.img"
        os.mkdir(folder + "/share")
        ext4(path, 32 * MIB)
        archive = small_initrd(folder, {"dax_direct": compiled(folder, "dax_direct")})
        with open(folder + "/share/disk", "wb") as file:
            file.truncate(2 * MIB)
        ended = guest(TINY, "--initrd", archive, "--cmdline", "quiet", "--disk", path + ",mode=pmem", "--balloon", "32M", "--share",
                      f"source={folder}/share,tag=host", "--memory", "256M", command=
                      "mkdir -p /mnt /host; mount -t ext4 -o dax /dev/pmem0 /mnt; mount -t virtiofs host /host; "
                      "dd if=/dev/urandom of=/mnt/data bs=1M count=2 2>/dev/null; /dax_direct /mnt/data /host/disk; "
                      "for part in 0 1; do dd if=/mnt/data bs=1M skip=$part count=1 2>/dev/null | md5sum; done; umount /mnt").expect(0)
        words = marked(ended).replace(" -", "").split()
        check(len(words) == 2 and words[0] == words[1], "not what was expected", ended.out, ended.err)
        check(checksum(folder + "/share/disk", 0, MIB) == words[0], "the share's file has something else", words)


@test
def pmem_with_the_stock_kernel():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/tree")
        with open(folder + "/tree/data", "wb") as file:
            file.write(os.urandom(MIB))
        path = folder + "/pmem.img"
        ext4(path, 16 * MIB, folder + "/tree")
        ended = guest(STOCK, "--initrd", STOCK_MODULES, "--memory", "256M", "--cmdline", "quiet", "--disk", path + ",mode=pmem",
                      command="mkdir -p /mnt; mount -t ext4 -o dax /dev/pmem0 /mnt && grep -c 'pmem0 .*dax' /proc/mounts; md5sum < /mnt/data; "
                      "echo more > /mnt/more; sync; umount /mnt; grep -c erofs /proc/filesystems; grep -c overlay /proc/filesystems").expect(0)
        words = marked(ended).replace(" -", "").split()
        check(words == ["1", checksum(folder + "/tree/data"), "1", "1"], "not what was expected", ended.out)
        dumped(path, "more", folder + "/more")
        with open(folder + "/more", "rb") as file:
            check(file.read() == b"more\n", "the host's file does not hold what the guest wrote")
