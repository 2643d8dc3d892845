"""A stock Debian: its own kernel, initramfs and systemd, started from the example specs by an ordinary user."""
import contextlib
import grp
import http.server
import json
import pathlib
import select
import socket
import stat
import threading
import urllib.request
import in_guest
from guests import *  # noqa: F403
from network import address_of, free_port, need_uplink, passt_processes
from snapshots import Machines

IMAGE = os.environ.get("SNUG_IMAGE_DEBIAN")  # guest-images/build debian-rootfs
EXAMPLES = os.path.realpath(os.path.dirname(__file__) + "/../../guest-images/examples")
IN_LAB = os.path.exists("/run/snug-lab")
ORDINARY = 64321  # a user and group id that nobody has


@contextlib.contextmanager
def ordinary_user():
    """Yields the command prefix that makes a program run as an ordinary user in the group of /dev/kvm. In the lab,
    where everything is thrown away, files are opened up to that user first; elsewhere this user is as good."""
    if os.geteuid() != 0:
        yield []
        return
    if not IN_LAB:
        raise Skip("run as root outside of the lab: no ordinary user to run it as")
    try:
        group = grp.getgrnam("kvm").gr_gid
    except KeyError:
        group = ORDINARY + 1
    before = os.stat("/dev/kvm")
    os.chown("/dev/kvm", 0, group)
    os.chmod("/dev/kvm", 0o660)
    for path in (IMAGE, SNUG, EXAMPLES, os.environ["HOME"]):
        path = os.path.realpath(path)
        while path != "/":
            mode = os.stat(path).st_mode & 0o7777
            if mode & 0o005 != 0o005 and os.path.isdir(path):
                os.chmod(path, mode | 0o005)
            path = os.path.dirname(path)
    os.chmod("/var/tmp", 0o1777)
    # Kernels and templates are kept by each user for himself: root's are made anew afterwards.
    kept = [f"{os.environ.get('XDG_CACHE_HOME', os.path.expanduser('~/.cache'))}/snug/{name}" for name in ("kernels", "templates")]
    for folder in kept:
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, 0o700)
        os.chown(folder, ORDINARY, ORDINARY)
    try:
        yield ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", f"--groups={group}", "--inh-caps=-all",
               "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    finally:
        os.chown("/dev/kvm", before.st_uid, before.st_gid)
        os.chmod("/dev/kvm", before.st_mode & 0o7777)
        for folder in kept:
            shutil.rmtree(folder, ignore_errors=True)


def need_image():
    if not IMAGE:
        raise Skip("SNUG_IMAGE_DEBIAN does not say where the image is")


