"""Linux guests that are saved and begin again where they stood, alone, in a chain, and several of one."""
import json
import socket
import threading
import urllib.request

from guests import *  # noqa: F403
from network import address_of, free_port, need_uplink


# What no reboot survives: a number that is in memory only, and a counter that goes on. The disk is read all the time and
# what it gives compared; timers run on every processor; random numbers come from the device. What is wrong goes to "wrong".
LOAD = r"""
mkdir -p /run/t; cd /run/t; echo $1 > nonce; : > wrong
counter() { i=0; while :; do i=$((i+1)); echo $i > counter.new; mv counter.new counter; usleep 20000; done; }
reader() { good=$(md5sum < /dev/vda); while :; do echo 1 > /proc/sys/vm/drop_caches; [ "$(md5sum < /dev/vda)" = "$good" ] || echo disk >> wrong;
  echo x >> reads; done; }
ticker() { while :; do a=$(cut -d. -f1 /proc/uptime); usleep 50000; b=$(cut -d. -f1 /proc/uptime); [ $b -ge $a ] || echo "clock $a $b" >> wrong; done; }
speaker() { i=0; while :; do i=$((i+1)); echo "line $i"; usleep 30000; done > /dev/ttyS0; }
chance() { while :; do head -c 64 /dev/hwrng > /dev/null 2>&1 || echo rng >> wrong; usleep 100000; done; }
for job in counter reader ticker speaker; do $job < /dev/null > /dev/null 2>&1 & done
[ -c /dev/hwrng ] && { chance < /dev/null > /dev/null 2>&1 & }
n=$(nproc); while [ $n -gt 0 ]; do n=$((n-1)); taskset -c $n sh -c 'while :; do usleep 10000; done' < /dev/null > /dev/null 2>&1 & done
echo started
"""


