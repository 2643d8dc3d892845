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
        machines.boot("m0", "--cpus", "2", "--net", "user")
        check(machines.run("m0", LOAD, nonce) == "started\n", "the load does not start")
        count = counter_moves(machines, "m0")
        for number in range(1, 6 if EVERYTHING else 4):
            sent = machines.snug("send", f"m{number - 1}", "--", SNUG, "receive", "--wait", "--name", f"m{number}").expect(0)
            check(sent.out == f"m{number}\n", "not by its name", sent.out)
            running = machines.snug("ps", "-q").out.split()
            check(running == [f"m{number}"], "not the only one that runs", running)
            now = counter_moves(machines, f"m{number}")
            check(now >= count, f"the counter was at {count} and is at {now}")
            count = now
        print("   ", sent.err.strip(), flush=True)
        expect_nothing_wrong(machines, f"m{number}", nonce)