class Login:
    """A machine whose serial console one can log in to."""

    def __init__(self, command):
        self.seen = b""
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.deadline = time.monotonic() + 3 * BOUND

    def wait_for(self, mark):
        """What came before `mark`."""
        while mark not in self.seen:
            check(time.monotonic() < self.deadline, f"{mark!r} did not come", self.seen)
            if select.select([self.process.stdout], [], [], 1)[0]:
                chunk = os.read(self.process.stdout.fileno(), 65536)
                check(chunk, f"the machine ended before {mark!r} came", self.seen,
                      b"" if chunk else self.process.communicate()[1])
                self.seen += chunk
        before, _, self.seen = self.seen.partition(mark)
        return before.decode("utf-8", "replace").replace("\r", "")

    def type(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def log_in(self):
        self.wait_for(b"login: ")
        self.type("root")
        self.wait_for(b"# ")
        self.type("stty -echo; PS1=; TERM=dumb; echo logged''-in")
        self.wait_for(b"logged-in\r\n")

    def run(self, command):
        """What `command` prints."""
        self.type(f"{command}; echo; echo do''ne")
        return self.wait_for(b"\r\ndone\r\n")

    def end(self):
        out, err = self.process.communicate(timeout=2 * BOUND)
        return Ended(self.process.returncode, self.seen + out, err)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def web_server(content):
    """A server of one file on this machine's 127.0.0.1; its port."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()


def ask_until(function, bound=BOUND, evidence=lambda: ()):
    """The first answer of a service that may not have started yet. `evidence`: shown where there is none."""
    deadline = time.monotonic() + bound
    while True:
        try:
            return function()
        except OSError as error:
            if time.monotonic() >= deadline:
                check(False, f"no answer: {error}", *evidence())
            time.sleep(0.5)


def page_of(port):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30).read().decode()


def datagram_answer(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(("127.0.0.1", port))

        def ask():
            client.send(b"hello")
            return client.recv(100)

        return ask_until(ask)


def three_free_ports():
    """The first of three that follow on each other."""
    while True:
        first = free_port(socket.SOCK_STREAM)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            for port in range(first, first + 3):
                stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)).bind(("127.0.0.1", port))
            return first


def written_bytes(pid):
    """Space taken by the files without a name that a machine writes to: those behind its ephemeral disks. PermissionError for
    an ordinary user, when the guest has a process of its own."""
    blocks = {}  # of each file, whichever processes have it open
    for folder in (f"/proc/{one}/fd" for one in processes_of(pid)):
        for fd in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(f"{folder}/{fd}")
                nameless = found.st_nlink == 0 and stat.S_ISREG(found.st_mode)
                if nameless and not os.readlink(f"{folder}/{fd}").startswith("/memfd:"):
                    blocks[found.st_dev, found.st_ino] = found.st_blocks
    return sum(blocks.values()) * 512


def image_checksum(path):
    """Of all of the image; in the lab, where that takes more than a minute, of every sixteenth MiB. The first is among
    them: whoever mounts a file system to write leaves a mark there."""
    found = hashlib.blake2b()
    with open(path, "rb") as disk:
        while part := disk.read(1 << 20):
            found.update(part)
            if IN_LAB:
                disk.seek(15 << 20, os.SEEK_CUR)
    return found.hexdigest()


def written_at(path):
    """What changes when a file is written to, by whatever way."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def console_end(path):
    """The last that a machine has shown; nothing when it has ended well."""
    with contextlib.suppress(OSError):
        return pathlib.Path(path).read_bytes()[-3000:]
    return b""


@test
def debian_boots_for_an_ordinary_user():
    """Login prompt, disk, network both ways, power button, and not one capability."""
    need_image()
    need_uplink()
    data = os.urandom(2 << 20)
    tcp, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    with ordinary_user() as prefix, web_server(data) as server:
        start = time.monotonic()
        machine = Login([*prefix, SNUG, "run", EXAMPLES + "/debian.yaml", "--net", "user,host_loopback=true",
                         "-p", f"{tcp}:80", "-p", f"{udp}:5353/udp", "--grace-period", "300s", "--stats"])
        try:
            pid = machine.process.pid
            machine.wait_for(b"login: ")
            machine.seen = b"login: "
            print(f"    login prompt after {time.monotonic() - start:.0f} s", flush=True)
            machine.log_in()
            for process in processes_of(pid):
                status = status_of(process)
                check(prefix == [] or set(status["Uid"].split()) == {str(ORDINARY)},
                      "snug does not run as the ordinary user", status)
                check({status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16},
                      "snug has capabilities", status)
            check(len(passt_processes()) == 1, "not one passt", passt_processes())

            text = machine.run("uname -n; cat /sys/block/vda/size; findmnt -no SOURCE,FSTYPE /; ls /sys/class/net; nproc; "
                               "cat /sys/class/misc/hw_random/rng_current; systemctl is-system-running")
            name, size, source, kind, *rest = text.split()
            check(name == "debian" and source == "/dev/vda" and kind == "ext4", "not the machine of the example", text)
            check(int(size) * 512 == os.stat(IMAGE + "/disk").st_size, "the disk has another size", text)
            check("2" in rest and any(word.startswith("virtio_rng") for word in rest), "not its devices", text)
            check("degraded" not in rest, "a unit failed", text, machine.run("systemctl --failed --no-pager"))

            gateway = "$(ip -4 route show default | awk '{ print $3; exit }')"
            text = machine.run("until ip -4 route show default | grep -q via; do sleep 0.5; done; "
                               f"wget -q -O - http://{gateway}:{server}/file | md5sum; systemctl start hello-web; "
                               "(echo from the guest; sleep 1000) | nc -u -l 5353 > /dev/null & "
                               "ip -o -6 addr show scope global | wc -l")
            check(hashlib.md5(data).hexdigest() in text, "what was fetched is not what was served", text)
            page = ask_until(lambda: page_of(tcp))
            check(page.startswith("hello from debian"), "the published TCP port gives something else", page)
            answer = datagram_answer(udp)
            check(answer == b"from the guest\n", "the published UDP port gives something else", answer)

            in_guest.debian("debian", prefix)

            text = machine.run("dmesg -l emerg,alert,crit,err,warn")
            # Traces of a stalled host (soft lockups) list modules and functions of all names.
            found = [line for line in text.splitlines() if re.search("virtio|pci|acpi|vda|net", line, re.I)
                     and not re.search(r"Modules linked in|\+0x[0-9a-f]+/0x", line)
                     # Linux 6.12 says it of every guest that has a processor of AMD's.
                     and "amd_pstate: the _CPC object is not present" not in line]
            check(not found, "the kernel complains of the machine", "\n".join(found))
            held = hold(pid)
            machine.process.send_signal(signal.SIGTERM)
            ended = machine.end().expect(0)
            check_gone(held)
            check("power button pressed" in ended.err, "no power button", ended.err)
        finally:
            machine.close()
    check(not passt_processes(), "passt is still there", passt_processes())


def nothing_is_written(machines):
    """To no file: what guests change is in their memory."""
    with contextlib.suppress(PermissionError):  # root alone may look
        taken = [written_bytes(pid) for pid in machines]
        check(not any(taken), f"files without a name take {taken} bytes")


PRIVATE_MIB = 60  # what one of several Debian guests has for itself after its boot, at most


def memory_kib(pid):
    """Of a machine: (what its processes have for themselves, what guest RAM has of that, resident of its root, which is the host's,
    what guest RAM has in common with others)."""
    own = ram = root = common = 0
    for process in processes_of(pid):
        for mapping in mappings(process):
            if mapping["file"].endswith("/root"):
                root += mapping["Rss"]
                continue
            private = mapping["Private_Clean"] + mapping["Private_Dirty"]
            own += private
            if "dc" in mapping["VmFlags"]:
                ram += private
                common += mapping["Rss"] - private
    return own, ram, root, common


def each_has_little_memory(machines, most=PRIVATE_MIB):
    """Free pages are the host's again some time after a guest has freed them."""
    if os.geteuid() != 0:
        return say_that_root_sees_more()
    deadline = time.monotonic() + BOUND
    while True:
        found = [memory_kib(pid) for pid in machines]
        if all(own <= most << 10 for own, *_ in found) or time.monotonic() > deadline:
            break
        time.sleep(2)
    own, ram, root, common = zip(*found)

    def mib(values):
        return ", ".join(f"{value / 1024:.1f}" for value in values)

    print(f"    private memory of each: {mib(own)} MiB, of that guest RAM: {mib(ram)}; and in this host's memory once for all, of the root: "
          f"{max(root) / 1024:.1f} MiB, of RAM that they began with: {max(common) / 1024:.1f}; together "
          f"{(sum(own) + max(root) + max(common)) / 1024:.0f} MiB", flush=True)
    check(min(root) > 0, "they do not have the file for memory", found)
    check(max(own) <= most << 10, f"more than {most} MiB", found)


@test
@exhaustive
def three_debians_from_one_image():
    """Each with its own name, MAC address and port, at the same time; the image stays as it is, and no copy is made."""
    need_image()
    need_uplink()
    image = IMAGE + "/root"
    before, checksum_before = written_at(image), image_checksum(image)
    first = three_free_ports()
    names = ("alpha", "beta", "gamma")
    with ordinary_user() as prefix:
        # The kernel is kept unpacked from its first boot on; guests that begin then share its pages.
        snug("run", "--kernel", IMAGE + "/kernel", "--timeout", "1s", prefix=prefix).expect(124)
        machines = []
        start = time.monotonic()
        script = subprocess.Popen([*prefix, "env", "SNUG=" + os.path.realpath(SNUG), EXAMPLES + "/three-guests", str(first),
                                   "--grace-period", "300s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            # One line for each: name, address, process, console.
            text = ""
            while text.count("\n") < len(names):
                check(select.select([script.stdout], [], [], BOUND)[0], "no word of the script", text)
                check(more := os.read(script.stdout.fileno(), 4096).decode(), "the script has ended", text)
                text += more
            said = text.splitlines()
            machines = [int(re.search(r"process (\d+)", line).group(1)) for line in said]
            consoles = [re.search(r"console in (\S+)\)", line).group(1) for line in said]

            def page(number):
                check(script.poll() is None, "a machine has ended", *map(console_end, consoles))
                return page_of(first + number)

            pages = [ask_until(lambda: page(number), BOUND, lambda: map(console_end, consoles)) for number in range(3)]
            print(f"    the three pages were there after {time.monotonic() - start:.0f} s", flush=True)
            found = [re.fullmatch(r"hello from (\w+), ([0-9a-f:]{17})\n", text) for text in pages]
            check(all(found), "not the pages of the three machines", *pages)
            check([one.group(1) for one in found] == list(names), "not their names", *pages)
            check(len({one.group(2) for one in found}) == 3, "MAC addresses are not their own", *pages)
            nothing_is_written(machines)
            each_has_little_memory(machines)
            held = [end for pid in machines for end in hold(pid)]
            # Ctrl-C in a terminal reaches all of them; a signal to the script is passed on.
            script.send_signal(signal.SIGTERM)
            out, err = script.communicate(timeout=2 * BOUND)
            check(script.returncode == 0, f"status {script.returncode}", *map(console_end, consoles), err)
            check(err.count(b"power button pressed") == 3, "no power button", err)
            check_gone(held)
            print(f"    all off after {time.monotonic() - start:.0f} s", flush=True)
        finally:
            # The machines first: they have the script's streams, too.
            for pid in [*machines, *children_of(script.pid), script.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            script.communicate()
    check(not passt_processes(), "passt is still there", passt_processes())
    check(written_at(image) == before, "the image was written to")
    check(image_checksum(image) == checksum_before, "the image's checksum has changed")


@test
def debians_from_one_template():
    """The first one leaves it before it has looked at its root, and goes on from there as those do that are started later. They are
    as different as if they had booted."""
    need_image()
    need_uplink()
    names = ("alpha", "beta", "gamma")[:3 if EVERYTHING else 2]
    first = three_free_ports()
    folder = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")) + "/snug/templates"

    def templates():
        return {name for name in (os.listdir(folder) if os.path.isdir(folder) else []) if not name.startswith("new-") and not name.endswith(".seen")}

    with Machines() as machines:
        before, start = templates(), time.monotonic()
        for number, name in enumerate(names):
            machines.snug("run", EXAMPLES + "/three-guests.yaml", "-d", "--wait", "--name", name, "-p", f"{first + number}:80").expect(0)
            print(f"    {name} was there after {time.monotonic() - start:.0f} s", flush=True)
            check(len(templates() - before) == 1, "not one template", before, templates())
        seen = []
        for number, name in enumerate(names):
            check(ask_until(lambda port=first + number: page_of(port)).startswith(f"hello from {name}, "), "another page")
            said = machines.run(name, "uname -n; cat /sys/class/net/e*/address; systemctl is-system-running --wait; cat /proc/sys/kernel/random/uuid /etc/machine-id; "
                                      "sed 's/ T .*//' /proc/kallsyms | head -1; date +%s").split()
            check(said[:3] == [name, address_of(name), "running"], f"not {name}", said)
            check(abs(int(said[-1]) - time.time()) < 60, "another time", said)
            seen.append(said[3:6])
        uuids, ids, addresses = zip(*seen)
        check(len(set(uuids)) == len(set(ids)) == len(names) and len(set(addresses)) == 1, "not from one template", seen)
        each_has_little_memory([json.loads(machines.snug("inspect", name).expect(0).out)["pid"] for name in names])


@test
@exhaustive
def three_debians_from_one_snapshot():
    """They have what one has booted, and each what it has written since; with names, addresses and ports of their own."""
    need_image()
    need_uplink()
    names = ("alpha", "beta", "gamma")
    first = three_free_ports()
    with Machines() as machines:
        machines.snug("run", EXAMPLES + "/three-guests.yaml", "-d", "--wait", "--name", "base", "-p", "0:80").expect(0)
        machines.snug("exec", "base", "--", "systemctl", "is-system-running", "--wait")
        machines.save("base", "debian")
        machines.gone("base")
        start = time.monotonic()
        for number, name in enumerate(names):
            machines.snug("restore", "-d", "--wait", "debian", "--name", name, "-p", f"{first + number}:80").expect(0)
        print(f"    the three were there after {time.monotonic() - start:.0f} s", flush=True)
        for number, name in enumerate(names):
            check(ask_until(lambda port=first + number: page_of(port)).startswith("hello from base"), "another page")
            said = machines.run(name, "uname -n; cat /sys/class/net/e*/address; systemctl is-system-running").split()
            check(said == [name, address_of(name), "running"], f"not {name}", said)
        each_has_little_memory([json.loads(machines.snug("inspect", name).expect(0).out)["pid"] for name in names])
