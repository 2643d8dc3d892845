#!/usr/bin/env python3
"""A part of the Linux tier on VT-x, for the lab in Bochs: as few guests as show that each thing works, since each takes
ten times what it takes elsewhere. Words on the command line select tests whose names contain them.
"""
import functools
import json
import sys

sys.dont_write_bytecode = True

from guests import *  # noqa: E402,F403
import harness  # noqa: E402
import disks  # noqa: E402,F401
import ends  # noqa: E402,F401
import in_guest  # noqa: E402
import kernels  # noqa: E402,F401
import network  # noqa: E402
import snapshots  # noqa: E402

CHOSEN = ("cpus_1", "cpus_2", "cpus_4", "end_power_off", "end_reset_exit", "end_panic_reported_by_pvpanic",
          "end_panic_seen_on_the_console", "end_triple_fault", "disks_hold_what_is_written")
harness.choose(CHOSEN)


@test
def this_is_vt_x():
    """Debian's kernel has loaded its kvm_intel with what it needs for any guest, and snug finds nothing amiss."""
    for name in ("ept", "unrestricted_guest"):
        with open("/sys/module/kvm_intel/parameters/" + name) as parameter:
            check(parameter.read().strip() == "Y", f"kvm_intel has no {name}")
    done = snug("doctor")
    check(done.status == 0, "doctor finds this machine unfit", done.out, done.err)


@functools.cache
def stock(cpus):
    """What a guest with Debian's kernel says of itself, by its agent: processors, release, address of the kernel."""
    ended = snug("run", "--kernel", STOCK, "--initrd", INITRD, "--initrd", STOCK_MODULES, "--memory", "256M", "--timeout", "300s",
                 "--cpus", str(cpus), "--", "sh", "-c", "nproc; uname -r; sed -n 's/ . _text$//p' /proc/kallsyms; exit 7").expect(7)
    return ended.out.split()


def stock_kernel(cpus):
    def run():
        with open(os.path.dirname(STOCK) + "/version") as version:
            release = version.read().split()[0].removeprefix("linux-image-")
        check(stock(cpus)[:2] == [str(cpus), release], f"not {cpus} processors under {release}", stock(cpus))
    return run


for count in (1, 2, 4):
    add(f"stock_kernel_{count}", stock_kernel(count))


@test
def kaslr():
    places = {int(stock(count)[2], 16) for count in (1, 2, 4)}
    check(len(places) > 1, "three boots, one address", places)
    check(all(place % (2 << 20) == 0 and place >= 0xffffffff81000000 for place in places), "no place for a kernel", places)


