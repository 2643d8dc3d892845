"""Container images without a guest: pulled by skopeo from layouts, imported, listed, checked, given up in the middle."""
import contextlib
import gzip
import hashlib
import io
import json
import pty
import shutil
import tarfile

from harness import *  # noqa: F403
from oci_layout import File, layer, write_layout

MIB = 1 << 20


class Cache:
    """A cache of a test's own, and a folder for layouts."""

    def __enter__(self):
        if not shutil.which("skopeo"):
            raise Skip("skopeo is not installed")
        self.holder = tempfile.TemporaryDirectory()
        self.path = os.path.realpath(self.holder.name)
        self.env = {**os.environ, "XDG_CACHE_HOME": self.path + "/cache", "XDG_RUNTIME_DIR": self.path}
        return self

    def __exit__(self, *_):
        self.holder.cleanup()

    def layout(self, name, *layers, config=None):
        self.digest = write_layout(f"{self.path}/{name}", [layer(entries) for entries in layers], config or {"Cmd": ["true"]})
        return f"oci:{self.path}/{name}:latest"

    def snug(self, *arguments, **more):
        return snug(*arguments, env={**self.env, **more})

    def start(self, *arguments):
        return subprocess.Popen([os.path.abspath(SNUG), *arguments], env=self.env, cwd=self.path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def files(self, *folders):
        return sorted(name for folder in folders for _, _, names in os.walk(f"{self.path}/cache/snug/oci/{folder}") for name in names)


def random_file(name, size):
    return File(name, os.urandom(size))


@test
def images_are_pulled_and_what_comes_is_shown():
    with Cache() as cache:
        name = cache.layout("layout", [random_file("a", MIB)], [random_file("b", MIB)])
        shown = cache.snug("image", "pull", name).expect(0)
        check(shown.out == cache.digest + "\n", "another digest", shown.out)
        check(f"snug: {name}: " in shown.err and "2 of them whole" in shown.err and "\r" not in shown.err, "not shown", shown.err)
        check(cache.snug("image", "pull", "-q", name).expect(0).err == "", "-q says something")
        check(cache.files("work") == [], "something is left", cache.files("work"))
        # On a terminal one line is renewed, and goes.
        shutil.rmtree(cache.path + "/cache")
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(SNUG, [SNUG, "image", "pull", name], cache.env)
        text = b""
        with contextlib.suppress(OSError):
            while part := os.read(terminal, 65536):
                text += part
        os.close(terminal)
        check(os.waitpid(pid, 0)[1] == 0 and b"\r\x1b[Ksnug: " in text, "no line that is renewed", text)
        check(text.count(b"\n") == 1 and b"\r\x1b[Ksha256:" in text, "the line stays", text)


@test
def a_path_of_an_image_is_that_of_who_names_it():
    with Cache() as cache:
        cache.layout("layout", [File("a", "x")])
        pull = cache.start("image", "pull", "-q", "oci:layout:latest")
        check(pull.communicate()[0].decode() == cache.digest + "\n", "not from the working folder")
        os.mkdir(cache.path + "/specs")
        with open(cache.path + "/specs/web.yaml", "w") as file:
            file.write("image: oci:../layout:latest\npull: never\nkernel: /nonexistent\n")
        said = cache.snug("validate", cache.path + "/specs/web.yaml", "--print")
        check("no such file: /nonexistent" in said.err, "not checked", said.err)
        with open(cache.path + "/specs/web.yaml", "w") as file:
            file.write("image: oci:../layout:latest\n")
        said = cache.snug("validate", cache.path + "/specs/web.yaml", "--print").expect(0)
        check(f"image: oci:{cache.path}/specs/../layout:latest\n" in said.out, "not relative to the spec", said.out)


@test
def a_wrong_byte_names_its_layer():
    with Cache() as cache:
        entries = [random_file("a", MIB)], [random_file("b", MIB)]
        name = cache.layout("layout", *entries)
        cache.snug("image", "pull", "-q", name).expect(0)
        digest = "sha256:" + json.loads(cache.snug("image", "inspect", name).out)["layers"][1]["digest"][7:]
        blob = f"{cache.path}/cache/snug/oci/blobs/sha256/{digest[7:]}"
        for offset in (5, 100_000, os.path.getsize(blob) - 3):
            shutil.rmtree(cache.path + "/cache/snug/oci/roots")
            with open(blob, "r+b") as file:
                file.seek(offset)
                byte = file.read(1)
                file.seek(offset)
                file.write(bytes([byte[0] ^ 1]))
            refused = cache.snug("image", "pull", "-q", name).expect(125)
            check("layer 2: " in refused.err and digest in refused.err and "wrong-digest" in refused.err, "not named", refused.err)
            # It has gone, and comes again.
            cache.snug("image", "pull", "-q", name).expect(0)
        # What it comes from is wrong.
        shutil.rmtree(cache.path + "/cache")
        with open(f"{cache.path}/layout/blobs/sha256/{digest[7:]}", "r+b") as file:
            file.seek(100_000)
            file.write(b"wrong")
        refused = cache.snug("image", "pull", "-q", name).expect(125)
        check(refused.err.count("\n") == 1 and "digest did not match" in refused.err.lower(), "no clear error", refused.err)
        check(cache.snug("image", "list").out == "" and cache.files("work", "names", "roots") == [], "something is believed",
              cache.files("work", "names", "roots"))


@test
def a_pull_can_be_ended_in_the_middle():
    with Cache() as cache:
        name = cache.layout("layout", *([random_file(f"file{number}", 24 * MIB)] for number in range(4)))
        work = cache.path + "/cache/snug/oci/work"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            pull = cache.start("image", "pull", name)
            deadline = time.monotonic() + BOUND
            while not any(files for _, _, files in os.walk(work)) and pull.poll() is None:
                check(time.monotonic() < deadline, "nothing comes")
                time.sleep(0.005)
            pull.send_signal(number)
            _, err = pull.communicate(timeout=BOUND)
            check(pull.returncode in (-number, 0), "another end", pull.returncode, err)
            if number != signal.SIGKILL:
                check(cache.files("work") == [], "something is left", cache.files("work"))
            if pull.returncode != 0:
                check(cache.files("names", "roots") == [], "something is believed", cache.files("names", "roots"))
        cache.snug("image", "pull", "-q", name).expect(0)
        check(cache.files("work") == [], "what a killed one has left stays", cache.files("work"))


@test
def pulls_of_one_image_side_by_side():
    with Cache() as cache:
        name = cache.layout("layout", [random_file("a", 4 * MIB)], [random_file("b", 4 * MIB)])
        pulls = [cache.start("image", "pull", name) for _ in range(4)]
        for pull in pulls:
            out, err = pull.communicate(timeout=BOUND)
            check(pull.returncode == 0 and out.decode() == cache.digest + "\n", "a pull fails", out, err)
        check(len(cache.files("blobs")) == 4 and len(cache.files("roots")) == 1 and cache.files("work") == [], "not once",
              cache.files("blobs", "roots", "work"))


@test
def a_full_disk_is_said_and_the_cache_stays_whole():
    if os.geteuid() != 0:
        raise Skip("takes root, for a file system of its own")
    with Cache() as cache:
        small = cache.layout("small", [File("a", "x")])
        large = cache.layout("large", [random_file("a", 12 * MIB)])
        rooty = cache.layout("rooty", [File("a", b"\1" * (40 * MIB))])
        os.mkdir(cache.path + "/cache")
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", cache.path + "/cache"], stderr=subprocess.PIPE)
        if mounted.returncode != 0:
            raise Skip(f"no tmpfs can be mounted: {mounted.stderr.decode().strip()}")
        try:
            cache.snug("image", "pull", "-q", small).expect(0)
            for name in (large, rooty):
                full = cache.snug("image", "pull", "-q", name).expect(125)
                check("o space left on device" in full.err and "snug image prune" in full.err, "no clear error", full.err)
                check(cache.files("work") == [], "something is left", cache.files("work"))
            rows = cache.snug("image", "list").expect(0).out
            check(small in rows and large not in rows, "the cache is not whole", rows)
            cache.snug("image", "pull", "-q", small).expect(0)
        finally:
            subprocess.run(["umount", cache.path + "/cache"], check=True)


@test
def a_tar_becomes_an_image():
    with Cache() as cache:
        tar = layer([File("bin/"), File("bin/true", b"#!", 0o755), random_file("data", MIB)])
        for name, data in (("plain", tar), ("packed", gzip.compress(tar))):
            with open(f"{cache.path}/{name}.tar", "wb") as file:
                file.write(data)
            digest = cache.snug("image", "import", "-q", f"{cache.path}/{name}.tar", "me/" + name).expect(0).out
            info = json.loads(cache.snug("image", "inspect", "me/" + name).expect(0).out)
            check(info["digest"] + "\n" == digest and info["name"] == f"docker.io/me/{name}:latest", "another image", info, digest)
            check([part["bytes"] for part in info["layers"]] == [len(data)], "another layer", info)
        with open(cache.path + "/plain.tar", "rb") as file:
            done = subprocess.run([SNUG, "image", "import", "-q", "-", "again"], stdin=file, env=cache.env, stdout=subprocess.PIPE, check=True)
        first = json.loads(cache.snug("image", "inspect", "me/plain").out)
        again = json.loads(cache.snug("image", "inspect", "again").out)
        check(done.stdout.decode() == first["digest"] + "\n" and again["id"] == first["id"], "not the same image", first, again)
        check(first["shared_bytes"] == first["bytes"] > MIB, "what two have is not shared", first)
        check("SHARED" in cache.snug("image", "list").out, "not listed")
        # As skopeo has it.
        copied = subprocess.run(["skopeo", "--override-os", "linux", "copy", "-q", "--src-shared-blob-dir", cache.path + "/cache/snug/oci/blobs",
                                 f"oci:{cache.path}/cache/snug/oci/names/docker.io%2Fme%2Fpacked%3Alatest", f"oci:{cache.path}/out:x"],
                                stderr=subprocess.PIPE)
        check(copied.returncode == 0, "skopeo cannot read it", copied.stderr)


@test
def a_health_check_of_dockers_is_kept():
    """A copy is an image of the OCI specification, which has no place for it."""
    with Cache() as cache:
        tar = layer([File("a", "x")])
        config = {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["true"], "Healthcheck": {"Test": ["CMD-SHELL", "test -e /a"]}},
                  "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]}, "history": [{"created_by": "x"}]}
        manifest = [{"Config": "config.json", "RepoTags": ["me/app:1"], "Layers": ["layer.tar"]}]
        with tarfile.open(cache.path + "/docker.tar", "w") as archive:
            for name, data in (("layer.tar", tar), ("config.json", json.dumps(config).encode()), ("manifest.json", json.dumps(manifest).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        name = f"docker-archive:{cache.path}/docker.tar"
        cache.snug("image", "pull", "-q", name).expect(0)
        info = json.loads(cache.snug("image", "inspect", name).expect(0).out)
        check(info["healthcheck"] == ["/bin/sh", "-c", "test -e /a"], "lost", info)


@test
def what_is_no_image_is_not_imported():
    with Cache() as cache:
        path = cache.path + "/file"
        for content, words in ((b"", "nothing in it"), (b"x" * 2000, "broken-archive"), (b"BZh" + bytes(2000), "unknown-compression"),
                               (gzip.compress(bytes(10240))[:-9], "broken-compression"), (layer([File("../a", "x")]), "path-escapes")):
            with open(path, "wb") as file:
                file.write(content)
            refused = cache.snug("image", "import", "-q", path, "bad").expect(125)
            check(words in refused.err and refused.err.count("\n") == 1, "no clear error", refused.err)
            check(cache.files("work", "names", "roots") == [], "something is left", cache.files("work", "names", "roots"))
        check("no such file" in cache.snug("image", "import", cache.path + "/gone", "bad").expect(125).err.lower(), "no clear error")
        for name in ("oci:/x", "a@sha256:" + "0" * 64, "Alpine"):
            check("snug: " in cache.snug("image", "import", path, name).expect(125).err, "a name that is none", name)


@test
def what_is_for_images_only():
    with Cache() as cache:
        for flags, words in ((["-P"], "no image whose ports"), (["--storage", "1G"], "for the root of an image"), (["--init", "image"], "no image")):
            check(words in cache.snug("run", *flags).expect(125).err, "no clear error", flags)
        name = cache.layout("layout", [File("a", "x")])
        refused = cache.snug("run", "-q", "--image", name, "--storage", "1G").expect(125)
        check("--name NAME" in refused.err, "no clear error", refused.err)
        check("has no storage" in cache.snug("rm", "--storage", "nobody").expect(125).err or "nobody" in cache.snug("rm", "--storage", "nobody").err,
              "no clear error")
