"""Prepared guest images: snug image list, build, rm, prune; which image is booted. No guest boots here: a copy of the
program lies beside recipes and images of our own."""
import contextlib
import fcntl
import shutil
import struct

from harness import *  # noqa: F403

TREE = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
RECIPE = """about="a small one"
make_image() { echo made >"$1/kernel"; echo made >"$1/initrd"; }
"""


class Installed:
    """The program as it is installed somewhere, with recipes of ours, and a user whose cache is empty."""

    def __init__(self, folder):
        self.top = os.path.join(folder, "usr")
        self.cache = os.path.join(folder, "cache")
        self.share = os.path.join(self.top, "share/snug")
        for path in ("bin", "share/snug/guest-images/lib", "share/snug/tools/lib"):
            os.makedirs(os.path.join(self.top, path))
        self.program = shutil.copy(SNUG, os.path.join(self.top, "bin/snug"))
        shutil.copy(TREE + "/guest-images/build", self.share + "/guest-images/build")
        for path in ("guest-images/lib/cache.sh", "guest-images/lib/debian.sh", "tools/lib/common.sh", "tools/lib/packages.sh"):
            shutil.copy(f"{TREE}/{path}", f"{self.share}/{path}")
        self.recipe("small", RECIPE)

    def recipe(self, name, text):
        os.makedirs(f"{self.share}/guest-images/{name}", exist_ok=True)
        with open(f"{self.share}/guest-images/{name}/recipe.sh", "w") as file:
            file.write(text)

    def environment(self, **more):
        return {**os.environ, "XDG_CACHE_HOME": self.cache, "XDG_DATA_HOME": "/nonexistent", "XDG_DATA_DIRS": "/nonexistent",
                **more}

    def __call__(self, *arguments, **more):
        done = subprocess.run([self.program, *arguments], env=self.environment(**more), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=BOUND)
        return Ended(done.returncode, done.stdout, done.stderr)

    def image(self, *names):
        """One that came with the program."""
        for name in names:
            os.makedirs(f"{self.share}/images/{name}", exist_ok=True)
            for part in ("kernel", "initrd"):
                with open(f"{self.share}/images/{name}/{part}", "w") as file:
                    file.write("#!/bin/sh\n")

    def cached(self):
        """What the cache holds of images, links and hidden folders included, without locks."""
        return sorted(name for name in os.listdir(self.cache + "/snug/images") if not name.endswith(".lock"))


@contextlib.contextmanager
def installed():
    with tempfile.TemporaryDirectory() as folder:
        yield Installed(folder)


@test
def images_are_built_listed_and_removed():
    with installed() as snug:
        check("no image is prepared" in snug("image", "list").expect(0).err, "an empty list says nothing")
        path = snug("image", "build", "small").expect(0).out.strip()
        check(os.path.exists(path + "/kernel"), "the path of the image is not printed", path)
        row = snug("image", "list").expect(0).out.splitlines()[1].split()
        check(row[0] == "small" and row[-1] == path, "not listed", row)
        snug("image", "rm", "small").expect(0)
        check(not snug.cached() and not os.path.lexists(snug.cache + "/snug/small"), "something is left", snug.cached())
        check("small" in snug("image", "list", "--all").expect(0).out, "recipes are not listed")


@test
def another_users_cache_is_left_alone():
    """Root with that user's environment (sudo -E): what it made there would be in that user's way."""
    if os.geteuid() != 0:
        raise Skip("only root can make folders of others")
    with installed() as snug:
        os.mkdir(snug.cache)
        os.chown(snug.cache, 12345, 12345)
        err = snug("image", "build", "small").expect(1).err
        check("belongs to user 12345" in err and "XDG_CACHE_HOME" in err, "no advice", err)
        check(os.listdir(snug.cache) == [], "something is made", os.listdir(snug.cache))


