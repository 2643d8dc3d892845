"""Disks: nothing is lost, mixed up or forgotten, whichever backend does the work."""
import random
import struct
from guests import *  # noqa: F403

FIO = os.environ.get("SNUG_IMAGE_FIO")  # guest-images/build fio
MIB = 1 << 20

# Four jobs at once, each on a part of its own with 32 requests under way: two discard a block and write it, at random,
# and verify; one writes at random and verifies; one does nothing but discard.
FIO_JOBS = """
[global]
filename=/dev/vda
ioengine=libaio
direct=1
iodepth=32
thread
group_reporting=0
[verified]
rw=randtrimwrite
bs=16k
verify=crc32c
verify_fatal=1
size=6m
numjobs=2
offset_increment=8m
[many-sizes]
rw=randwrite
bsrange=4k-64k
blockalign=4k
verify=crc32c
verify_fatal=1
offset=16m
size=6m
[discards]
rw=randtrim
bs=64k
offset=24m
size=4m
"""


def fio_verifies(io, *options):
    if not FIO:
        raise Skip("SNUG_IMAGE_FIO does not say where fio is")
    with tempfile.TemporaryDirectory() as folder:
        disk, jobs = folder + "/disk.img", folder + "/jobs.fio"
        with open(disk, "wb") as file:
            file.write(os.urandom(32 * MIB))
        with open(jobs, "w") as file:
            file.write(FIO_JOBS)
        more = small_initrd(folder, {"jobs.fio": jobs})
        ended = guest(TINY, "--cmdline", "quiet", "--cpus", "2", "--initrd", FIO, "--initrd", more, "--log-level", "info",
                      "--disk", ",".join([disk, "queues=4", f"io={io}", *options]), command=
                      "ls /sys/block/vda/mq | wc -w; fio /jobs.fio > /log 2>&1; echo status $?; grep -E 'err=|verify|fio:' /log; "
                      "grep -cE 'err= 0' /log; dd if=/bin/busybox of=/dev/vda bs=4k seek=7168 conv=fsync 2>/dev/null; "
                      "echo whole $(dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | md5sum); "
                      "echo part $(md5sum < /bin/busybox) $(wc -c < /bin/busybox); "
                      "dmesg -r | grep -E '^<[0-4]>.*(virtio|vda|blk|I/O)' || true").expect(0)
        text = marked(ended)
        words = text.split()
        check("status 0" in text and "2" == words[0], "fio found something", text)
        check(len(re.findall(r"err= 0", text)) == 4, "not four clean jobs", text)
        check("threads do the work" not in ended.err, "io_uring was not used", ended.err)
        check(re.search(r"whole (\w+)", text).group(1) == checksum(disk), "the file holds something else than the guest reads", text)
        part = re.search(r"part (\w+) +- +(\d+)", text)
        check(checksum(disk, 28 * MIB, int(part.group(2))) == part.group(1), "a known file is not where it was written", text)
        with open(disk, "rb") as file:
            file.seek(24 * MIB)
            check(file.read(4 * MIB) == bytes(4 * MIB), "what was discarded is not gone")
        check(os.stat(disk).st_blocks * 512 < 30 * MIB, "discards gave no space back")


add("disk_fio_verifies_by_io_uring", lambda: fio_verifies("io_uring"))
add("disk_fio_verifies_by_threads", lambda: fio_verifies("threads"), is_exhaustive=True)
add("disk_fio_verifies_on_a_thread_of_its_own", lambda: fio_verifies("io_uring", "thread=true"), is_exhaustive=True)

PAGE, PAGES, SLOTS = 4096, 4, 64
WORDS = PAGE // 8


def check_records(path, last):
    """Every record up to `last` is on the disk, but where a later one has taken its slot."""
    with open(path, "rb") as file:
        content = file.read()
    for slot in range(SLOTS):
        wanted = last - (last - slot) % SLOTS  # the newest record of this slot that was reported
        for page in range(PAGES):
            words = struct.unpack_from(f"<{WORDS}Q", content, (slot * PAGES + page) * PAGE)
            number = words[0] >> 16
            if wanted < 0 and words == (0,) * WORDS:
                continue
            check(words == tuple(number << 16 | page * WORDS + i for i in range(WORDS)) and number % SLOTS == slot,
                  f"page {page} of slot {slot} is not whole", words[:4])
            check(number >= wanted, f"record {wanted} was reported as written, and slot {slot} has record {number}")


@test
def disk_keeps_what_was_flushed_when_killed():
    chance = random.Random(20)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["gcc", "-static", "-O1", "-o", folder + "/writer", os.path.dirname(__file__) + "/sync_writer.c"], check=True)
        archive = small_initrd(folder, {"init": folder + "/writer"})
        disk = folder + "/disk.img"
        with open(disk, "wb") as file:
            file.truncate(4 * MIB)
        last, reported = -1, 0
        turns = 20 if EVERYTHING else 8
        for turn in range(turns):
            io = ("io_uring", "threads")[turn % 2]
            process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", archive, "--memory", "64M", "--cmdline",
                                        f"quiet base={last + 1}", "--disk", f"{disk},queues=1,io={io}"],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                stop, seen, deadline = last + chance.randint(10, 60), b"", time.monotonic() + BOUND
                while last < stop:
                    check(time.monotonic() < deadline and process.poll() is None, "the writer does not write", seen)
                    if select.select([process.stdout], [], [], 1)[0]:
                        seen += os.read(process.stdout.fileno(), 4096)
                    numbers = re.findall(rb"synced (\d+)\r?\n", seen)
                    last = int(numbers[-1]) if numbers else last
                time.sleep(chance.random() / 50)  # not always right after a report
            finally:
                # It writes on until all of it is gone.
                kill_machine(process)
                out, err = process.communicate()
            # What was on its way to us when the monitor died was reported as well.
            numbers = re.findall(rb"synced (\d+)\r?\n", seen + out)
            check(b"failed" not in seen + out, "a write failed", seen + out, err)
            last = int(numbers[-1])
            reported += len(numbers)
            check_records(disk, last)
        print(f"    {reported} synced records in {turns} runs, each ended by SIGKILL: none lost", flush=True)
