"""The clocks of a guest that was on disk for a while."""
from guests import *  # noqa: F403
from snapshots import Machines

ON_DISK = 60 if EVERYTHING else 8  # seconds

# Looks at the clock that only goes forward, on one processor, and keeps the longest step that it has seen and whether one went
# back, both in hundredths of a second.
WATCH = r"""
n=$(nproc); while [ $n -gt 0 ]; do n=$((n-1)); taskset -c $n sh -c '
  read last rest < /proc/uptime; last=${last%.*}${last#*.}; most=0
  while :; do read now rest < /proc/uptime; now=${now%.*}${now#*.}; step=$((now - last)); last=$now
    [ $step -lt 0 ] && echo $step >> /run/back; [ $step -gt $most ] && { most=$step; echo $most > /run/most.'$n'; }
    usleep 10000; done' < /dev/null > /dev/null 2>&1 & done; cat /sys/devices/system/clocksource/clocksource0/current_clocksource
"""


def clock_of(machines, name):
    """(before, the guest's clock, behind it): seconds, of which the outer ones are the host's."""
    before = time.time()
    said = dict(re.findall(r"time\.(tv_sec|tv_usec):\s+(\d+)", machines.run(name, "adjtimex")))
    return before, int(said["tv_sec"]) + int(said["tv_usec"]) / 1e6, time.time()


def kept_time(source, flags):
    with Machines() as machines:
        machines.boot("m", "--cpus", "2", *flags, kernel=STOCK)
        said = machines.run("m", WATCH).strip()
        if said != source:
            raise Skip(f"the guest's kernel prefers {said} here")
        machines.run("m", "usleep 500000")
        machines.save("m", "s")
        machines.gone("m")
        time.sleep(ON_DISK)
        machines.restore("s", "n")
        before, guest, behind = clock_of(machines, "n")
        # The first command there is sees the right time: nothing has been set in between.
        check(before - 0.05 <= guest <= behind + 0.05, f"its clock is {guest - before:.3f} s off what it was before it was asked, {guest - behind:.3f} s "
              "off what it was afterwards")
        machines.run("n", "usleep 500000")
        steps = [int(word) for word in machines.run("n", "cat /run/most.*").split()]
        print(f"    {source}: {(guest - before) * 1000:.0f} ms behind the question, {(behind - guest) * 1000:.0f} ms before the answer; longest step "
              f"{max(steps) / 100} s", flush=True)
        check(len(steps) == 2 and max(steps) < ON_DISK * 100 / 2, "the clock that only goes forward has leapt", steps)
        check(machines.run("n", "cat /run/back 2>/dev/null || true") == "", "it has gone back")
        for word in ("soft lockup", "stalls on", "Marking clocksource"):
            check(word not in machines.run("n", "dmesg"), f"the kernel says: {word}")


add("a_saved_guest_has_the_time_by_kvm_clock", functools.partial(kept_time, "kvm-clock", ()))
add("a_saved_guest_has_the_time_by_tsc", functools.partial(kept_time, "tsc", ("--cmdline", "clocksource=tsc tsc=reliable")), is_exhaustive=True)