class Machines:
    """Machines and snapshots in a place of a test's own."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.env = {**os.environ, "XDG_RUNTIME_DIR": self.folder.name + "/run", "XDG_DATA_HOME": self.folder.name + "/data"}
        os.mkdir(self.folder.name + "/run", 0o700)
        return self

    def __exit__(self, *_):
        names = self.snug("ps", "-q", "-a").out.split()
        if names:
            self.snug("rm", "--force", *names)
        self.folder.cleanup()

    def snug(self, *arguments, **keywords):
        return snug(*arguments, env=self.env, **keywords)

    def boot(self, name, *flags, kernel=None, memory="128M"):
        initrds = ["--initrd", INITRD] + (["--initrd", STOCK_MODULES] if kernel == STOCK else [])
        self.snug("run", "-d", "--wait", "--name", name, "-k", kernel or TINY, *initrds, "--memory", memory, *flags).expect(0)

    def save(self, name, snapshot):
        self.snug("snapshot", name, snapshot).expect(0)

    def restore(self, snapshot, name):
        self.snug("restore", "-d", "--wait", snapshot, "--name", name).expect(0)

    def gone(self, name):
        self.snug("rm", "--force", name).expect(0)

    def run(self, name, script, *words):
        return self.snug("exec", name, "--", "sh", "-c", script, "sh", *words).expect(0).out

    def read_disk(self):
        path = self.folder.name + "/disk.img"
        with open(path, "wb") as disk:
            disk.write(os.urandom(1 << 20))
        return ["--disk", f"{path},readonly=true"]


def page_of(port):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30).read().decode()


def counter_moves(machines, name):
    """The counter, once it has moved."""
    script = "cd /run/t; a=$(cat counter); n=0; while [ $(cat counter) = $a ] && [ $n -lt 200 ]; do usleep 50000; n=$((n+1)); done; cat counter"
    before = int(machines.run(name, "cat /run/t/counter"))
    after = int(machines.run(name, script))
    check(after > before, f"the counter stands still at {before}")
    return after


def expect_nothing_wrong(machines, name, nonce):
    check(machines.run(name, "cat /run/t/nonce").strip() == nonce, "another guest than was saved")
    wrong = machines.run(name, "cat /run/t/wrong")
    check(wrong == "", "wrong", wrong)
    for word in ("soft lockup", "stalls on", "Call Trace", "clocksource: timekeeping watchdog"):
        check(word not in machines.run(name, "dmesg"), f"the kernel says: {word}")


def chain(cpus, rounds, kernel):
    nonce = os.urandom(8).hex()
    with Machines() as machines:
        machines.boot("m0", "--cpus", str(cpus), "--balloon", "0", *machines.read_disk(), kernel=kernel)
        check(machines.run("m0", LOAD, nonce) == "started\n", "the load does not start")
        count = counter_moves(machines, "m0")
        for number in range(1, rounds + 1):
            last, name = f"m{number - 1}", f"m{number}"
            machines.save(last, f"s{number}")
            # The one that was saved goes on as well.
            if number == 1:
                counter_moves(machines, last)
            machines.gone(last)
            machines.restore(f"s{number}", name)
            machines.snug("snapshot", "rm", f"s{number}").expect(0)
            now = counter_moves(machines, name)
            check(now >= count, f"round {number}: the counter was at {count} and is at {now}")
            count = now
        reads = int(machines.run(name, "a=$(wc -l < /run/t/reads); usleep 500000; n=0; while [ $(wc -l < /run/t/reads) = $a ] && "
                                 "[ $n -lt 100 ]; do usleep 100000; n=$((n+1)); done; echo $(($(wc -l < /run/t/reads) - a))"))
        check(reads > 0, "the disk is not read any more")
        expect_nothing_wrong(machines, name, nonce)
        machines.snug("stop", "-t", "60", name).expect(0)


for count, image, number in ((1, STOCK, 3), (2, TINY, 200 if EVERYTHING else 2), (4, STOCK, 2)):
    add(f"saved_and_restored_in_a_chain_with_{count}_vcpus", functools.partial(chain, count, number, image), is_exhaustive=count != 2)


# Read by one program as soon as a command runs.
IDENTITY = ("head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo; cat /proc/sys/kernel/random/uuid; hostname; "
            "read up rest < /proc/uptime; echo $up; date +%s; cat /run/nonce")


def clones(kernel):
    with Machines() as machines:
        machines.boot("first", kernel=kernel)
        machines.run("first", "echo $1 > /run/nonce", "in memory only")
        up = float(machines.run("first", "cut -d' ' -f1 /proc/uptime"))
        machines.save("first", "s")
        machines.gone("first")
        # Time on disk.
        time.sleep(5)
        found = []
        for number in range(3):
            machines.restore("s", f"clone{number}")
            found.append(machines.run(f"clone{number}", IDENTITY).splitlines())
            host = time.time()
            random_bytes, uuid, name, uptime, date, nonce = found[-1]
            check(nonce == "in memory only", "another guest than was saved", found[-1])
            check(name == f"clone{number}", "the host's name is not its own", found[-1])
            check(abs(int(date) - host) < 3, f"its date is {date}, the host's {host}")
            check(up <= float(uptime) < up + 60, f"up for {up} s when it was saved, and for {uptime} s now")
        # The kernel has heard of it by itself, before the agent told it.
        if kernel == TINY:
            check("reseeded due to virtual machine fork" in machines.run("clone0", "dmesg"), "the generation id is not seen")
        for field in (0, 1):
            check(len({one[field] for one in found}) == len(found), "the same random numbers", found)
        # All of them run side by side, and each is its own.
        machines.run("clone0", "echo other > /run/nonce")
        check(machines.run("clone1", "cat /run/nonce").strip() == "in memory only", "they share what they write")


add("clones_are_other_machines_stock", functools.partial(clones, STOCK), is_exhaustive=True)
add("clones_are_other_machines_tiny", functools.partial(clones, TINY))


@test
def streams_channels_and_networks_after_a_restore():
    with Machines() as machines:
        channel = machines.folder.name + "/channel.sock"
        machines.boot("m", "--net", "user", "--channel", f"org.test,socket={channel}", "--console", "none")
        find = ("for p in /sys/class/virtio-ports/*; do [ \"$(cat $p/name 2>/dev/null)\" = org.test ] && echo /dev/${p##*/}; done")
        port = machines.run("m", find).strip()
        check(port.startswith("/dev/"), "no channel")
        # A program that answers on the channel, from before. (One opens it, and what it reads ends while nobody is there.)
        machines.run("m", f"(while :; do if read line; then echo \"heard $line\"; else usleep 100000; fi; done) <> {port} >&0 2>/dev/null &")
        # A command that runs over a connection of before ends with it; what listens goes on.
        running = subprocess.Popen([SNUG, "exec", "m", "--", "sleep", "1000"], env=machines.env, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        address = machines.run("m", "ip -4 -o addr show scope global | head -1")
        machines.save("m", "s")
        check(running.poll() is None, "a snapshot ends what runs in the machine")
        machines.gone("m")
        check(running.wait(BOUND) == 125, "a command of a machine that is gone")
        machines.restore("s", "again")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(60)
            peer.connect(channel)
            peer.sendall(b"word\n")
            heard = b""
            while b"\n" not in heard:
                heard += peer.recv(100)
            check(heard == b"heard word\n", "the channel is another", heard)
        check(machines.run("again", "ip -4 -o addr show scope global | head -1") == address, "the address has gone")
        for _ in range(5):
            check(machines.run("again", "echo there") == "there\n", "commands do not run")
        # The hardware's goes with the name, before the first command.
        check(machines.run("again", "cat /sys/class/net/eth0/address").strip() == address_of("again"), "the hardware address is another's")
        machines.save("again", "t")
        machines.gone("again")
        machines.restore("t", "third")
        check(machines.run("third", "cat /sys/class/net/eth0/address").strip() == address_of("third"), "the hardware address is another's")
        gateway = machines.run("third", "ip route show default").split()[2]
        machines.run("third", "for i in 1 2 3 4 5; do ping -c 1 -W 5 $1 >/dev/null && exit; done; arping -c 3 -I eth0 $1", gateway)


@test
def machines_that_begin_there_publish_ports_of_their_own():
    need_uplink()
    serve = "mkdir -p /run/w; hostname > /run/w/index.html; httpd -p 80 -h /run/w"
    with Machines() as machines:
        first, second = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_STREAM)
        machines.boot("one", "-p", f"{first}:80")
        machines.run("one", serve)
        check(page_of(first) == "one\n", "nothing is served")
        machines.save("one", "s")
        taken = machines.snug("restore", "-d", "s", "--name", "two").expect(125)
        check(str(first) in taken.err, "it is not said which port is taken", taken.err)
        machines.snug("restore", "-d", "--wait", "s", "--name", "two", "-p", f"{second}:80").expect(0)
        machines.snug("fork", "one", "--name", "three", "--wait", "-p", "0:80").expect(0)
        rows = [json.loads(line) for line in machines.snug("ps", "--json").expect(0).out.splitlines()]
        third = int(next(row["ports"] for row in rows if row["name"] == "three")[0].split(":")[-2])
        for port in (first, second, third):
            check(page_of(port) == "one\n", f"nothing is served on port {port}")
        wrong = machines.snug("restore", "s", "-p", "80:80:80:80:80").expect(125)
        check("ports" in wrong.err, "odd words", wrong.err)


# --- disks that are written to --------------------------------------------------------------------------------

# Sixteen places of a disk are written to in turns, and what each should hold is noted in memory when it is on the disk. So a
# disk of another moment than the memory's has something else, sooner or later. It goes on until there is a file "stop".
WRITER = r"""
mkdir -p /run/w; cd /run/w; : > wrong; rm -f stop stopped
write() { head -c 65536 /dev/urandom > new; dd if=new of=/dev/vda bs=64k seek=$1 conv=fsync,notrunc 2>/dev/null || echo write >> wrong
  md5sum < new > sum.new; mv sum.new sum.$1; }
