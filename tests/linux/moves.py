"""Linux guests that are forked as they run, and that move to another process."""
from guests import *  # noqa: F403
from snapshots import IDENTITY, LOAD, Machines, counter_moves, expect_nothing_wrong


@test
def forks_are_other_machines():
    nonce = os.urandom(8).hex()
    with Machines() as machines:
        machines.boot("m", "--cpus", "2", *machines.read_disk(), kernel=STOCK)
        check(machines.run("m", LOAD, nonce) == "started\n", "the load does not start")
        machines.run("m", "cp /run/t/nonce /run/nonce")
        forked = machines.snug("fork", "m", "-n", "2", "--wait").expect(0)
        print("   ", forked.err.strip(), flush=True)
        names = forked.out.split()
        found = []
        for name in names:
            before = time.time()
            found.append(machines.run(name, IDENTITY).splitlines())
            _, _, host_name, _, date, kept = found[-1]
            check(kept == nonce and host_name == name, "another guest, or with another's name", found)
            check(before - 1 <= int(date) <= time.time() + 1, "its date is another", found)
        check(len({one[0] for one in found}) == len({one[1] for one in found}) == 2, "the same random numbers", found)
        for name in (*names, "m"):
            counter_moves(machines, name)
            expect_nothing_wrong(machines, name, nonce)


@test
def a_guest_moves_again_and_again():
    """As a new program takes a machine over from an old one, on the same host."""
    nonce = os.urandom(8).hex()
    with Machines() as machines:
        machines.boot("m0", "--cpus", "2", "--net", "user", *machines.read_disk())
        check(machines.run("m0", LOAD, nonce) == "started\n", "the load does not start")
        count = counter_moves(machines, "m0")
        for number in range(1, 6 if EVERYTHING else 4):
            sent = machines.snug("send", f"m{number - 1}", "--", SNUG, "receive", "--wait", "--name", f"m{number}").expect(0)
            check(sent.out == f"m{number}\n", "not by its name", sent.out)
            print("   ", sent.err.strip().splitlines()[-1], flush=True)
            running = machines.snug("ps", "-q").out.split()
            check(running == [f"m{number}"], "not the only one that runs", running)
            now = counter_moves(machines, f"m{number}")
            check(now >= count, f"the counter was at {count} and is at {now}")
            count = now
        expect_nothing_wrong(machines, f"m{number}", nonce)


# 64 MiB of its memory are written to in each second, or as many as the processor can.
WRITER = r"""
cd /run; dd if=/dev/urandom of=pattern bs=1M count=64 2> /dev/null; : > written
writer() { while :; do sleep 1 & dd if=pattern of=big bs=1M conv=notrunc 2> /dev/null; echo >> written; wait; done; }
writer < /dev/null > /dev/null 2>&1 &
until [ $(wc -l < written) -gt 2 ]; do usleep 100000; done
"""
WRITTEN = "wc -l < /run/written; cut -d' ' -f1 /proc/uptime"


@test
def a_guest_that_writes_to_its_memory_is_sent():
    """To a process with folders of its own, through a pipe."""
    nonce = os.urandom(8).hex()
    with Machines() as here, Machines() as there:
        here.boot("m", "--cpus", "2", memory="512M")
        check(here.run("m", LOAD.replace("reader ticker", "ticker"), nonce) == "started\n", "the load does not start")
        here.run("m", WRITER)
        written, up = here.run("m", WRITTEN).split()
        folders = [f"{name}={there.env[name]}" for name in ("XDG_RUNTIME_DIR", "XDG_DATA_HOME")]
        began = time.monotonic()
        sent = here.snug("send", "m", "--", "env", *folders, SNUG, "receive").expect(0)
        took = time.monotonic() - began
        for line in sent.err.strip().splitlines():
            print("   ", line, flush=True)
        stood = int(re.search(r"stood still for (\d+) ms", sent.err)[1]) / 1000
        now, up_now = there.run("m", WRITTEN).split()
        rate = 64 * (int(now) - int(written)) / (float(up_now) - float(up))
        print(f"    {took:.1f} s in all, the guest wrote {rate:.0f} MiB in a second of its own", flush=True)
        check(len(re.findall(": round", sent.err)) >= 2 and stood < took, "nothing went again, or it stood still all the while", sent.err)
        check(here.snug("ps", "-q").out == "", "it runs here as well")
        counter_moves(there, "m")
        expect_nothing_wrong(there, "m", nonce)
        # Nobody writes down what it does any more: it is saved, and goes on.
        there.save("m", "s")
        counter_moves(there, "m")


@test
def a_guest_whose_sender_is_killed_goes_on():
    nonce = os.urandom(8).hex()
    with Machines() as machines:
        machines.boot("m", "--cpus", "2")
        check(machines.run("m", LOAD.replace("reader ticker", "ticker"), nonce) == "started\n", "the load does not start")
        for taker, state in (("sleep 1000", "running"), ("cat > /dev/null; sleep 1000", "paused")):
            sender = subprocess.Popen([SNUG, "send", "m", "--downtime", "1m", "--", "sh", "-c", taker], env=machines.env, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            try:
                deadline = time.monotonic() + BOUND
                while f'"state":"{state}"' not in machines.snug("ps", "--json").out.replace(" ", ""):
                    check(time.monotonic() < deadline, f"it is not {state}")
                    time.sleep(0.1)
                time.sleep(1)
                check(sender.poll() is None, "it has ended", sender.returncode)
            finally:
                sender.kill()
                sender.wait()
            counter_moves(machines, "m")
            os.killpg(sender.pid, signal.SIGKILL)
            machines.save("m", state)
        expect_nothing_wrong(machines, "m", nonce)
