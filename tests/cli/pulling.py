"""Images from registries and everything else that keeps some, and all that goes wrong on the way: clear errors, a cache that stays whole,
and a next try that goes on. No guest: what is looked at is the root file system that a machine would get."""
import contextlib
import filecmp
import hashlib
import http.server
import json
import random
import shutil
import socketserver
import threading
import urllib.parse

from harness import *  # noqa: F403
from fake_registry import Registry
from oci_layout import File, layer, write_layout

PROMPT = 20  # seconds in which what is asked to end has to


def some_bytes(count, seed=1):
    return random.Random(seed).randbytes(count)


class Pulls:
    """A person with a HOME and caches of their own, an image in a layout, and a registry that has it as app, each layer a megabyte."""

    def __init__(self, user=None):
        self.user = user

    def __enter__(self):
        if not shutil.which("skopeo"):
            raise Skip("skopeo is not installed")
        self.exit = contextlib.ExitStack()
        self.path = os.path.realpath(self.exit.enter_context(tempfile.TemporaryDirectory()))
        self.layout = self.path + "/layout"
        self.layers = [layer([File("etc/"), File("etc/name", "one\n"), File("gone", "x"), File("large", some_bytes(1 << 20))]),
                       layer([File(".wh.gone"), File("etc/name", "two\n"), File("larger", some_bytes(1 << 20, 2))])]
        self.digest = write_layout(self.layout, self.layers, {"Cmd": ["/bin/app"]})
        self.registry = self.exit.enter_context(Registry(self.path + "/home", self.user))
        self.name = self.registry.add("app", self.layout)
        os.makedirs(self.path + "/run", mode=0o700)
        return self

    def __exit__(self, *words):
        return self.exit.__exit__(*words)

    def env(self, cache="cache"):
        return {**os.environ, "HOME": self.path + "/home", "XDG_CACHE_HOME": f"{self.path}/{cache}", "XDG_RUNTIME_DIR": self.path + "/run",
                "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}

    def snug(self, *words, cache="cache", **keywords):
        return snug("image", *words, env=self.env(cache), **keywords)

    def pull(self, name=None, cache="cache", **keywords):
        return self.snug("pull", "-q", name or self.name, cache=cache, **keywords)

    def start(self, *words, cache="cache"):
        return subprocess.Popen([SNUG, "image", *words], env=self.env(cache), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, start_new_session=True)

    def layers_asked(self):
        return [path for path in self.registry.asked if any(path.endswith(digest_of_layer(self, number)) for number in range(len(self.layers)))]

    def files(self, folder, cache="cache"):
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(f"{self.path}/{cache}/snug/oci/{folder}"))
        return []

    def root(self, cache="cache"):
        found = self.files("roots", cache)
        check(len(found) == 1, "not one root", found)
        return f"{self.path}/{cache}/snug/oci/roots/{found[0]}"

    def is_whole(self):
        """The cache has nothing half-finished, and the image that was refused can be had."""
        check(self.pull().expect(0).out == self.digest + "\n", "another digest")
        check(self.files("work") == [], "something half-finished is left", self.files("work"))
        blobs = f"{self.path}/cache/snug/oci/blobs/sha256"
        for name in os.listdir(blobs):
            done = subprocess.run(["sha256sum", f"{blobs}/{name}"], stdout=subprocess.PIPE, text=True, check=True)
            check(done.stdout.startswith(name + " "), "a blob that is not what its name says", name)
        self.pull(cache="fresh").expect(0)
        check(filecmp.cmp(self.root(), self.root("fresh"), shallow=False), "another root than a fresh cache has")


def clear(ended, *words):
    """One line of error, of snug's own and the last one, with these words. Above it may stand how far it came."""
    lines = ended.expect(125).err.strip().splitlines()
    check(lines[-1].startswith("snug: ") and sum(line.startswith("snug: ") for line in lines) == 1, "not one clear line", ended.err)
    for word in words:
        check(word in lines[-1], f"nothing of {word!r}", ended.err)


