"""Shares beside POSIX: hundreds of cases against tmpfs in the same guest (posix/), and two guests and the host that take turns
with one file (file_actor.c)."""
import atexit
import contextlib
import functools
import random
import shutil

from guests import *  # noqa: F403

HERE = os.path.dirname(__file__)
ONE = os.environ.get("SNUG_TEST_POSIX")  # a part of the names of cases: no others
USER = 12345  # of no account
CACHES = ("auto", "always", "none") if EVERYTHING else ("auto", "always")


@functools.cache
def built(name, *sources, flags=()):
    """A static program of these, kept until the tests end."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, True)
    made = subprocess.run(["gcc", "-static", "-D_GNU_SOURCE", *flags, "-o", f"{folder}/{name}", *sources], capture_output=True, text=True)
    check(made.returncode == 0, f"{name} cannot be built", made.stderr)
    return f"{folder}/{name}"


def keeps_attributes(folder):
    try:
        os.setxattr(folder, "user.snug-test", b"x")
        os.removexattr(folder, "user.snug-test")
        return True
    except OSError:
        return False


@contextlib.contextmanager
def folder_with_attributes():
    """A folder on a file system that has users' attributes, as those of hosts have; made for it where /tmp has none."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        if keeps_attributes(folder):
            yield folder
            return
        make = shutil.which("mkfs.ext4", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        if os.geteuid() != 0 or not make:
            raise Skip("no file system with users' extended attributes here, and none can be made")
        subprocess.run(["modprobe", "--quiet", "--all", "loop", "ext4"])
        os.mkdir(folder + "/mounted")
        with open(folder + "/disk", "wb") as disk:
            disk.truncate(1 << 30)
        subprocess.run([make, "-q", "-F", "-O", "^has_journal", folder + "/disk"], check=True)
        mounted = subprocess.run(["mount", "-o", "loop", folder + "/disk", folder + "/mounted"], capture_output=True, text=True)
        if mounted.returncode != 0:
            raise Skip(f"no file system with users' extended attributes here: {mounted.stderr.strip()}")
        try:
            yield folder + "/mounted"
        finally:
            subprocess.run(["umount", "--lazy", folder + "/mounted"])


class Server:
    """Who runs snug, and what for: root, or an ordinary user, who needs files of their own."""

    def __init__(self, folder, is_user):
        self.folder, self.prefix, self.program, self.kernel, self.initrd = folder, [], PROGRAM, TINY, INITRD
        self.tags = ["user" if is_user else "root"]
        self.is_another = is_user and os.geteuid() == 0
        if self.is_another:
            if not os.stat("/dev/kvm").st_mode & 0o002:
                raise Skip("/dev/kvm is not for everybody here")
            own = self.new_folder("own")
            self.program, self.kernel, self.initrd = (shutil.copy(path, own) for path in (PROGRAM, TINY, INITRD))
            self.prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", f"XDG_RUNTIME_DIR={own}",
                           f"HOME={own}", f"XDG_CACHE_HOME={own}"]
        missing = subprocess.run([*self.prefix, self.program, "doctor"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if "note  jail:" in missing.stdout:
            self.tags.append("bare")

    def new_folder(self, name):
        path = f"{self.folder}/{name}"
        os.mkdir(path, 0o755)
        if self.is_another:
            os.chown(path, USER, USER)
        return path

    def run(self, *arguments):
        jail = "auto" if "bare" in self.tags else "require"
        done = subprocess.run([*self.prefix, self.program, "run", "--jail", jail, "--kernel", self.kernel, "--initrd", self.initrd,
                               *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=BOUND)
        return Ended(done.returncode, done.stdout, done.stderr)


def hold_against_posix(is_user):
    cases = HERE + "/posix"
    program = built("posix", *(f"{cases}/{name}.c" for name in ("posix", "actors", "names", "files", "attributes", "locks", "acls")))
    with folder_with_attributes() as folder:
        server = Server(folder, is_user)
        files = {"bin/posix": program}
        files.update((f"etc/posix/{name}", f"{cases}/{name}") for name in os.listdir(cases) if not name.endswith((".c", ".h")))
        more = small_initrd(server.new_folder("more"), files)
        flags, places = [], []
        for cache in CACHES:
            flags += ["--share", f"source={server.new_folder(cache)},target=/{cache},cache={cache}"]
            places.append(f"{','.join([*server.tags, cache])}:/{cache}")
        ended = server.run("--initrd", more, "-m", "128M", "--boot-timeout", "300s", *flags, "--", "sh", "-c",
                           "mkdir /ref && mount -t tmpfs -o nodev,mode=755 tmpfs /ref && posix /etc/posix /ref " + " ".join(places) +
                           (f" --case {ONE}" if ONE else ""))
        for line in ended.out.splitlines():
            print("    " + line, flush=True)
        check(ended.status == 0, "not what POSIX has", ended.err)


@test
@exhaustive
def shares_as_posix_has_them_served_by_root():
    if os.geteuid() != 0:
        raise Skip("root alone can be root")
    hold_against_posix(is_user=False)


@test
def shares_as_posix_has_them_served_by_a_user():
    hold_against_posix(is_user=True)


class Actors:
    """On the host and in guests that share one file, for a `with`."""

    def __init__(self, folder, guests):
        self.program = built("file-actor", HERE + "/file_actor.c", flags=("-O1",))
        self.folder, self.names = folder, guests
        self.env = {**os.environ, "XDG_RUNTIME_DIR": folder}
        self.processes = {}

    def __enter__(self):
        os.mkdir(self.folder + "/work")
        os.mkdir(self.folder + "/more")
        more = small_initrd(self.folder + "/more", {"bin/file-actor": self.program})
        try:
            for name in self.names:
                snug("run", "-d", "--name", name, "--kernel", TINY, "--initrd", INITRD, "--initrd", more, "-m", "96M", "-v",
                     self.folder + "/work:/work", env=self.env).expect(0)
            self.start("host", self.program, self.folder + "/work/file")
            for name in self.names:
                snug("exec", name, "--", "true", env=self.env).expect(0)
                self.start(name, SNUG, "exec", "-i", name, "--", "file-actor", "/work/file")
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, name, *command):
        self.processes[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.env, text=True)

    def turn(self, name, seed, count, checksum):
        """Of the file afterwards."""
        process = self.processes[name]
        process.stdin.write(f"{seed} {count} {checksum}\n")
        process.stdin.flush()
        check(select_read(process.stdout, BOUND)[0], f"{name} does not answer")
        answer = process.stdout.readline()
        check(answer.startswith("ok "), f"{name}, {count} operations of seed {seed}: {answer}")
        return answer.split()[1]

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.communicate()
        for name in self.names:
            snug("rm", "--force", name, env=self.env)


@test
def shares_one_file_for_two_guests_and_the_host():
    """Whatever each of them does in its turn, the next finds it exactly so."""
    left = 100_000 if EVERYTHING else 2_000
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"    seed {seed}, {left} operations", flush=True)
    chance = random.Random(seed)
    with folder_with_attributes() as folder, Actors(folder, ("one", "two")) as actors:
        began, checksum, turns = time.monotonic(), "-", 0
        while left > 0:
            count = min(left, chance.randint(1, 400))
            checksum = actors.turn(chance.choice(("host", "one", "two")), chance.getrandbits(60), count, checksum)
            left, turns = left - count, turns + 1
        print(f"    {turns} turns in {time.monotonic() - began:.0f} s", flush=True)