@test
def wrong_words_about_images_get_the_right_ones():
    with installed() as snug:
        for words, said in ((["lst"], "did you mean 'list'?"), ([], "a command is missing"),
                            (["build", "smal"], "did you mean 'small'?"), (["build"], "NAME"), (["rm", "x"], "no image 'x'"),
                            (["build", "../small"], "no recipe"), (["rm", "../small"], "no image"),
                            (["list", "--al"], "did you mean '--all'?")):
            err = snug("image", *words).expect(125).err
            check(said in err, f"no advice for {words}", err)
        snug("image", "build", "small").expect(0)
        check("did you mean 'small'" in snug("image", "rm", "smll").expect(125).err, "no suggestion")


@test
def an_image_that_came_along_is_booted_and_stays():
    with installed() as snug:
        snug.image("default")
        row = snug("image", "list").expect(0).out.splitlines()[1]
        check("snug run" in row and snug.share in row, "the one that came along is not shown", row)
        check("guest image: default, " + snug.share in snug("doctor").out, "doctor does not name it")
        err = snug("image", "rm", "default").expect(125).err
        check("came with snug" in err, "no clear refusal", err)
        # One that the user has made goes before it.
        snug.recipe("default", RECIPE)
        path = snug("image", "build", "default").expect(0).out.strip()
        check(path in snug("doctor").out, "the user's own is not taken")
        snug("image", "rm", "default").expect(0)
        check(snug.share in snug("doctor").out, "the one that came along is not taken again")


@test
def an_image_is_found_by_the_data_folders_too():
    with installed() as snug:
        snug.image("default")
        os.rename(snug.share, snug.top + "/elsewhere")
        os.makedirs(snug.top + "/data")
        os.rename(snug.top + "/elsewhere", snug.top + "/data/snug")
        check("no guest image" in snug("doctor").out, "found where it is not")
        check(snug.top + "/data" in snug("doctor", XDG_DATA_DIRS=f"relative:{snug.top}/data").out, "not found")


@test
def stock_stands_in_for_default():
    with installed() as snug:
        snug.recipe("stock", RECIPE)
        path = snug("image", "build", "stock").expect(0).out.strip()
        check("guest image: stock, " + path in snug("doctor").out, "not taken")
        snug.image("default")
        check("guest image: default" in snug("doctor").out, "taken although there is a default")


@test
def an_image_that_is_not_prepared_says_how():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skip("no usable /dev/kvm")
    with installed() as snug:
        for name in ("stock", "default"):
            err = snug("run", "-k", name, "--", "true").expect(125).err
            check(f"'{name}' is not prepared" in err and f"snug image build {name}" in err, "no advice", err)
            check(len(err.strip().splitlines()) == 1, "not one line", err)


@test
def missing_recipes_packages_and_apt_are_named():
    with installed() as snug:
        snug.recipe("small", 'about="x"\nneeds=(missing)\nmake_image() { false; }\n')
        packages = snug.share + "/tools/lib/packages.sh"
        with open(packages, "a") as file:
            file.write("packages_of() { echo snug-no-such-package; }\n")
        err = snug("image", "build", "small").expect(1).err
        check("snug: error: missing packages; run: sudo apt-get" in err and "snug-no-such-package" in err, "no advice", err)
        snug.recipe("other", 'about="x"\npackages=(snug-no-such-package)\nmake_image() { false; }\n')
        err = snug("image", "build", "other").expect(1).err
        check("apt knows no package snug-no-such-package; run: sudo apt-get update" in err, "no advice", err)
        shutil.rmtree(snug.share)
        err = snug("image", "build", "small").expect(125).err
        check("recipes of guest images are not here" in err and snug.share in err, "no advice", err)