@test
def agent_pause_and_clock():
    """Commands and copies by the agent; while it is paused a guest does nothing; its clock goes as the host's does."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder}
        snug("run", "-d", "--name", "one", "--kernel", TINY, "--initrd", INITRD, "-m", "64M", env=env).expect(0)
        try:
            guest = in_guest.Reach(folder + "/snug/one/vsock.sock")
            guest.wait_for_agent()
            in_guest.commands(guest)
            in_guest.copies(guest)

            def uptime():
                """Of the guest, between two moments of the host."""
                before = time.monotonic()
                words = guest.run("cat", "/proc/uptime").expect(0).out.split()
                return before, float(words[0]), time.monotonic()

            first = uptime()
            time.sleep(30)
            second = uptime()
            least, most = second[0] - first[2], second[2] - first[0]
            passed = second[1] - first[1]
            print(f"    {passed:.2f} s in the guest, {least:.2f} to {most:.2f} s outside")
            check(least - 0.1 <= passed <= most + 0.1, f"{passed} s in the guest, {least} to {most} s outside")

            snug("exec", "one", "--", "sh", "-c", "(while :; do date +%s > /tmp/now; done) >/dev/null 2>&1 &", env=env).expect(0)
            snug("pause", "one", env=env).expect(0)
            pid = json.loads(snug("inspect", "one", env=env).expect(0).out)["pid"]
            used = cpu_seconds(pid)
            time.sleep(5)
            check(cpu_seconds(pid) - used < 2, "a paused machine works")
            snug("resume", "one", env=env).expect(0)
            first = int(guest.run("cat", "/tmp/now").expect(0).out or 0)
            deadline = time.monotonic() + BOUND
            while int(guest.run("cat", "/tmp/now").expect(0).out or 0) <= first:
                check(time.monotonic() < deadline, "a resumed machine does not go on")
        finally:
            snug("kill", "one", env=env)


# As LOAD of the snapshots, with less to do: a number and a counter that are in memory only, and timers on both processors.
LIGHT_LOAD = r"""
mkdir -p /run/t; cd /run/t; echo $1 > nonce; : > wrong
counter() { i=0; while :; do i=$((i+1)); echo $i > counter.new; mv counter.new counter; usleep 200000; done; }
ticker() { while :; do a=$(cut -d. -f1 /proc/uptime); usleep 300000; b=$(cut -d. -f1 /proc/uptime); [ $b -ge $a ] || echo "clock $a $b" >> wrong; done; }
for job in counter ticker; do $job < /dev/null > /dev/null 2>&1 & done
for n in 0 1; do taskset -c $n sh -c 'while :; do usleep 100000; done' < /dev/null > /dev/null 2>&1 & done
echo started
"""


@test
def saved_restored_and_forked():
    """A guest with two processors goes on where it stood, and so does one that is forked from it as it runs."""
    nonce = os.urandom(8).hex()
    with snapshots.Machines() as machines:
        machines.boot("first", "--cpus", "2")
        check(machines.run("first", LIGHT_LOAD, nonce) == "started\n", "the load does not start")
        count = snapshots.counter_moves(machines, "first")
        machines.save("first", "s")
        machines.gone("first")
        machines.restore("s", "second")
        forked = machines.snug("fork", "second", "--name", "third", "--wait").expect(0)
        print("   ", forked.err.strip(), flush=True)
        for name in ("second", "third"):
            now = snapshots.counter_moves(machines, name)
            check(now >= count, f"{name}: the counter was at {count} and is at {now}")
            snapshots.expect_nothing_wrong(machines, name, nonce)
            check(machines.run(name, "hostname") == name + "\n", "not its own name")


def cpu_seconds(pid):
    """CPU time of a machine's processes."""
    ticks = 0
    for one in processes_of(pid):
        with open(f"/proc/{one}/stat") as stat:
            words = stat.read().rsplit(")", 1)[1].split()
        ticks += int(words[11]) + int(words[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@test
def user_network():
    """A file fetched from the host, a page by a published port."""
    import http.server
    import threading
    import urllib.request
    network.need_uplink()
    with tempfile.TemporaryDirectory() as folder:
        data = os.urandom(1 << 20)
        with open(folder + "/file", "wb") as file:
            file.write(data)
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
        handler.func.log_message = lambda *_: None
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        import socket
        port = network.free_port(socket.SOCK_STREAM)
        script = (f"gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); "
                  f"wget -q -O - http://$gateway:{server.server_port}/file | md5sum; "
                  "mkdir /www; echo from the guest > /www/page; httpd -p 80 -h /www; echo serving; "
                  "nc -l -p 81 < /dev/null > /dev/null")
        process = subprocess.Popen(
            [SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--timeout", "300s", "--cmdline", "quiet", "--net",
             "user,host_loopback=true", "-p", f"{port}:80", "-p", f"{port + 1}:81", "--", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            seen = process.stdout.readline() + process.stdout.readline()
            check(seen.decode().split() == [hashlib.md5(data).hexdigest(), "-", "serving"], "not what is served", seen)
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/page", timeout=60).read()
            check(page == b"from the guest\n", "the published port gives something else", page)
            held = hold(process.pid)
            socket.create_connection(("127.0.0.1", port + 1), 60).close()
            out, err = process.communicate(timeout=BOUND)
        finally:
            process.kill()
            process.communicate()
            server.shutdown()
        check(process.returncode == 0, f"status {process.returncode}", seen + out, err)
        check(not network.passt_processes(), "passt is still there", network.passt_processes())
        check_gone(held)


harness.main("intel")