@test
def pulling_from_everywhere_makes_the_same_root():
    with Pulls() as pulls:
        sources = {"registry": pulls.name, "digest": f"{pulls.name}@{pulls.digest}".replace(":latest", ""), "oci": f"oci:{pulls.layout}:latest"}
        for kind, target in (("oci-archive", "app.oci:latest"), ("docker-archive", "app.tar:localhost/app:latest"), ("dir", "app.dir")):
            sources[kind] = f"{kind}:{pulls.path}/{target}"
            done = subprocess.run(["skopeo", "copy", "-q", *(["--format", "v2s2"] if kind == "dir" else []), sources["oci"], sources[kind]], env=pulls.env(),
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            check(done.returncode == 0, f"skopeo cannot write {kind}", done.stdout)
        for kind, source in sources.items():
            pulls.pull(source, cache=kind).expect(0)
            check(filecmp.cmp(pulls.root("registry"), pulls.root(kind), shallow=False), f"another root from {kind}")
            rows = pulls.snug("list", cache=kind).expect(0).out
            check(len(rows.splitlines()) == 2, f"{kind} is not listed once", rows)
        check(pulls.pull(sources["digest"]).expect(0).out == pulls.digest + "\n", "another digest")


@test
def pulling_brings_what_is_missing_and_no_more():
    with Pulls() as pulls:
        pulls.pull().expect(0)
        check(len(pulls.layers_asked()) == 2, "not each layer once", pulls.registry.asked)
        pulls.pull().expect(0)
        check(len(pulls.layers_asked()) == 2, "layers that are here are brought again", pulls.registry.asked)
        # Another image on the same first layer.
        other = write_layout(pulls.path + "/other", [pulls.layers[0], layer([File("other", "x")])])
        pulls.registry.add("other", pulls.path + "/other")
        check(pulls.pull(pulls.registry.host + "/other").expect(0).out == other + "\n", "another digest")
        check(len(pulls.layers_asked()) == 2, "a layer that is here is brought again", pulls.registry.asked)
        # The tag means another image now.
        pulls.registry.images["app"] = pulls.registry.images["other"]
        check(pulls.pull().expect(0).out == other + "\n", "the old one stays")


@test
def pulling_side_by_side_is_safe():
    with Pulls() as pulls:
        running = [pulls.start("pull", "-q", pulls.name) for _ in range(4)]
        for process in running:
            out, err = process.communicate(timeout=BOUND)
            check(process.returncode == 0 and out.decode() == pulls.digest + "\n", f"status {process.returncode}", out, err)
        pulls.is_whole()


@test
def pulling_wants_credentials():
    with Pulls(user="me:secret") as pulls:
        clear(pulls.pull(), pulls.name, "unauthorized", f"skopeo login {pulls.registry.host}", "is its name right?")
        login = ["skopeo", "login", "--tls-verify=false", "-u", "me", "--password-stdin", pulls.registry.host]
        done = subprocess.run(login, env=pulls.env(), input="secret", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        check(done.returncode == 0, "skopeo login", done.stdout)
        pulls.is_whole()


@test
def pulling_what_is_not_there():
    with Pulls() as pulls:
        host = pulls.registry.host
        clear(pulls.pull(host + "/none"), host + "/none", "not known here", f"skopeo list-tags docker://{host}/none")
        clear(pulls.pull(pulls.name + ":other"), pulls.name + ":other", "not known here", f"skopeo list-tags docker://{pulls.name}")
        clear(pulls.pull(f"{pulls.name}@sha256:{'0' * 64}"), "not known here")
        pulls.registry.misbehave("manifests", 500)
        clear(pulls.pull(), pulls.name)
        pulls.registry.behave()
        pulls.registry.misbehave("manifests", 403)
        clear(pulls.pull(), pulls.name, "not today", f"skopeo login {host}")
        pulls.registry.behave()
        pulls.registry.misbehave(digest_of_layer(pulls, 1), 404)
        clear(pulls.pull(), pulls.name, "lacks a part of it")
        pulls.registry.behave()
        pulls.registry.server.shutdown()
        pulls.registry.server.server_close()
        clear(pulls.pull(), pulls.name, "connection refused")
        check(pulls.files("names") == [] and pulls.files("work") == [], "something is left", pulls.files("names"), pulls.files("work"))


class Daemon:
    """What docker says to who asks it for an image: `archive` of it, or that there is none."""

    def __init__(self, path, archive):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                found = "/images/get" in self.path and query.get("names") == ["app:latest"]
                with open(archive, "rb") as file:
                    body = file.read() if found else json.dumps({"message": f"No such image: {query.get('names')}"}).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/x-tar" if found else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def address_string(self):
                return "a client"

            def log_message(self, *_):
                pass

        self.server = socketserver.ThreadingUnixStreamServer(path, Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@test
def pulling_from_docker():
    with Pulls() as pulls:
        archive, socket = pulls.path + "/app.tar", pulls.path + "/docker.sock"
        done = subprocess.run(["skopeo", "copy", "-q", f"oci:{pulls.layout}:latest", f"docker-archive:{archive}:app:latest"], env=pulls.env(),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        check(done.returncode == 0, "skopeo cannot write an archive", done.stdout)
        env = {**pulls.env(), "DOCKER_HOST": "unix://" + socket}
        clear(snug("image", "pull", "-q", "docker-daemon:app", env=env), "docker-daemon:app:latest", socket, "does docker run here?", "docker-archive:FILE")
        with Daemon(socket, archive):
            clear(snug("image", "pull", "-q", "docker-daemon:none", env=env), "docker-daemon:none:latest", "No such image", "docker images")
            snug("image", "pull", "-q", "docker-daemon:app", env=env).expect(0)
            snug("image", "pull", "-q", f"oci:{pulls.layout}:latest", env=pulls.env("other")).expect(0)
            check(filecmp.cmp(pulls.root(), pulls.root("other"), shallow=False), "another root")
        check(pulls.files("work") == [], "something half-finished is left", pulls.files("work"))


def digest_of_layer(pulls, number):
    with open(f"{pulls.layout}/blobs/{pulls.digest.replace(':', '/')}") as file:
        return json.load(file)["layers"][number]["digest"]


@test
def pulling_wrong_bytes():
    with Pulls() as pulls:
        second = digest_of_layer(pulls, 1)
        for pattern in (second, "manifests", "blobs/.*"):
            pulls.registry.misbehave(pattern, "wrong")
            clear(pulls.pull(f"{pulls.name}@{pulls.digest}"), pulls.name)
            pulls.registry.behave()
            check(second[7:] not in pulls.files("blobs/sha256"), "what came under a wrong digest is kept")
        pulls.is_whole()


@test
def pulling_from_a_registry_that_dies_in_the_middle():
    with Pulls() as pulls:
        first, second = (digest_of_layer(pulls, number) for number in range(2))
        pulls.registry.misbehave(second, "cut")
        clear(pulls.pull(), pulls.name)
        check(second[7:] not in pulls.files("blobs/sha256"), "a half is kept")
        pulls.registry.behave()
        had = first[7:] in pulls.files("blobs/sha256")
        pulls.registry.asked.clear()
        pulls.is_whole()
        if had:
            check(sum(first in path for path in pulls.registry.asked) == 1, "what was whole is brought again, but by the fresh cache", pulls.registry.asked)


def interrupted(process, number):
    """It ends by the signal, and all that it has started. Ctrl-C is for the whole group, others are for snug alone."""
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    try:
        _, err = process.communicate(timeout=PROMPT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"it does not end by signal {number}") from None
    check(process.returncode in (-number, 128 + number, 125), f"status {process.returncode}", err)
    deadline = time.monotonic() + PROMPT
    while left := subprocess.run(["pgrep", "-l", "-g", str(process.pid)], stdout=subprocess.PIPE, text=True).stdout.split():
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"signal {number}: processes are left: {left}")
        time.sleep(0.05)


@test
def pulling_from_a_registry_that_hangs_can_be_ended():
    with Pulls() as pulls:
        for pattern, what in (("manifests", "hang"), ("blobs", "hang"), (digest_of_layer(pulls, 1), "slow")):
            for number in (signal.SIGINT, signal.SIGTERM):
                pulls.registry.misbehave(pattern, what)
                process = pulls.start("pull", pulls.name)
                check(pulls.registry.held.wait(BOUND), "it does not come to that")
                interrupted(process, number)
                pulls.registry.behave()
                check(digest_of_layer(pulls, 1)[7:] not in pulls.files("blobs/sha256"), "a half is kept")
        pulls.is_whole()


@test
def pulling_goes_on_after_a_kill():
    with Pulls() as pulls:
        pulls.registry.misbehave(digest_of_layer(pulls, 1), "slow")
        process = pulls.start("pull", pulls.name)
        check(pulls.registry.held.wait(BOUND), "it does not come to that")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pulls.registry.behave()
        pulls.is_whole()


@test
def pulling_can_be_interrupted_while_a_root_is_made():
    with Pulls() as pulls:
        # A layer that takes a while to be looked at, and none to be brought.
        write_layout(pulls.path + "/slow", [layer([File(f"f{i}", bytes(8 << 20)) for i in range(40)])])
        pulls.snug("pull", "-q", f"oci:{pulls.path}/slow:latest", cache="whole").expect(0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            process = pulls.start("pull", f"oci:{pulls.path}/slow:latest")
            deadline = time.monotonic() + BOUND
            while not any(name.endswith(".erofs") for name in pulls.files("work")) and process.poll() is None:
                check(time.monotonic() < deadline, "it does not begin")
                time.sleep(0.005)
            if process.poll() is None:
                interrupted(process, number)
            process.wait()
        pulls.snug("pull", "-q", f"oci:{pulls.path}/slow:latest").expect(0)
        check(filecmp.cmp(pulls.root(), pulls.root("whole"), shallow=False), "another root")
        check(pulls.files("work") == [], "something half-finished is left", pulls.files("work"))


@test
def pulling_onto_a_full_disk():
    with Pulls() as pulls:
        os.makedirs(pulls.path + "/cache")
        # Too small for the layers, too small for the root, and enough.
        for kib, words in ((1500, "space"), (3500, "space"), (20000, None)):
            # What a fuller disk has made is there when it grows.
            script = (f"mount -t tmpfs -o size={kib}k none {pulls.path}/cache; cp -a {pulls.path}/kept/. {pulls.path}/cache 2>/dev/null; "
                      f"{SNUG} image pull -q {pulls.name}; status=$?; rm -rf {pulls.path}/kept; cp -a {pulls.path}/cache {pulls.path}/kept; exit $status")
            done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], env=pulls.env(), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            ended = Ended(done.returncode, done.stdout, done.stderr)
            if "unshare" in ended.err or "Operation not permitted" in ended.err:
                raise Skip("no user namespaces here")
            if words:
                clear(ended, words, pulls.name)
                check(not os.path.exists(pulls.path + "/kept/snug/oci/roots") or os.listdir(pulls.path + "/kept/snug/oci/roots") == [], "a half root is kept")
                check(os.listdir(pulls.path + "/kept/snug/oci/work") == [], "something half-finished is left")
            else:
                check(ended.expect(0).out == pulls.digest + "\n", "another digest")


@test
def pulling_anew_mends_a_cache_that_is_broken():
    with Pulls() as pulls:
        path = f"{pulls.path}/cache/snug/oci/blobs/{digest_of_layer(pulls, 1).replace(':', '/')}"
        for cut in (True, False):
            pulls.pull().expect(0)
            os.unlink(pulls.root())
            with open(path, "r+b") as file:
                if cut:
                    file.truncate(1000)
                else:
                    file.seek(500000)
                    file.write(b"other bytes")
            ended = pulls.pull()
            if ended.status != 0:
                # What it says helps.
                clear(ended, pulls.name, "layer 2", "again")
                if "remove the image" in ended.err:
                    pulls.snug("rm", pulls.name).expect(0)
            pulls.is_whole()


@test
def pulling_hostile_images_names_what_is_wrong():
    with Pulls() as pulls:
        for number, (entries, words) in enumerate((([File("../../out", "x")], ["path-escapes", "../../out"]), ([File(".wh.", "")], ["bad-whiteout"]))):
            write_layout(f"{pulls.path}/bad{number}", [pulls.layers[0], layer(entries)])
            clear(pulls.pull(f"oci:{pulls.path}/bad{number}:latest"), "layer 2", *words)
        # Manifests and configurations that are none.
        blobs = pulls.layout + "/blobs/"
        with open(blobs + pulls.digest.replace(":", "/")) as file:
            good = json.load(file)
        for change in ({"layers": "x"}, {"config": None}, {"layers": [{**good["layers"][0], "digest": "sha256:../../etc/passwd"}]},
                       {"layers": [{**good["layers"][0], "digest": "sha256:" + "1" * 64}]}):
            shutil.copytree(pulls.layout, pulls.path + "/changed")
            data = json.dumps({**good, **change}).encode()
            digest = hashlib.sha256(data).hexdigest()
            with open(f"{pulls.path}/changed/blobs/sha256/{digest}", "wb") as file:
                file.write(data)
            with open(pulls.path + "/changed/index.json") as file:
                index = json.load(file)
            index["manifests"][0].update(digest="sha256:" + digest, size=len(data))
            with open(pulls.path + "/changed/index.json", "w") as file:
                json.dump(index, file)
            clear(pulls.pull(f"oci:{pulls.path}/changed:latest", cache="other"), "changed")
            check(pulls.files("work", "other") == [], "something half-finished is left")
            shutil.rmtree(pulls.path + "/changed")