@test
def an_interrupted_build_leaves_nothing_and_the_next_one_works():
    with installed() as snug:
        snug.recipe("small", 'about="x"\nmake_image() { touch "$work/begun"; sleep 600; }\n')
        for number in (signal.SIGINT, signal.SIGTERM):
            with subprocess.Popen([snug.program, "image", "build", "small"], env=snug.environment(),
                                  stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
                                  preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as build:
                deadline = time.monotonic() + BOUND
                while not any(os.path.exists(f"{snug.cache}/snug/images/{name}/begun") for name in
                              (snug.cached() if os.path.isdir(snug.cache + "/snug/images") else ())):
                    check(time.monotonic() < deadline and build.poll() is None, "the build did not begin")
                    time.sleep(0.05)
                os.killpg(build.pid, number)
                _, err = build.communicate(timeout=BOUND)
            check(build.returncode == 128 + number, f"status {build.returncode}", err)
            check(b"nothing half-finished was left" in err, "nothing is said", err)
            check(not snug.cached(), "something is left", snug.cached())
        snug.recipe("small", RECIPE)
        snug("image", "build", "small").expect(0)


@test
def a_full_disk_ends_a_build_clearly():
    if not shutil.which("unshare"):
        raise Skip("no unshare(1)")
    with installed() as snug:
        snug.recipe("small", 'about="x"\nmake_image() { head -c 8M /dev/zero >"$1/kernel"; }\n')
        os.makedirs(snug.cache)
        script = f"mount -t tmpfs -o size=1M none {snug.cache} && exec {snug.program} image build small"
        done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], env=snug.environment(),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if "unshare failed" in done.stderr or "Operation not permitted" in done.stderr:
            raise Skip("no user namespaces here")
        check(done.returncode not in (0, 125), f"status {done.returncode}", done.stderr)
        check("No space left" in done.stderr and "small was not built" in done.stderr, "not said", done.stderr)


@test
def prune_removes_what_is_superseded_and_nothing_else():
    with installed() as snug:
        snug.recipe("base", RECIPE)
        snug.recipe("top", 'depends=(base)\nmake_image() { ln -s "../${built[base]#"$images/"}/kernel" "$1/kernel"; }\n')
        old = snug("image", "build", "top").expect(0).out.strip()
        old_base = os.path.realpath(snug.cache + "/snug/base")
        # Another base, which `top` does not have yet.
        snug.recipe("base", RECIPE + "# changed\n")
        snug("image", "build", "base").expect(0)
        snug("image", "prune").expect(0)
        check(os.path.exists(old_base), "what an image needs was removed")
        new = snug("image", "build", "top").expect(0).out.strip()
        check(new != old, "the image was not made anew")
        os.mkdir(f"{snug.cache}/snug/images/.top.abcdef")
        out = snug("image", "prune").expect(0).out
        for path in (old, old_base):
            check(not os.path.exists(path) and os.path.basename(path) in out, f"{path} is still there", out)
        check(len(snug.cached()) == 2, "not exactly what is in use is left", snug.cached())
        err = snug("image", "rm", "base").expect(125).err
        check("needed by top" in err, "no refusal", err)
        snug("image", "prune", "--all").expect(0)
        check(not snug.cached(), "something is left", snug.cached())
        check("no image is prepared" in snug("image", "list").expect(0).err, "a link is left")


@test
def what_a_machine_or_a_build_uses_stays():
    with installed() as snug:
        path = snug("image", "build", "small").expect(0).out.strip()
        with open(path + "/kernel", "r+") as disk:
            # As machines lock their disks.
            fcntl.fcntl(disk, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            err = snug("image", "rm", "small").expect(125).err
            check("a machine has kernel open" in err and os.path.exists(path), "it was removed", err)
            err = snug("image", "prune", "--all").expect(0).err
            check("stays" in err and os.path.exists(path), "it was pruned", err)
        with open(f"{snug.cache}/snug/images/.small.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            err = snug("image", "rm", "small").expect(125).err
            check("being made" in err and os.path.exists(path), "it was removed", err)
        snug("image", "rm", "small").expect(0)