i=0; while [ $i -lt 16 ]; do write $i; i=$((i+1)); done
(while ! [ -e stop ]; do write $((i % 16)); i=$((i+1)); echo $i > written; done; touch stopped) < /dev/null > /dev/null 2>&1 &
echo started
"""

# The number of writes, once all of them are on the disk again by what is read from it.
READ_BACK = r"""
cd /run/w; touch stop; n=0; while ! [ -e stopped ] && [ $n -lt 600 ]; do usleep 100000; n=$((n+1)); done
[ -e stopped ] || echo does not stop; cat wrong; echo 3 > /proc/sys/vm/drop_caches; i=0
while [ $i -lt 16 ]; do dd if=/dev/vda bs=64k skip=$i count=1 2>/dev/null | md5sum | cmp -s - sum.$i || echo place $i; i=$((i+1)); done
cat written
"""


def need_direct(folder):
    try:
        os.close(os.open(f"{folder}/direct", os.O_CREAT | os.O_WRONLY | os.O_DIRECT))
    except OSError as error:
        raise Skip(f"no direct I/O in {folder}: {error.strerror}") from error


def written_disk(keys, kernel):
    with Machines() as machines:
        disk = machines.folder.name + "/disk.img"
        with open(disk, "wb") as file:
            file.truncate(64 << 20)
            file.seek(32 << 20)
            file.write(os.urandom(1 << 20))
        if "direct" in keys:
            need_direct(machines.folder.name)
        machines.boot("m", "--cpus", "2", "--disk", disk + keys, kernel=kernel)
        check(machines.run("m", WRITER) == "started\n", "the load does not start")

        def expect_all_there(name):
            said = machines.run(name, READ_BACK).split()
            check(len(said) == 1 and int(said[0]) > 16, f"{name}: the disk has not what was written to it", said)
            check(machines.run(name, "dmesg | grep -c 'I/O error' || true").strip() == "0", "I/O errors")
            return int(said[0])

        snapshots = machines.folder.name + "/data/snug/snapshots/"
        machines.save("m", "s")
        saved = {name: checksum(snapshots + f"s/{name}") for name in os.listdir(snapshots + "s") if name[0] in "do"}
        check(saved, "nothing of the disk is saved")
        # The one that was saved has lost nothing.
        expect_all_there("m")
        machines.gone("m")
        # Side by side: each writes to a disk of its own.
        for name in "ab":
            machines.restore("s", name)
        machines.run("a", "echo of a | dd of=/dev/vda bs=512 seek=90000 conv=fsync,notrunc 2>/dev/null")
        check("of a" in machines.run("a", "dd if=/dev/vda bs=512 skip=90000 count=1 2>/dev/null"), "it is not written")
        check("of a" not in machines.run("b", "dd if=/dev/vda bs=512 skip=90000 count=1 2>/dev/null"), "they share what they write")
        expect_all_there("b")
        machines.gone("b")
        # One of one, whatever becomes of the first: what it has written since is part of it.
        machines.save("a", "u")
        machines.gone("a")
        check(all(checksum(snapshots + "s/" + name) == before for name, before in saved.items()), "a snapshot was written to")
        machines.snug("snapshot", "rm", "s").expect(0)
        if "ephemeral" not in keys:
            os.unlink(disk)
        machines.restore("u", "c")
        check("of a" in machines.run("c", "dd if=/dev/vda bs=512 skip=90000 count=1 2>/dev/null"), "what it had written is gone")
        expect_all_there("c")


for what, disk_keys, image in (("that_lasts", "", TINY), ("that_is_ephemeral", ",ephemeral=true", STOCK),
                               ("with_a_thread", ",thread=true,queues=2", STOCK), ("past_the_page_cache", ",direct=true", TINY)):
    add(f"a_disk_{what}_is_of_the_moment_of_the_memory", functools.partial(written_disk, disk_keys, image), is_exhaustive=what != "that_lasts")


@test
def a_disk_shares_its_blocks_with_its_copy():
    """On a file system that can: 256 MiB take no room, and the guest stands still no longer for them."""
    if shutil.which("mkfs.btrfs") is None:
        raise Skip("needs mkfs.btrfs: apt-get install btrfs-progs")
    with Machines() as machines:
        image, place = machines.folder.name + "/btrfs.img", machines.folder.name + "/btrfs"
        with open(image, "wb") as file:
            file.truncate(1 << 30)
        os.mkdir(place)
        for command in (["mkfs.btrfs", "-q", image], ["modprobe", "btrfs"], ["modprobe", "loop"], ["mount", "-o", "loop", image, place]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise Skip(f"no btrfs here: {command[0]}: {done.stderr.strip()}")
        try:
            machines.env["XDG_DATA_HOME"] = place + "/data"
            with open(place + "/disk.img", "wb") as file:
                for _ in range(256):
                    file.write(os.urandom(1 << 20))
            machines.boot("m", "--disk", place + "/disk.img")
            check(machines.run("m", WRITER) == "started\n", "the load does not start")
            taken = machines.snug("snapshot", "m", "s").expect(0)
            check("were copied" not in taken.err, "blocks are not shared", taken.err)
            print("   ", taken.err.strip())
            machines.gone("m")
            machines.restore("s", "a")
            said = machines.run("a", READ_BACK).split()
            check(len(said) == 1, "the disk has not what was written to it", said)
        finally:
            machines.__exit__()
            machines.__enter__()
            subprocess.run(["umount", "-l", place])


@test
def what_cannot_be_saved_is_said_and_the_machine_goes_on():
    with Machines() as machines:
        disk = machines.folder.name + "/disk.img"
        with open(disk, "wb") as file:
            file.truncate(4 << 20)
        machines.boot("m", "--disk", disk + ",mode=pmem")
        refused = machines.snug("snapshot", "m").expect(125)
        check(disk in refused.err and "mode: pmem" in refused.err, "odd words", refused.err)
        check(machines.run("m", "echo there") == "there\n", "it does not go on")
        check(not os.path.exists(machines.folder.name + "/data/snug/snapshots/m"), "left over")


# --- templates ------------------------------------------------------------------------------------------------


def from_template(machines, script, *flags, kernel=TINY):
    initrds = ["--initrd", INITRD] + (["--initrd", STOCK_MODULES] if kernel == STOCK else [])
    return machines.snug("run", "-k", kernel, *initrds, "-m", "128M", "--template", "true", "--log-level", "info", *flags, "--",
                         "sh", "-c", script)


# The times of its messages: no other boot has the same. (The kernel makes its boot_id when it is first asked for it.)
BOOT = "dmesg | head -40 | md5sum | cut -c 1-32"


@test
def commands_begin_with_a_template():
    with Machines() as machines:
        machines.env["XDG_CACHE_HOME"] = machines.folder.name + "/cache"
        templates = machines.folder.name + "/cache/snug/templates"
        # What a program of the first leaves in its guest is not part of it.
        first = from_template(machines, f"echo mine > /run/left; {BOOT}").expect(0).out
        check(len(os.listdir(templates)) == 1, "no template is left", os.listdir(templates))
        seen = []
        for number in range(3):
            ended = from_template(machines, f"{BOOT}; cat /proc/sys/kernel/random/uuid; hostname; "
                                  "ls /run/left 2>&1; exit 7", "--name", f"t{number}").expect(7)
            boot, uuid, name, left = ended.out.splitlines()
            check(boot + "\n" == first, "it has booted", ended.out)
            check(name == f"t{number}" and "No such file" in left, "it is the first one", ended.out)
            seen.append(uuid)
        check(len(set(seen)) == 3, "the same random numbers", seen)
        # Another kind boots: other memory, another command line, other devices.
        for flags in (["-m", "96M"], ["--cmdline", "other"], ["--rng", "false"], ["--cpus", "2"]):
            boot = from_template(machines, BOOT, *flags).expect(0).out
            check(boot != first, f"{flags} makes no other kind")
        check(len(os.listdir(templates)) == 5, "not one for each kind", os.listdir(templates))
        # Without the key nothing begins so, and nothing is left.
        boot = machines.snug("run", "-k", TINY, "--initrd", INITRD, "-m", "128M", "--", "sh", "-c", BOOT).expect(0).out
        check(boot != first and len(os.listdir(templates)) == 5, "it begins with a template unasked")


@test
def a_template_that_is_none_is_made_anew():
    with Machines() as machines:
        machines.env["XDG_CACHE_HOME"] = machines.folder.name + "/cache"
        templates = machines.folder.name + "/cache/snug/templates"
        first = from_template(machines, BOOT).expect(0).out
        state = f"{templates}/{os.listdir(templates)[0]}/state"
        with open(state, "r+b") as file:
            file.truncate(100)
        ended = from_template(machines, BOOT).expect(0)
        check(ended.out != first and "template:" in ended.err, "it begins with half of one", ended.out, ended.err)
        third = from_template(machines, BOOT).expect(0).out
        fourth = from_template(machines, BOOT).expect(0).out
        check(third == fourth, "no new one is made", third, fourth)


COUNTS = "trap 'echo hung up' HUP; i=0; while [ ! -e /run/end ]; do i=$((i+1)); echo line $i; usleep 20000; done; echo end; exit 7"


def lines_of(machines, name, at_least):
    """What its command has printed, whole lines, once there are so many."""
    deadline = time.monotonic() + BOUND
    while True:
        printed = machines.snug("logs", name).out
        lines = [line.strip() for line in printed.split("\n")[:-1] if line.startswith(("line ", "hung", "end"))]
        if len(lines) >= at_least:
            return lines
        check(time.monotonic() < deadline, f"only {len(lines)} lines of {name}", printed)
        time.sleep(0.2)


@test
def what_a_machine_was_started_for_goes_on():
    """With its output and its status, wherever the machine begins again; it is not started once more."""
    with Machines() as machines:
        machines.snug("run", "-d", "--name", "first", "-k", TINY, "--initrd", INITRD, "--memory", "128M", "--",
                      "sh", "-c", COUNTS).expect(0)
        lines_of(machines, "first", 20)
        machines.save("first", "s")
        told = lines_of(machines, "first", 1)
        machines.restore("s", "a")
        # One of one, while nobody has taken up what it prints for a moment.
        lines_of(machines, "a", 5)
        machines.save("a", "t")
        machines.restore("t", "b")
        for name in ("first", "a", "b"):
            lines = lines_of(machines, name, 10)
            numbers = [int(line.split()[1]) for line in lines if line.startswith("line ")]
            check(numbers == list(range(numbers[0], numbers[0] + len(numbers))), f"{name} has lost lines", lines)
            check(name == "first" or numbers[0] > 15, f"{name} was begun anew", lines[:5], told[-5:])
            check("hung up" not in lines, f"{name} was hung up", lines)
            # The machine may be gone before that is answered.
            machines.snug("exec", name, "--", "touch", "/run/end")
            ended = machines.snug("wait", name)
            check(ended.out.split() == ["7"], f"{name} ends with another status", ended.out, ended.err)
            check(lines_of(machines, name, 1)[-1] == "end", f"the end of {name} is lost", lines_of(machines, name, 1)[-3:])
        # In the foreground it is our command.
        with subprocess.Popen([SNUG, "restore", "s", "--name", "c"], env=machines.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            check(process.stdout.readline().startswith(b"line "), "it prints nothing here")
            machines.snug("exec", "c", "--", "touch", "/run/end")
            out, err = process.communicate(timeout=BOUND)
            check(process.returncode == 7 and out.endswith(b"\nend\n"), "another end here", process.returncode, out[-100:], err)
