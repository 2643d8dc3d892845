"""Linux guests whose process is another one from one moment to the next, while they work."""
import json
import socket
import threading

from guests import *  # noqa: F403
from integrity import FIO
from network import free_port, need_uplink
from snapshots import LOAD, Machines, counter_moves, expect_nothing_wrong
from taps import programs


class Echo(threading.Thread):
    """One connection to a guest that gives back what it gets, byte by byte, for as long as the test wants."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=BOUND)
        self.ends = False
        self.bytes = 0
        self.wrong = ""
        self.start()

    def run(self):
        try:
            while not self.ends:
                sent = os.urandom(16384)
                self.connection.sendall(sent)
                got = b""
                while len(got) < len(sent):
                    part = self.connection.recv(len(sent) - len(got))
                    if not part:
                        self.wrong = "the connection has ended"
                        return
                    got += part
                if got != sent:
                    self.wrong = f"other bytes after {self.bytes}"
                    return
                self.bytes += len(sent)
        except OSError as error:
            self.wrong = str(error)

    def end(self):
        self.ends = True
        self.join(BOUND)
        self.connection.close()
        check(not self.wrong and not self.is_alive(), "the connection", self.wrong)
        return self.bytes


# Disks that are written to and compared for as long as the guest runs: one that lasts, by fio, and an ephemeral one.
WORK = r"""
cd /run; : > fio.rounds; : > overlay.rounds
mkdir -p /proc/sys/vm
fios() { while fio --name=v --filename=/dev/vda --direct=1 --ioengine=psync --rw=randwrite --bs=4k --size=1m --verify=crc32c --verify_fatal=1 > fio.log 2>&1
  do echo >> fio.rounds; done; cp fio.log fio.wrong; }
overlays() { while :; do dd if=/dev/urandom of=/run/sent bs=64k count=8 2> /dev/null; dd if=/run/sent of=/dev/vdb bs=64k conv=fsync 2> /dev/null
  echo 1 > /proc/sys/vm/drop_caches; cmp -n 524288 /run/sent /dev/vdb > overlay.log 2>&1 || { cp overlay.log overlay.wrong; return; }; echo >> overlay.rounds; done; }
