"""Guests with shares that are saved, and go on with what they had open there."""
from guests import *  # noqa: F403
from snapshots import Machines

SHARER = r"""
cd /work/sub/folder; : > /run/wrong
(exec 3>> /work/log; i=0; while :; do i=$((i+1)); echo "line $i of $1" >&3 || echo log >> /run/wrong; [ -e /run/name ] && echo "new $1" >&3 && rm /run/name
  [ "$(cat here)" = "in the folder" ] || echo here >> /run/wrong; usleep 50000; done) < /dev/null > /dev/null 2>&1 &
exec 4< /work/other; cat <&4; (exec 4< /work/other; while ! [ -e /run/look ]; do usleep 50000; done; cat <&4 > /run/seen 2>&1; echo $? > /run/status) < /dev/null > /dev/null 2>&1 &
"""


@test
def what_two_machines_append_is_all_there():
    """Also on a host's overlayfs, as in its containers."""
    with Machines() as machines:
        folder = machines.folder.name + "/shared"
        os.mkdir(folder)
        count = 40
        for name in "ab":
            machines.boot(name, "-v", f"{folder}:/work")
        # Both are at it at once.
        for name in "ab":
            machines.run(name, "exec 3>> /work/log; (i=0; while [ $i -lt $2 ]; do i=$((i+1)); echo $i of $1 >&3; usleep 50000; done; touch /run/done) "
                         "< /dev/null > /dev/null 2>&1 &", name, str(count))
        for name in "ab":
            machines.run(name, "n=0; while ! [ -e /run/done ] && [ $n -lt 600 ]; do usleep 100000; n=$((n+1)); done")
        with open(folder + "/log") as log:
            lines = log.read().splitlines()
        for name in "ab":
            check([line for line in lines if line.endswith(name)] == [f"{n} of {name}" for n in range(1, count + 1)], "not all of it", lines)


@test
def a_share_goes_on():
    with Machines() as machines:
        folder = machines.folder.name + "/shared"
        os.makedirs(folder + "/sub/folder")
        for name, text in (("sub/folder/here", "in the folder\n"), ("other", "the first\n"), ("log", "")):
            with open(f"{folder}/{name}", "w") as file:
                file.write(text)
        machines.boot("m", "-v", f"{folder}:/work")
        check(machines.run("m", SHARER, "m") == "the first\n", "the load does not start")
        machines.save("m", "s")
        # The one that was saved goes on.
        before = os.stat(folder + "/log").st_size
        machines.run("m", "n=0; while [ $(wc -c < /work/log) -le $1 ] && [ $n -lt 300 ]; do usleep 50000; n=$((n+1)); done", str(before))
        check(os.stat(folder + "/log").st_size > before, "what is saved stands still")
        machines.gone("m")
        # Meanwhile on the host.
        with open(folder + "/other.new", "w") as file:
            file.write("the second\n")
        os.rename(folder + "/other.new", folder + "/other")
        with open(folder + "/sub/new", "w") as file:
            file.write("made meanwhile\n")
        for name in "ab":
            machines.restore("s", name)
            check(machines.run(name, "grep -c ' /work ' /proc/mounts").strip() == "1", "mounted again over what is there")
            machines.run(name, "touch /run/name; n=0; while [ -e /run/name ] && [ $n -lt 300 ]; do usleep 50000; n=$((n+1)); done; [ ! -e /run/name ]")
            check(machines.run(name, "cat /run/wrong") == "", f"{name}: what was open is not any more")
            check(machines.run(name, "cat /work/sub/new") == "made meanwhile\n", "it does not see what was made meanwhile")
        with open(folder + "/log") as log:
            lines = log.read().splitlines()
        check(lines.count("new m") == 2 and all(re.fullmatch(r"line \d+ of m|new m", line) for line in lines), "the log is torn", [l for l in lines if not re.fullmatch(r"line \d+ of m", l)], lines[-3:])
        # A name leads to what it leads to now; what was open is another file, and that is said.
        check(machines.run("a", "n=0; while [ \"$(cat /work/other)\" != 'the second' ] && [ $n -lt 100 ]; do usleep 50000; n=$((n+1)); done; "
                           "cat /work/other") == "the second\n", "the old one")
        machines.run("a", "touch /run/look; n=0; while ! [ -e /run/status ] && [ $n -lt 300 ]; do usleep 50000; n=$((n+1)); done")
        status, seen = machines.run("a", "cat /run/status").strip(), machines.run("a", "cat /run/seen")
        # Linux 6.12 asks nobody for what it has read of it before.
        check("the second" not in seen and (status != "0" or seen == "the first\n"), "an open file has become another one", status, seen)
        # One of one.
        machines.save("b", "t")
        machines.restore("t", "c")
        check(machines.run("c", "cat /run/wrong; cat /work/sub/folder/here") == "in the folder\n", "what was open is not any more")
        machines.snug("stop", "-t", "60", "a").expect(0)
