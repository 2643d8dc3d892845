"""Applications from a registry: Debian's docker-registry on loopback, filled with images of Debian's packages. They are pulled, run as
they say and as they are told, serve through published ports, and end by the signal that they want."""
import contextlib
import json
import shutil
import socket
import struct
import urllib.request

from guests import *  # noqa: F403
from network import free_port, need_uplink

APPS = os.environ.get("SNUG_IMAGE_APPS")  # guest-images/build app-images
USER = 64321  # a user and group id that nobody has


def tool(*words, **keywords):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BOUND, **keywords)
    check(done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}", done.stdout)
    return done.stdout


class Applications:
    """A registry, and a person (root, or somebody ordinary) with a HOME, a cache and machines of their own."""

    def __init__(self, user=None):
        self.user = user

    def __enter__(self):
        for program, package in (("skopeo", "skopeo"), ("docker-registry", "docker-registry")):
            if not shutil.which(program):
                raise Skip(f"{program} is not installed (package {package})")
        if not APPS:
            raise Skip("SNUG_IMAGE_APPS is not set (guest-images/build app-images)")
        self.exit = contextlib.ExitStack()
        self.path = os.path.realpath(self.exit.enter_context(tempfile.TemporaryDirectory()))
        self.prefix = ()
        self.layout = APPS + "/layout"
        self.env = {**os.environ, "HOME": self.path + "/home", "XDG_CACHE_HOME": self.path + "/cache", "XDG_RUNTIME_DIR": self.path + "/run"}
        self.registry = f"127.0.0.1:{free_port(socket.SOCK_STREAM)}"
        os.makedirs(self.path + "/home/.config/containers")
        with open(self.path + "/home/.config/containers/registries.conf", "w") as file:
            file.write(f'[[registry]]\nlocation = "{self.registry}"\ninsecure = true\n')
        with open(self.path + "/home/.config/containers/policy.json", "w") as file:
            file.write('{"default": [{"type": "insecureAcceptAnything"}]}')
        # The kernel that images get where none is named.
        os.makedirs(self.path + "/cache/snug/default")
        for name, image in (("kernel", TINY), ("initrd", INITRD)):
            shutil.copy(image, f"{self.path}/cache/snug/default/{name}")
        os.makedirs(self.path + "/run", mode=0o700)
        if self.user is not None:
            self.exit.enter_context(kvm_for_everybody())
            self.become(self.user)
        return self

    def become(self, user):
        """From now on what snug does is done by that user."""
        for top, folders, files in os.walk(self.path):
            for name in (top, *(os.path.join(top, name) for name in (*folders, *files))):
                os.chown(name, user, user)
        os.chmod(self.path, 0o755)
        program = shutil.copy(PROGRAM, self.path + "/snug")
        self.prefix = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all")
        self.program = program

    def __exit__(self, *words):
        with contextlib.suppress(Exception):
            for name in self.snug("ps", "-q", "-a").out.split():
                self.snug("rm", "--force", name)
        return self.exit.__exit__(*words)

    def serve(self, *tags):
        """Starts the registry, with these images in it."""
        with open(self.path + "/registry.yml", "w") as file:
            file.write(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {self.path}/registry}}}}\nhttp: {{addr: '{self.registry}'}}\nlog: {{level: error}}\n")
        log = open(self.path + "/registry.log", "w")
        process = subprocess.Popen(["docker-registry", "serve", self.path + "/registry.yml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.exit.callback(process.wait)
        self.exit.callback(process.kill)
        deadline = time.monotonic() + BOUND
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{self.registry}/v2/", timeout=10).close()
                break
            with open(self.path + "/registry.log") as said:
                check(process.poll() is None and time.monotonic() < deadline, "the registry does not answer", said.read())
            time.sleep(0.2)
        for tag in tags:
            self.push(f"oci:{self.layout}:{tag}", tag)

    def push(self, source, tag):
        tool("skopeo", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{self.registry}/{tag}:latest", env=self.env)

    def name(self, tag):
        return f"{self.registry}/{tag}"

    def snug(self, *words, **keywords):
        if self.user is None:
            return snug(*words, env=self.env, **keywords)
        process = subprocess.run([*self.prefix, self.program, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, timeout=BOUND, cwd=self.path)
        return Ended(process.returncode, process.stdout, process.stderr)

    def run(self, image, *words, flags=(), memory="128M"):
        return self.snug("run", "-m", memory, "--boot-timeout", "300s", *flags, "--image", image, *(["--", *words] if words else []))

    def start(self, tag, machine, port, inside, memory="128M", flags=()):
        self.run(self.name(tag), flags=["-d", "--wait", "--name", machine, "-p", f"{port}:{inside}", *flags], memory=memory).expect(0)

    def stop(self, machine, status):
        """By the signal that its image wants; it then ends by itself, with that status."""
        self.snug("stop", "-t", "120", machine).expect(0)
        said = self.snug("wait", machine).out.strip()
        check(said == str(status), f"{machine} ended with {said}, not {status}", self.snug("logs", machine).out)
        self.snug("rm", machine).expect(0)

    def until(self, ask, machine):
        """What `ask` returns once it does not fail."""
        deadline = time.monotonic() + BOUND
        while True:
            try:
                return ask()
            except (OSError, EOFError) as problem:
                check(time.monotonic() < deadline, f"{machine} does not answer: {problem}", self.snug("logs", machine).out)
                time.sleep(0.5)


def page(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
        return answer.read()


LAYERED = "/data:\nkept\nlink\nold\n\n/data/old:\nnew\n\n/opaque:\nabove\n600 33\n33\n"


def runs_as_it_says(apps, image):
    """The image with whiteouts: what is in it, its entrypoint, user, folder and environment; and each of them told."""
    ended = apps.run(image).expect(0)
    check(ended.out == LAYERED, "not what the image says", ended.out, ended.err)
    # Instead of its command; its entrypoint stays.
    ended = apps.run(image, "id -u; pwd; echo $GREETING; exit 41").expect(41)
    check(ended.out == "33\n/data\nfrom the image\n", "not as the image has it", ended.out, ended.err)
    ended = apps.run(image, "id -u; pwd; echo $GREETING; cat /changed 2>&1; kill -TERM $$", flags=["-u", "nobody", "-w", "/", "-e", "GREETING=from here"])
    check(ended.expect(143).out == "65534\n/\nfrom here\ncat: can't open '/changed': Permission denied\n", "not as it was told", ended.out, ended.err)


@test
def applications_come_from_a_registry_and_run():
    need_uplink()
    with Applications() as apps:
        apps.serve("layered", "nginx")
        runs_as_it_says(apps, apps.name("layered"))
        # It is here now: nothing is asked of the registry any more.
        port = free_port(socket.SOCK_STREAM)
        apps.start("nginx", "web", port, 80)
        check(apps.until(lambda: page(port), "web") == b"nginx in a machine\n", "another page")
        check("nginx: worker" in apps.snug("exec", "web", "--", "ps").expect(0).out, "its processes are not seen", apps.snug("logs", "web").out)
        apps.stop("web", 0)


@test
def applications_are_run_by_an_ordinary_user():
    if os.geteuid() != 0:
        raise Skip("root alone can be somebody else: the others are run by an ordinary user here")
    need_uplink()
    with Applications(USER) as apps:
        apps.serve("layered")
        ended = apps.run(apps.name("layered")).expect(0)
        check(ended.out == LAYERED, "not what the image says", ended.out, ended.err)


@test
@exhaustive
def applications_come_from_every_transport():
    with Applications() as apps:
        sources = {f"oci:{apps.layout}:layered": None}
        for kind, target in (("oci-archive", "app.oci:latest"), ("docker-archive", "app.tar:localhost/app:latest"), ("dir", "app.dir")):
            tool("skopeo", "copy", "-q", f"oci:{apps.layout}:layered", f"{kind}:{apps.path}/{target}", env=apps.env)
            sources[f"{kind}:{apps.path}/{target}"] = None
        if shutil.which("podman") and os.geteuid() == 0:
            storage = f"containers-storage:[vfs@{apps.path}/storage+{apps.path}/storage-run]localhost/app:latest"
            tool("skopeo", "copy", "-q", f"oci:{apps.layout}:layered", storage, env=apps.env)
            sources[storage] = None
        for source in sources:
            ended = apps.run(source).expect(0)
            check(ended.out == LAYERED, f"not what the image says, from {source}", ended.out, ended.err)


def redis(port, *commands):
    """What it answers to each, in the words of its protocol."""
    with socket.create_connection(("127.0.0.1", port), 30) as link, link.makefile("rb") as answers:
        link.settimeout(60)
        said = []
        for command in commands:
            link.sendall(command.encode() + b"\r\n")
            line = answers.readline()
            if not line:
                raise EOFError("redis hangs up")
            said.append(answers.readline() if line.startswith(b"$") else line)
        return [line.decode().strip() for line in said]


def postgres(port, question):
    """The only value of the answer (simple query of protocol 3.0)."""
    with socket.create_connection(("127.0.0.1", port), 30) as link, link.makefile("rb") as answers:
        link.settimeout(120)
        words = struct.pack(">I", 196608) + b"user\0postgres\0database\0postgres\0\0"
        link.sendall(struct.pack(">I", len(words) + 4) + words)
        value, asked = None, False
        while True:
            head = answers.read(5)
            if len(head) < 5:
                raise EOFError("postgres hangs up")
            body = answers.read(struct.unpack(">I", head[1:])[0] - 4)
            if head[:1] == b"E":
                raise EOFError(body.decode(errors="replace"))
            if head[:1] == b"D":
                value = body[6:].decode()
            if head[:1] == b"Z" and asked:
                return value
            if head[:1] == b"Z":
                link.sendall(b"Q" + struct.pack(">I", len(question) + 5) + question.encode() + b"\0")
                asked = True


def private_kib(pid, of_image):
    """What a machine's processes have for themselves: of the image's root, or of all else."""
    total = 0
    for process in processes_of(pid):
        with open(f"/proc/{process}/smaps") as maps:
            counts = False
            for line in maps:
                name, _, value = line.partition(":")
                if "-" in name and " " in name:
                    counts = line.rstrip().endswith(".erofs") == of_image
                elif counts and name in ("Private_Clean", "Private_Dirty"):
                    total += int(value.split()[0])
    return total


def bytes_on_disk(folder):
    return sum(os.lstat(os.path.join(top, name)).st_blocks * 512 for top, _, names in os.walk(folder) for name in names)


DEBIAN_DISK = 700  # MB: what a small Debian takes, each


@test
@exhaustive
def applications_side_by_side_share_their_images():
    """Three applications of three images on one base, a machine each, that talk through published ports; a second one of one of them."""
    if os.geteuid() != 0:
        raise Skip("root alone may look into a machine's memory")
    need_uplink()
    with Applications() as apps:
        apps.serve("nginx", "redis", "postgres")
        inside = {"nginx": 80, "redis": 6379, "postgres": 5432}
        ports = {tag: free_port(socket.SOCK_STREAM) for tag in inside}
        for tag, port in ports.items():
            apps.start(tag, tag, port, inside[tag], memory="256M", flags=["--net", "user,host_loopback=true"])
        said = apps.until(lambda: redis(ports["redis"], "PING", "SET key value", "GET key"), "redis")
        check(said == ["+PONG", "+OK", "value"], "another answer", said)
        said = apps.until(lambda: postgres(ports["postgres"], "select 6 * 7"), "postgres")
        check(said == "42", "another answer", said)
        check(apps.until(lambda: page(ports["nginx"]), "nginx") == b"nginx in a machine\n", "another page")
        # From one machine to another, by the host's ports.
        script = f"wget -q -O - http://$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'):{ports['nginx']}/"
        said = apps.snug("exec", "redis", "--", "sh", "-c", script).expect(0)
        check(said.out == "nginx in a machine\n", "one machine does not reach another", said.out, said.err)
        # One more of the same image, which has done what the first did.
        another = free_port(socket.SOCK_STREAM)
        apps.start("nginx", "another", another, 80, memory="256M")
        check(apps.until(lambda: page(another), "another") == b"nginx in a machine\n", "another page")
        pids = {name: json.loads(apps.snug("inspect", name).expect(0).out)["pid"] for name in (*ports, "another")}
        cache = apps.path + "/cache/snug/oci"
        blobs, roots = bytes_on_disk(cache + "/blobs") >> 20, bytes_on_disk(cache + "/roots") >> 20
        print(f"    disk: {roots} MiB of roots beyond {blobs} MiB of layers as they came; three Debian disks: {3 * DEBIAN_DISK} MB", flush=True)
        for name, pid in pids.items():
            print(f"    memory of {name} alone: {private_kib(pid, False) >> 10} MiB, and {private_kib(pid, True)} KiB of its image", flush=True)
        check(private_kib(pids["another"], True) <= 1024, "it has a copy of the image", private_kib(pids["another"], True))
        for name in (*ports, "another"):
            apps.stop(name, 0)


@test
@exhaustive
def applications_made_by_umoci_and_buildah():
    if not shutil.which("umoci"):
        raise Skip("umoci is not installed")
    # umoci takes files of one number for one, and an overlay has files of two file systems.
    with Applications() as apps, tempfile.TemporaryDirectory(dir="/dev/shm") as shm:
        tree = shm + "/tree"
        tool("umoci", "raw", "unpack", "--image", apps.layout + ":busybox", tree)
        with open(shm + "/said", "w") as file:
            file.write("hello\n")
        layout = shm + "/umoci"
        tool("umoci", "init", "--layout", layout)
        for words in (["new"], ["insert", tree, "/"], ["insert", shm + "/said", "/said"], ["insert", "--whiteout", "/bin/httpd"]):
            tool("umoci", words[0], "--image", layout + ":app", *words[1:])
        tool("umoci", "config", "--image", layout + ":app", "--config.entrypoint", "/bin/sh", "--config.entrypoint", "-c", "--config.cmd",
             "cat /said; ls /bin/httpd 2>/dev/null; pwd", "--config.workingdir", "/srv")
        made = [f"oci:{layout}:app"]
        if shutil.which("buildah") and os.geteuid() == 0:
            options = ("--storage-driver", "vfs", "--root", apps.path + "/buildah", "--runroot", apps.path + "/buildah-run")
            container = tool("buildah", *options, "from", "scratch").strip()
            tool("buildah", *options, "copy", container, tree, "/")
            tool("buildah", *options, "copy", container, shm + "/said", "/said")
            tool("buildah", *options, "config", "--workingdir", "/srv", "--cmd", "/bin/sh -c 'cat /said; rm /bin/httpd; ls /bin/httpd 2>/dev/null; pwd'", container)
            tool("buildah", *options, "commit", "-q", container, f"oci:{apps.path}/of-buildah:app", env=apps.env)
            made.append(f"oci:{apps.path}/of-buildah:app")
        for image in made:
            ended = apps.run(image).expect(0)
            check(ended.out == "hello\n/srv\n", f"{image} says something else", ended.out, ended.err)