fios < /dev/null > /dev/null 2>&1 &
overlays < /dev/null > /dev/null 2>&1 &
stream-echo 7 < /dev/null > /dev/null 2>&1 &
iperf3 -s -D < /dev/null > /dev/null 2>&1
echo started
"""


def rounds_of(machines):
    return [int(number) for number in machines.run("m", "wc -l < /run/fio.rounds; wc -l < /run/overlay.rounds").split()]


@test
def a_guest_is_updated_again_and_again():
    """Under fio and iperf3, with a connection whose every byte is compared."""
    if not FIO:
        raise Skip("SNUG_IMAGE_FIO does not say where fio is")
    need_uplink()
    nonce = os.urandom(8).hex()
    count = 100 if EVERYTHING else 3
    with Machines() as machines, tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as more:
        for name in ("lasts", "overlaid"):
            with open(f"{folder}/{name}.img", "wb") as file:
                file.write(os.urandom(8 << 20))
        subprocess.run(["gcc", "-static", "-O1", "-o", folder + "/stream-echo", os.path.dirname(__file__) + "/stream_echo.c"], check=True)
        own = small_initrd(folder, {"bin/stream-echo": folder + "/stream-echo"})
        with_iperf, _ = programs(more, "iperf3")
        ports = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_STREAM)
        machines.boot("m", "--cpus", "2", "--initrd", FIO, "--initrd", own, "--initrd", with_iperf, "--net", "user",
                      "-p", f"{ports[0]}:7", "-p", f"{ports[1]}:5201", "--disk", f"{folder}/lasts.img", "--disk", f"{folder}/overlaid.img,ephemeral=true",
                      "--disk", f"{folder}/overlaid.img,readonly=true", memory="256M")
        check(machines.run("m", LOAD.replace("reader ticker", "ticker"), nonce) == "started\n", "the load does not start")
        check(machines.run("m", WORK).endswith("started\n"), "the work does not start")
        echo = Echo(ports[0])
        iperf = subprocess.Popen(["iperf3", "-c", "127.0.0.1", "-p", str(ports[1]), "-t", "3000", "-b", "4M", "-i", "0"],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            count_at, before, stood = counter_moves(machines, "m"), rounds_of(machines), []
            echoed = echo.bytes
            for number in range(1, count + 1):
                ended = machines.snug("update", "m").expect(0)
                stood.append(int(re.search(r"m stood still for (\d+) ms", ended.err)[1]))
                now = counter_moves(machines, "m")
                check(now > count_at, f"update {number}: the counter was at {count_at} and is at {now}")
                count_at = now
                deadline = time.monotonic() + BOUND
                while echo.bytes == echoed:
                    check(time.monotonic() < deadline and not echo.wrong, f"update {number}: the connection stands still", echo.wrong, ended.err)
                    time.sleep(0.05)
                echoed = echo.bytes
                check(iperf.poll() is None, f"update {number}: iperf3 has ended", iperf.returncode)
            print(f"    stood still for {', '.join(map(str, stood[:12]))} ms", flush=True)
            check(json.loads(machines.snug("inspect", "m").expect(0).out)["updates"] == count, "not so many updates")
            after = rounds_of(machines)
            deadline = time.monotonic() + BOUND
            while not all(now > then for now, then in zip(after, before)):
                check(time.monotonic() < deadline, "a disk stands still", before, after)
                time.sleep(0.5)
                after = rounds_of(machines)
            wrong = machines.run("m", "cat /run/*.wrong 2> /dev/null || true; dmesg -r | grep -E '^<[0-4]>.*(virtio|vda|vdb|blk|I/O|eth0)' || true")
            check(wrong == "", "wrong", wrong)
            expect_nothing_wrong(machines, "m", nonce)
            print(f"    {echo.end() >> 10} KiB came back on one connection; {after[0] - before[0]} rounds of fio, {after[1] - before[1]} of the overlay", flush=True)
            check(iperf.poll() is None, "iperf3 has ended", iperf.returncode)
            iperf.kill()
            # What is left of it is a machine as any other.
            machines.save("m", "s")
            machines.snug("stop", "-t", "60", "m").expect(0)
        finally:
            iperf.kill()
            said = iperf.communicate()[0]
        check("error" not in said, "iperf3", said)


@test
def a_command_goes_on_in_a_guest_that_is_updated():
    with Machines() as machines:
        machines.snug("run", "-d", "--name", "m", "-k", TINY, "--initrd", INITRD, "--memory", "128M", "--", "sh", "-c",
                      "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; usleep 20000; done; exit 7").expect(0)
        deadline = time.monotonic() + BOUND
        while "line 5" not in machines.snug("logs", "m").out:
            check(time.monotonic() < deadline, "it prints nothing")
            time.sleep(0.1)
        for _ in range(3):
            machines.snug("update", "m").expect(0)
        check(machines.snug("wait", "m").expect(7).out == "7\n", "another status")
        lines = machines.snug("logs", "m").out.split("\n")
        check(lines == [f"line {i}" for i in range(1, 401)] + [""], "not each line once", lines)


@test
def a_guest_that_boots_and_one_that_resets_are_updated():
    """Before the agent is there; and what has its memory from another process boots with memory of its own."""
    with Machines() as machines:
        machines.snug("run", "-d", "--name", "m", "-k", TINY, "--initrd", INITRD, "--memory", "128M", "--vsock", "auto", "--cmdline", "snug.agent").expect(0)
        machines.snug("update", "m").expect(0)
        machines.run("m", "echo here")
        machines.snug("exec", "m", "--", "reboot", "-f")
        deadline = time.monotonic() + BOUND
        while json.loads(machines.snug("inspect", "m").expect(0).out)["boots"] < 2:
            check(time.monotonic() < deadline, "it does not boot again")
            time.sleep(0.1)
        check(machines.run("m", "echo here") == "here\n", "no agent")
        for _ in range(2):
            machines.snug("update", "m").expect(0)
        check(machines.run("m", "hostname") == "m\n", "another name")
        machines.snug("exec", "m", "--", "hostname", "other").expect(0)
        machines.snug("update", "m").expect(0)
        check(machines.run("m", "hostname") == "other\n", "its name is gone")
        found = json.loads(machines.snug("inspect", "m").expect(0).out)
        check((found["boots"], found["updates"]) == (2, 4), "not so many", found)
