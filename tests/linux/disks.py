"""Disks."""
from guests import *  # noqa: F403


@test
def disks_hold_what_is_written():
    mib = 1 << 20
    with tempfile.TemporaryDirectory() as folder:
        source, target = folder + "/source.img", folder + "/target.img"
        with open(source, "wb") as file:
            file.write(os.urandom(16 * mib))
        with open(target, "wb") as file:
            file.truncate(64 * mib)
        ended = guest(TINY, "--cmdline", "quiet", "--cpus", "2", "--disk", source + ",readonly=true,serial=source-1",
                      "--disk", target + ",queues=2", "--stats", command=
                      "cat /sys/block/vda/serial; echo; cat /sys/block/vda/ro; ls /sys/block/vdb/mq | wc -w; md5sum < /dev/vda; "
                      "dd if=/dev/vda of=/dev/vdb bs=1M seek=8 2>/dev/null && sync && echo 3 > /proc/sys/vm/drop_caches; "
                      "dd if=/dev/vdb bs=1M skip=8 count=16 2>/dev/null | md5sum; "
                      "dd if=/dev/zero of=/dev/vda bs=512 count=1 2>/dev/null || echo refused; "
                      "dmesg -r | grep -E '^<[0-4]>.*(virtio|vd[ab]|blk)' || true").expect(0)
        words = marked(ended).replace(" -", "").split()
        sum_of_source = checksum(source)
        check(words == ["source-1", "1", "2", sum_of_source, sum_of_source, "refused"], "not what was expected", ended.out)
        check(checksum(target, 8 * mib, 16 * mib) == sum_of_source, "the file does not hold what the guest wrote")


@test
def disk_space_comes_back_by_discard():
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/disk.img"
        with open(path, "wb") as file:
            file.write(b"x" * (8 << 20))
        guest(TINY, "--cmdline", "quiet", "--disk", path, command="blkdiscard /dev/vda").expect(0)
        check(os.stat(path).st_blocks * 512 < 1 << 20, "the discarded disk still takes its space")
        check(os.stat(path).st_size == 8 << 20, "the disk's size has changed")


def direct_io_works(path):
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
        return True
    except OSError:
        return False


def loop_device(path):
    """A block device with a file's content, or the file where there are none."""
    subprocess.run(["modprobe", "--quiet", "loop"])
    made = subprocess.run(["losetup", "--find", "--show", path], capture_output=True, text=True)
    return made.stdout.strip() if made.returncode == 0 else path


