"""Machines made of container images: pulled by skopeo from a layout, run as they say or as they are told."""
import json
import shutil
import urllib.request

from guests import *  # noqa: F403
from network import free_port, need_uplink
from oci_layout import File, layer, write_layout

APPLETS = ("sh", "cat", "ls", "id", "pwd", "env", "mount", "sleep", "httpd", "stat", "touch", "rm", "df", "grep", "ip")


class Images:
    """A cache of a test's own, and an image of two layers in a layout beside it."""

    def __enter__(self):
        if not shutil.which("skopeo"):
            raise Skip("skopeo is not installed")
        self.holder = tempfile.TemporaryDirectory()
        self.path = os.path.realpath(self.holder.name)
        self.env = {**os.environ, "XDG_CACHE_HOME": self.path + "/cache", "XDG_RUNTIME_DIR": self.path}
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

    def run(self, *words, kernel=("--kernel", TINY), flags=()):
        return self.snug("run", *kernel, "-m", "128M", "--boot-timeout", "300s", "--image", self.name, *flags, *(["--", *words] if words else []))


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
