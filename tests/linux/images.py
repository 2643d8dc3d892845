"""Machines made of container images: pulled by skopeo from a layout, run as they say or as they are told."""
import json
import shutil
import urllib.request

from guests import *  # noqa: F403
from network import free_port, need_uplink
from oci_layout import File, layer, write_layout

APPLETS = ("sh", "cat", "dd", "ls", "id", "pwd", "env", "mount", "sleep", "httpd", "stat", "touch", "rm", "df", "grep", "ip", "init", "test", "sync")


class Images:
    """A cache of a test's own, and an image of two layers in a layout beside it."""

    def __enter__(self):
        if not shutil.which("skopeo"):
            raise Skip("skopeo is not installed")
        self.holder = tempfile.TemporaryDirectory()
        self.path = os.path.realpath(self.holder.name)
        self.env = {**os.environ, "XDG_CACHE_HOME": self.path + "/cache", "XDG_DATA_HOME": self.path + "/data", "XDG_RUNTIME_DIR": self.path}
        with open(os.path.dirname(INITRD) + "/busybox", "rb") as file:
            busybox = file.read()
        base = [File("bin/"), File("bin/busybox", busybox, 0o755), File("etc/"), File("etc/gone", "x"), File("srv/", uid=33, gid=33),
                File("etc/passwd", "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n"),
                *(File("bin/" + name, link="busybox") for name in APPLETS)]
        top = [File("etc/.wh.gone"), File("etc/version", "2\n"), File("srv/index.html", "hello from an image\n"),
               File("srv/large", os.urandom(8 << 20))]
        self.digest = write_layout(self.path + "/layout", [layer(base), layer(top)], {
            "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["cat /etc/version; id -u; pwd; echo $GREETING"], "User": "web", "WorkingDir": "/srv",
            "Env": ["GREETING=hi", "PATH=/bin"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"})
        self.name = f"oci:{self.path}/layout:latest"
        return self

    def __exit__(self, *_):
        for name in self.snug("ps", "-q", "-a").out.split():
            self.snug("rm", "--force", name)
        self.holder.cleanup()

    def snug(self, *arguments):
        return snug(*arguments, env=self.env)

    def run(self, *words, kernel=("--kernel", TINY), flags=(), name=None):
        return self.snug("run", *kernel, "-m", "128M", "--boot-timeout", "300s", "--image", name or self.name, *flags,
                         *(["--", *words] if words else []))

    def with_layer(self, name, entries, config):
        """Another image with one more layer."""
        with open(os.path.dirname(INITRD) + "/busybox", "rb") as file:
            busybox = file.read()
        base = [File("bin/"), File("bin/busybox", busybox, 0o755), File("etc/"), File("etc/passwd", "root:x:0:0::/root:/bin/sh\n"),
                *(File("bin/" + applet, link="busybox") for applet in APPLETS)]
        write_layout(f"{self.path}/{name}", [layer(base), layer(entries)], {"Env": ["PATH=/bin"], **config})
        return f"oci:{self.path}/{name}:latest"

    def row(self, machine):
        rows = [json.loads(line) for line in self.snug("ps", "-a", "--json").out.splitlines()]
        return next((row for row in rows if row["name"] == machine), None)

    def until_it_is(self, state, machine):
        """What is said of its health once it is that."""
        deadline = time.monotonic() + BOUND
        while (row := self.row(machine)).get("health", {}).get("state") != state:
            check(time.monotonic() < deadline, f"never {state}", row)
            time.sleep(0.2)
        return row["health"]


@test
def images_run_as_they_say_or_as_they_are_told():
    with Images() as images:
        ended = images.run().expect(0)
        check(ended.out == "2\n33\n/srv\nhi\n", "not what the image says", ended.out, ended.err)
        ended = images.run("cat /etc/gone; id -u; pwd; echo $GREETING; exit 7", flags=["-e", "GREETING=ho", "-w", "/", "-u", "root"]).expect(7)
        check(ended.out == "0\n/\nho\n" and "No such file" in ended.err, "not what was said", ended.out, ended.err)
        # What is written stays in the guest; what is here is not brought again.
        shutil.rmtree(images.path + "/layout")
        ended = images.run("touch /new /etc/version; rm /srv/index.html; ls /new /srv; mount | grep ' / '; mount | grep -c erofs; cat /proc/1/comm",
                           flags=["-u", "root", "--pull", "never"]).expect(0)
        check(ended.out.startswith("/new\n") and "type overlay" in ended.out and ended.out.endswith("init\n"), "not its root", ended.out, ended.err)
        check(images.run("cat /srv/index.html; ls /new").out == "hello from an image\n", "the image has changed")


def prepared(images, name, **files):
    """As snug image build lays a guest image."""
    folder = f"{images.path}/cache/snug/{name}"
    os.makedirs(folder)
    for file, path in files.items():
        os.symlink(path, f"{folder}/{file}")


@test
def images_are_memory_of_the_host():
    """Kernels of guest images take the root as persistent memory; drivers come from the guest image's modules."""
    with Images() as images:
        prepared(images, "default", kernel=TINY, initrd=INITRD)
        prepared(images, "stock", kernel=STOCK, initrd=INITRD, modules=STOCK_MODULES)
        for kernel in ((), ("--kernel", "stock")):
            ended = images.run(kernel=kernel).expect(0)
            check(ended.out == "2\n33\n/srv\nhi\n", "not what the image says", ended.out, ended.err)
            # What is read is in the host's memory only.
            ended = images.run("grep ^Cached: /proc/meminfo; cat /srv/large >/dev/null; grep ^Cached: /proc/meminfo; ls /sys/block",
                               kernel=kernel, flags=["-u", "root"]).expect(0)
            before, after = (int(line.split()[1]) for line in ended.out.splitlines()[:2])
            check("pmem0" in ended.out.split() and after - before < 1024, "the guest has a copy", ended.out, ended.err)


@test
def images_serve_and_are_looked_after():
    need_uplink()
    with Images() as images:
        digest = images.snug("image", "pull", "-q", images.name).expect(0).out
        check(digest == images.digest + "\n", "another digest", digest)
        rows = images.snug("image", "list").expect(0).out
        check(images.name in rows and images.digest[7:19] in rows, "not listed", rows)
        info = json.loads(images.snug("image", "inspect", images.name).expect(0).out)
        check(info["ports"] == ["80/tcp"] and info["user"] == "web" and len(info["layers"]) == 2, "inspect says something else", info)
        port = free_port(1)  # SOCK_STREAM
        images.run("httpd -f -h /srv", flags=["-d", "--wait", "--name", "web", "-p", f"{port}:80", "-u", "root"]).expect(0)
        deadline = time.monotonic() + BOUND
        while True:
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read()
                break
            except OSError:
                check(time.monotonic() < deadline, "nothing is served", images.snug("logs", "web").out)
                time.sleep(0.5)
        check(page == b"hello from an image\n", "another page", page)
        check("version" in images.snug("exec", "web", "--", "/bin/ls", "/etc").expect(0).out, "exec sees something else")
        images.snug("stop", "-t", "5", "web")
        images.snug("rm", "--force", "web")
        # The signal that the image wants, by which it ends in order.
        images.run("trap 'echo asked to end; exit 3' QUIT; echo waiting; while :; do sleep 0.1; done",
                   flags=["-d", "--wait", "--name", "slow"]).expect(0)
        deadline = time.monotonic() + BOUND
        while "waiting" not in images.snug("logs", "slow").out:
            check(time.monotonic() < deadline, "it does not wait")
            time.sleep(0.1)
        images.snug("stop", "-t", "60", "slow").expect(0)
        check(images.snug("wait", "slow").out.strip() == "3", "not its own end")
        check("asked to end" in images.snug("logs", "slow").out, "another signal", images.snug("logs", "slow").out)
        images.snug("rm", "slow").expect(0)
        images.snug("image", "rm", images.name).expect(0)
        left = [name for _, _, names in os.walk(images.path + "/cache/snug/oci") for name in names if not name.startswith(("name ", "root ", "all"))]
        check(left == [], "something is left of the image", left)


@test
def images_that_cannot_be_had():
    with Images() as images:
        both = images.run(flags=["--root", "/"]).expect(125)
        check("image and root exclude each other" in both.err, "no clear error", both.err)
        for name, words in ((f"oci:{images.path}/nothing", "no such file or directory"), ("localhost:1/app", "refused"), ("Alpine", "lower case"),
                            (images.path + "/layout", "names no image")):
            ended = images.snug("run", "--kernel", TINY, "--image", name).expect(125)
            check(words in ended.err and ended.err.count("\n") == 1, "no clear error", ended.err)
        check("is not here" in images.run(flags=["--pull", "never"]).expect(125).err, "brought all the same")
        write_layout(images.path + "/other", [layer([File("file", "x")])], platform=("linux", "arm64"))
        ended = images.snug("run", "--kernel", TINY, "--image", f"oci:{images.path}/other:latest").expect(125)
        check("arm64" in ended.err or "amd64" in ended.err, "no clear error", ended.err)
        write_layout(images.path + "/escape", [layer([File("../../out", "x")])])
        ended = images.snug("run", "--kernel", TINY, "--image", f"oci:{images.path}/escape:latest", "--", "x").expect(125)
        check("path-escapes" in ended.err and "../../out" in ended.err, "no clear error", ended.err)


def fetch(url, images, machine):
    deadline = time.monotonic() + BOUND
    while True:
        try:
            return urllib.request.urlopen(url, timeout=10).read()
        except OSError:
            check(time.monotonic() < deadline, "nothing is served", images.snug("logs", machine).out)
            time.sleep(0.5)


@test
def images_publish_what_they_expose():
    need_uplink()
    with Images() as images:
        images.run("httpd -f -h /srv", flags=["-d", "--wait", "--name", "web", "-P", "-u", "root"]).expect(0)
        ports = images.row("web")["ports"]
        check(len(ports) == 1 and ports[0].startswith("127.0.0.1:") and ports[0].endswith(":80") and ":0:" not in ports[0], "not published", ports)
        port = ports[0].split(":")[1]
        check(port in images.snug("ps").out, "not shown", images.snug("ps").out)
        check(fetch(f"http://127.0.0.1:{port}/", images, "web") == b"hello from an image\n", "another page")


@test
def images_go_on_where_they_stood():
    """With what they were started for, whatever their name leads to by then."""
    with Images() as images:
        images.run("i=0; while [ ! -e /srv/end ]; do i=$((i+1)); echo line $i; /bin/busybox usleep 20000; done; cat /etc/version; exit 4",
                   flags=["-d", "--wait", "--name", "one", "-u", "root"]).expect(0)

        def until(text, machine):
            deadline = time.monotonic() + BOUND
            while text not in (printed := images.snug("logs", machine).out):
                check(time.monotonic() < deadline, f"{machine} does not print {text}", printed)
                time.sleep(0.2)

        until("line 20", "one")
        images.snug("snapshot", "one", "s").expect(0)
        images.snug("kill", "one").expect(0)
        shutil.rmtree(images.path + "/layout")
        check(images.with_layer("layout", [File("etc/version", "3\n")], {"Cmd": ["/bin/false"]}) == images.name, "another name")
        check(images.snug("image", "pull", "-q", images.name).expect(0).out != images.digest + "\n", "the name leads to the same image")
        images.snug("restore", "-d", "--wait", "s", "--name", "two").expect(0)
        until("line ", "two")
        images.snug("exec", "two", "--", "/bin/touch", "/srv/end")
        ended = images.snug("wait", "two")
        lines = images.snug("logs", "two").out.split()
        check(ended.out.split() == ["4"] and lines[-1] == "2", "another image, or another end", ended.out, ended.err, lines[-5:])
        check("1" not in lines, "it was begun anew", lines[:10])


@test
def images_keep_what_is_written_with_storage():
    if not shutil.which("mke2fs", path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
        raise Skip("mke2fs is not installed")
    with Images() as images:
        name = images.with_layer("kept", [File("data/", mode=0o750, uid=33, gid=33), File("data/first", "first\n", uid=33), File("more/")],
                                 {"Volumes": {"/data": {}, "/made/here": {}}})
        look = "cat /data/first; stat -c '%a %u' /data; grep -E ' (/data|/made/here|/) ' /proc/mounts"
        # In memory, with what the image has.
        ended = images.run("/bin/sh", "-c", "echo gone >/data/second; " + look, name=name).expect(0)
        check(ended.out.startswith("first\n750 33\n") and ended.out.count(" tmpfs ") == 2, "no volumes in memory", ended.out, ended.err)

        def kept(line, size="128M", status=0, flags=()):
            return images.run("/bin/sh", "-c", line, name=name, flags=["--name", "box", "--storage", size, *flags]).expect(status)

        ended = kept("echo second >/data/second; echo mine >/mine; rm /more -rf; mkdir -p /made/here; echo x >/made/here/y; " + look)
        check(ended.out.startswith("first\n750 33\n") and ended.out.count(" ext4 ") == 2, "no volumes that are kept", ended.out, ended.err)
        ended = kept("cat /mine /data/second /made/here/y; ls / /data; df -k /data")
        check(ended.out.startswith("mine\nsecond\nx\n") and "more" not in ended.out.split(), "not kept", ended.out, ended.err)
        before = int(ended.out.splitlines()[-1].split()[-5])
        # It grows, and does not shrink.
        ended = kept("cat /mine; df -k /data", size="256M")
        after = int(ended.out.splitlines()[-1].split()[-5])
        check(ended.out.startswith("mine\n") and after > before * 1.8, "it does not grow", before, ended.out, ended.err)
        check("can only grow" in kept("true", status=125).err, "it shrinks")
        # One machine at a time, also by another name for the folder of machines.
        images.run("/bin/sh", "-c", "echo running; sleep 1000", name=name, flags=["-d", "--wait", "--name", "box", "--storage", "256M"]).expect(0)
        env = images.env
        images.env = {**env, "XDG_RUNTIME_DIR": images.path + "/elsewhere"}
        os.mkdir(images.path + "/elsewhere", 0o700)
        check("in use" in kept("true", size="256M", status=125).err, "two at once")
        images.env = env
        refused = images.snug("rm", "--storage", "box").expect(125)
        check("box" in refused.err, "removed under a guest", refused.err)
        # Killed while it runs: what was synchronized is there.
        images.snug("exec", "box", "--", "/bin/sh", "-c", "echo late >/late; sync").expect(0)
        images.snug("kill", "box").expect(0)
        check(kept("cat /mine /late", size="256M").out == "mine\nlate\n", "lost with the machine")
        images.snug("rm", "--storage", "box").expect(0)
        check(kept("ls /", size="128M").out.split().count("mine") == 0, "not removed")
        images.snug("rm", "--storage", "box").expect(0)


@test
def images_tell_how_they_are():
    with Images() as images:
        name = images.with_layer("checked", [File("tmp/")], {
            "Cmd": ["/bin/sh", "-c", "sleep 1000"], "Healthcheck": {
                "Test": ["CMD-SHELL", "echo looked; test -e /tmp/well"], "Interval": 500_000_000, "Timeout": 60_000_000_000, "Retries": 2}})
        images.run(name=name, flags=["-d", "--wait", "--name", "box"]).expect(0)
        health = images.until_it_is("unhealthy", "box")
        check(health["failures"] >= 2 and health["last_status"] == 1 and health["last_output"] == "looked\n", "another reason", health)
        check("running (unhealthy)" in images.snug("ps").out, "not shown", images.snug("ps").out)
        images.snug("exec", "box", "--", "/bin/touch", "/tmp/well").expect(0)
        check(images.until_it_is("healthy", "box")["failures"] == 0, "failures stay")
        images.snug("pause", "box").expect(0)
        check("healthy" not in images.snug("ps").out, "a paused one is healthy", images.snug("ps").out)
        images.snug("resume", "box").expect(0)
        images.until_it_is("healthy", "box")
        images.snug("rm", "--force", "box").expect(0)
        images.run(name=name, flags=["-d", "--wait", "--name", "box", "--no-healthcheck"]).expect(0)
        check("health" not in images.row("box"), "checked all the same")


@test
def images_with_an_init_of_their_own():
    with Images() as images:
        inittab = "::sysinit:/bin/sh -c 'echo $GREETING >/tmp/began'\n::respawn:/bin/sleep 1000\n::shutdown:/bin/sh -c 'echo shut down in order >/dev/console'\n"
        name = images.with_layer("init", [File("etc/inittab", inittab), File("sbin/"), File("sbin/init", link="../bin/busybox")],
                                 {"Cmd": ["/sbin/init"], "Env": ["PATH=/bin", "GREETING=hi there"]})
        images.run(name=name, flags=["-d", "--wait", "--name", "box", "--init", "image"]).expect(0)
        deadline = time.monotonic() + BOUND
        while (said := images.snug("exec", "box", "--", "/bin/sh", "-c", "cat /proc/1/comm /tmp/began")).status != 0:
            check(time.monotonic() < deadline, "it does not begin", said.out, said.err, images.snug("logs", "box").out)
            time.sleep(0.2)
        check(said.out == "init\nhi there\n", "another first program", said.out)
        images.snug("stop", "-t", "120", "box").expect(0)
        check("shut down in order" in images.snug("logs", "--console", "box").out, "not in order", images.snug("logs", "--console", "box").out)
        check(images.snug("wait", "box").out.strip() == "0", "another end")
        # Commands of the spec are run beside it.
        ended = images.run("/bin/sh", "-c", "cat /proc/1/comm; exit 3", name=name, flags=["--init", "image"]).expect(3)
        check(ended.out == "init\n", "not beside it", ended.out, ended.err)
        ended = images.run(name=images.with_layer("none", [File("x")], {"Cmd": ["/no/such/init"]}), flags=["--init", "image"])
        check("/no/such/init" in ended.out + ended.err, "nothing is said", ended.out, ended.err)


@test
@exhaustive
def images_with_an_init_of_their_own_tell_how_they_are():
    """With commands beside it and without; as the image's user, in its folder, with its variables."""
    with Images() as images:
        name = images.with_layer("init", [File("etc/inittab", "::respawn:/bin/sleep 1000\n"), File("sbin/"), File("sbin/init", link="../bin/busybox"), File("srv/")], {
            "Cmd": ["/sbin/init"], "Env": ["PATH=/bin", "GREETING=hi"], "User": "12", "WorkingDir": "/srv", "Healthcheck": {
                "Test": ["CMD-SHELL", "cat /proc/1/comm; id -u; pwd; echo $GREETING; test -e /tmp/well"], "Interval": 500_000_000, "Timeout": 60_000_000_000, "Retries": 2}})
        for words in ((), ("/bin/sleep", "1000")):
            images.run(*words, name=name, flags=["-d", "--wait", "--name", "box", "--init", "image"]).expect(0)
            health = images.until_it_is("unhealthy", "box")
            check(health["last_output"] == "init\n12\n/srv\nhi\n", "not as the image says", health)
            images.snug("exec", "box", "--", "/bin/touch", "/tmp/well").expect(0)
            images.until_it_is("healthy", "box")
            check("running (healthy)" in images.snug("ps").out, "not shown", images.snug("ps").out)
            # It is looked after where it goes on as well.
            images.snug("snapshot", "box", "s").expect(0)
            images.snug("rm", "--force", "box").expect(0)
            images.snug("restore", "-d", "--wait", "s", "--name", "box").expect(0)
            images.until_it_is("healthy", "box")
            images.snug("exec", "box", "--", "/bin/rm", "/tmp/well").expect(0)
            images.until_it_is("unhealthy", "box")
            images.snug("rm", "--force", "box").expect(0)
            images.snug("snapshot", "rm", "s").expect(0)
        images.run(name=name, flags=["-d", "--wait", "--name", "box", "--init", "image", "--no-healthcheck"]).expect(0)
        check("health" not in images.row("box"), "checked all the same")


@test
def images_that_a_kernel_cannot_have():
    with Images() as images:
        ended = images.run(flags=["--cmdline", "snug.root=/dev/pmem9"])
        check(ended.status != 0 and "has no persistent memory" in ended.err and "snug image build" in ended.err, "no hint", ended.out, ended.err)


@test
@exhaustive
def images_made_of_a_tar():
    with Images() as images:
        with open(os.path.dirname(INITRD) + "/busybox", "rb") as file:
            tar = layer([File("bin/"), File("bin/busybox", file.read(), 0o755), File("bin/sh", link="busybox"), File("hello", "from a tar\n")])
        with tempfile.TemporaryFile() as file:
            file.write(tar)
            file.seek(0)
            subprocess.run([SNUG, "image", "import", "-q", "-", "mine"], stdin=file, env=images.env, stdout=subprocess.DEVNULL, check=True)
        ended = images.run("/bin/busybox", "cat", "/hello", name="mine").expect(0)
        check(ended.out == "from a tar\n", "another root", ended.out, ended.err)


@test
def images_are_counted_apart_from_what_guests_have():
    with Images() as images:
        prepared(images, "default", kernel=TINY, initrd=INITRD)
        images.run("cat /srv/large >/dev/null; echo read; sleep 1000", kernel=(), flags=["-d", "--wait", "--name", "box"]).expect(0)
        deadline = time.monotonic() + BOUND
        while "read" not in images.snug("logs", "box").out:
            check(time.monotonic() < deadline, "it does not read", images.snug("logs", "box").out)
            time.sleep(0.2)
        usage = json.loads(images.snug("stats", "--json", "box").expect(0).out)
        check(usage["guest_shared_bytes"] > 8 << 20 and usage["memory_bytes"] > usage["guest_memory_bytes"] + usage["guest_shared_bytes"],
              "not apart", usage)


def of_image_kib(machine, text):
    """What a machine has for itself of its image: pages of the root's file that no other has mapped, and what the guest keeps in its own
    memory of it since it began: `text` is /proc/meminfo of before and after, of which the files that it wrote itself are none (Shmem)."""
    own, inside = 0, False
    with open(f"/proc/{machine_process(machine)}/smaps") as maps:
        for line in maps:
            name, _, value = line.partition(":")
            if "-" in name and " " in name:
                inside = line.rstrip().endswith(".erofs")
            elif inside and name in ("Private_Clean", "Private_Dirty"):
                own += int(value.split()[0])
    values = {name: [int(kib) for kib in re.findall(f"^{name}: +(\\d+) kB", text, re.M)] for name in ("Buffers", "Cached", "Shmem")}
    check(all(len(found) == 2 for found in values.values()), "no /proc/meminfo", text)
    cached = [buffers + files - written for buffers, files, written in zip(*values.values())]
    return own + max(cached[1] - cached[0], 0)


@test
def images_cost_one_more_machine_what_it_writes():
    """A fourth of the same image that reads all of it, and writes some of its own."""
    if os.geteuid() != 0:
        raise Skip("root alone may look into a machine's memory")
    written = 4  # MiB
    script = (f"cat /proc/meminfo; cat /srv/* /bin/* /etc/* >/dev/null; ls -R /srv /bin /etc >/dev/null; "
              f"dd if=/dev/urandom of=/mine bs=1M count={written} 2>/dev/null; cat /proc/meminfo; echo done; sleep 1000")
    with Images() as images:
        prepared(images, "default", kernel=TINY, initrd=INITRD)
        costs = []
        for name in ("one", "two", "three", "four"):
            images.run(script, kernel=(), flags=["-d", "--wait", "--name", name, "-u", "root"]).expect(0)
            deadline = time.monotonic() + BOUND
            while "done" not in (said := images.snug("logs", name).out):
                check(time.monotonic() < deadline, "it does not come to its end", said)
                time.sleep(0.2)
            pid = json.loads(images.snug("inspect", name).expect(0).out)["pid"]
            costs.append(of_image_kib(pid, said))
            shmem = [int(kib) for kib in re.findall(r"^Shmem: +(\d+) kB", said, re.M)]
            # Not to the page: what was the initrd's goes meanwhile.
            check(shmem[1] - shmem[0] > (written << 10) - 256, "what it wrote is not in its memory", shmem, said)
        usage = json.loads(images.snug("stats", "--json", "four").expect(0).out)
        print(f"    of an image, {usage['guest_shared_bytes'] >> 10} KiB are memory of each of four machines; for itself the fourth has "
              f"{costs[-1]} KiB of it, beside {written} MiB that it wrote", flush=True)
        check(usage["guest_shared_bytes"] > 8 << 20, "it has not read its image", usage)
        check(costs[-1] <= 1024, "it has a copy of the image", costs)