@test
def disks_ephemeral_direct_and_resized():
    mib = 1 << 20
    with tempfile.TemporaryDirectory() as folder:
        base, direct, grows = folder + "/base.img", folder + "/direct.img", folder + "/grows.img"
        for path, size in ((base, 8), (direct, 8), (grows, 8)):
            with open(path, "wb") as file:
                file.write(os.urandom(size * mib))
        before, wanted = checksum(base), checksum(direct, 0, mib)
        if not direct_io_works(direct):
            ended = guest(TINY, "--disk", direct + ",direct=true").expect(125)
            check("no direct I/O" in ended.err, "the message does not say so", ended.err)
            direct = loop_device(direct)
        goes_direct = "true" if direct_io_works(direct) else "false"
        process = subprocess.Popen(
            [SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--timeout", "300s", "--cmdline", "quiet",
             "--disk", base + ",ephemeral=true", "--disk", direct + ",direct=" + goes_direct, "--disk", grows, "--", "sh", "-c",
             "dd if=/dev/vdb of=/dev/vda bs=64k count=16 seek=16 2>/dev/null && sync; "
             "dd if=/dev/vdb of=/dev/vdb bs=64k count=16 seek=32 iflag=direct oflag=direct 2>/dev/null && sync; "
             "echo 3 > /proc/sys/vm/drop_caches; "
             "dd if=/dev/vda bs=64k skip=16 count=16 2>/dev/null | md5sum; dd if=/dev/vdb bs=64k skip=32 count=16 2>/dev/null | md5sum; "
             "(dd if=/dev/vda bs=64k count=16; dd if=/dev/vda bs=64k skip=32) 2>/dev/null | md5sum; "
             "cat /sys/block/vda/queue/physical_block_size /sys/block/vda/queue/write_cache; "
             "i=0; while [ $(cat /sys/block/vdc/size) = 16384 ] && [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done; "
             "cat /sys/block/vdc/size; dd if=/dev/zero of=/dev/vdc bs=1M seek=15 count=1 2>/dev/null && sync && echo written"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        words = []
        try:
            while "write" not in words:
                line = process.stdout.readline()
                check(line, "the guest ended", words, process.stderr.read() if not line else "")
                words += line.replace("-", "").split()
            os.truncate(grows, 16 * mib)
            out, err = process.communicate(timeout=BOUND)
            words += out.split()
        finally:
            process.kill()
            process.wait()
        with open(base, "rb") as file:
            content = file.read()
        rest = hashlib.md5(content[:mib] + content[2 * mib:]).hexdigest()
        check(words[:8] == [wanted, wanted, rest, "4096", "write", "through", "32768", "written"], "not what was expected",
              words, [wanted, wanted, rest], err)
        check(checksum(base) == before, "the file behind an ephemeral disk has changed")
        check(checksum(direct, 2 * mib, mib) == wanted, "the direct disk's file does not hold what was written")
        if direct.startswith("/dev/loop"):
            subprocess.run(["losetup", "--detach", direct], check=True)
        check(goes_direct == "true", "direct I/O was not tried: no file system and no loop device has it here")
        check(checksum(grows, 15 * mib, mib) == hashlib.md5(bytes(mib)).hexdigest(), "the new part was not written")


@test
def disk_ephemeral_serves_several_machines():
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/base.img"
        with open(path, "wb") as file:
            file.truncate(1 << 20)
        process = started("--cmdline", "quiet", "--disk", path + ",ephemeral=true")
        try:
            guest(TINY, "--cmdline", "quiet", "--disk", path + ",ephemeral=true", command="true").expect(0)
            ended = guest(TINY, "--disk", path).expect(125)
            check("in use" in ended.err, "the message does not say so", ended.err)
        finally:
            process.kill()
            process.communicate()
        ended = guest(TINY, "--disk", path + ",ephemeral=true,readonly=true").expect(125)
        check("exclude each other" in ended.err, "the message does not say so", ended.err)


@test
def disk_is_locked_against_a_second_machine():
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/disk.img"
        with open(path, "wb") as file:
            file.truncate(1 << 20)
        process = started("--cmdline", "quiet", "--disk", path)
        try:
            for flags in ((), (",readonly=true",)):
                ended = guest(TINY, "--disk", path + "".join(flags)).expect(125)
                check("in use" in ended.err, "the message does not say so", ended.err)
        finally:
            process.kill()
            process.communicate()


@test
def disk_whose_last_sector_is_a_part():
    """1300 bytes are three sectors, the third filled with zeros, whatever does the work."""
    with tempfile.TemporaryDirectory() as folder:
        data = os.urandom(1300)
        flags = []
        for name, how in (("a", "io=threads"), ("b", ""), ("c", "ephemeral=true"), ("d", "readonly=true")):
            with open(f"{folder}/{name}.img", "wb") as file:
                file.write(data)
            flags += ["--disk", ",".join(filter(None, (f"{folder}/{name}.img", how)))]
        ended = guest(TINY, "--cmdline", "quiet", *flags, command=(
            "for disk in a b c d; do cat /sys/block/vd$disk/size; md5sum < /dev/vd$disk; done; "
            "for disk in b c; do printf end | dd of=/dev/vd$disk bs=1 seek=1533 conv=notrunc 2>/dev/null; done; sync")).expect(0)
        whole = hashlib.md5(data + bytes(236)).hexdigest()
        check(marked(ended).replace(" -", "").split() == ["3", whole] * 4, "not what was expected", ended.out, whole)
        for name, expected in (("a", data), ("b", data + bytes(233) + b"end"), ("c", data), ("d", data)):
            with open(f"{folder}/{name}.img", "rb") as file:
                check(file.read() == expected, f"{name}.img is not what it should be")
