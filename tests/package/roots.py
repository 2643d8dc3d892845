#!/usr/bin/env python3
"""The packages in fresh roots of Debian 12 and 13: installed, used by an ordinary user up to a guest's output, removed.
As root, where KVM boots guests (tests/package/run starts it in the lab). SNUG_ROOT_SUITE: the tars of the roots."""
import glob
import json
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.path[0] + "/../support")
from harness import *  # noqa: E402,F403

PACKAGES = os.environ["SNUG_PACKAGES"]
DEB = glob.glob(PACKAGES + "/snug_*_amd64.deb")[0]
TAR = glob.glob(PACKAGES + "/snug-*-linux-x86_64.tar.gz")[0]
USER = 1000
SPEC = "kernel: default\nmemory: 256M\ncommand: uname -r\n"
# What dpkg and apt write down for themselves, and what belongs to the user.
NOT_OURS = ("/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log", "/home", "/tmp", "/proc", "/dev", "/sys", "/root")


def run(*command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)
    return Ended(done.returncode, done.stdout, done.stderr)


class Root:
    """One system with a user, unpacked. Where it lies belongs to the lab and goes with it."""

    def __init__(self, suite):
        self.top = tempfile.mkdtemp(prefix=f"root-{suite}-")
        os.chmod(self.top, 0o755)
        run("tar", "xpf", os.environ[f"SNUG_ROOT_{suite.upper()}"], "-C", self.top, "--exclude=./dev/*").expect(0)
        for source in ("/proc", "/dev"):
            run("mount", "--rbind", source, self.top + source).expect(0)
        # The smallest Debian 13 has no useradd.
        for file, line in (("passwd", f"someone:x:{USER}:{USER}::/home/someone:/bin/sh"), ("group", f"someone:x:{USER}:")):
            with open(f"{self.top}/etc/{file}", "a") as accounts:
                accounts.write(line + "\n")
        os.mkdir(self.top + "/home/someone")
        os.chown(self.top + "/home/someone", USER, USER)
        self.before = self.files()

    def root(self, *command):
        return run("/usr/sbin/chroot", self.top, *command, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
                                                      "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"})

    def user(self, *command):
        return run("/usr/sbin/chroot", f"--userspec={USER}:{USER}", self.top, "env", "-C", "/home/someone", *command,
                   env={"PATH": "/usr/bin:/bin", "HOME": "/home/someone", "LC_ALL": "C"})

    def files(self):
        found = set()
        for folder, folders, files in os.walk(self.top):
            inside = folder[len(self.top):]
            folders[:] = [name for name in folders if f"{inside}/{name}" not in NOT_OURS]
            found.update(f"{inside}/{name}" for name in folders + files)
        return found

    def copy(self, path, to):
        with open(path, "rb") as source, open(self.top + to, "wb") as target:
            target.write(source.read())

    def close(self):
        for mounted in ("/proc", "/dev"):
            run("umount", "-R", "-l", self.top + mounted)
        run("rm", "-rf", "--one-file-system", self.top)


def life_of_the_package(suite):
    root = Root(suite)
    try:
        root.copy(DEB, "/tmp/" + os.path.basename(DEB))
        root.root("apt-get", "install", "-y", "--no-install-recommends", "/tmp/" + os.path.basename(DEB)).expect(0)
        check(not root.root("dpkg", "--audit").expect(0).out, "dpkg is not content")
        use_as_a_user(root)
        boot_as_a_user(root)
        root.root("apt-get", "purge", "-y", "snug").expect(0)
        left = root.files() - root.before
        check(not left, "something is left", *sorted(left))
        check(not root.before - root.files(), "something is gone", *sorted(root.before - root.files()))
    finally:
        root.close()


def use_as_a_user(root):
    with open(root.top + "/home/someone/vm.yaml", "w") as spec:
        spec.write(SPEC)
    check(root.user("snug", "version").expect(0).out.startswith("snug "), "no version")
    check("valid" in root.user("snug", "validate", "vm.yaml").expect(0).out, "the spec is not valid")
    json.loads(root.user("snug", "schema").expect(0).out)
    root.user("bash", "-n", "-c", root.user("snug", "completion").expect(0).out).expect(0)
    listed = root.user("snug", "image", "list").expect(0).out
    check("/usr/share/snug/images/default" in listed, "the image that came along is not listed", listed)
    check("came with snug" in root.user("snug", "image", "rm", "default").expect(125).err, "no clear refusal")
    # Nothing is installed that makes images: what is missing is said.
    err = root.user("snug", "image", "build", "agent").expect(1).err
    check("missing packages; run: sudo apt-get" in err and "g++" in err, "no advice", err)
    for page in glob.glob(root.top + "/usr/share/man/man*/snug*"):
        run("gzip", "-t", page).expect(0)


def boot_as_a_user(root):
    mode = os.stat("/dev/kvm").st_mode
    os.chmod("/dev/kvm", 0o600)
    try:
        err = root.user("snug", "run", "--", "true").expect(125).err
        check("/dev/kvm" in err and len(err.strip().splitlines()) == 1, "no clear refusal", err)
        os.chmod("/dev/kvm", 0o666)
        root.user("snug", "doctor").expect(0)
        done = root.user("snug", "run", "--", "uname", "-r").expect(0)
        check(re.fullmatch(r"\d+\.\d+\.\S*\n", done.out) and not done.err, "odd output", done.out, done.err)
        # By a spec, from the cache of kernels, and with the guest's status.
        check(root.user("snug", "run", "vm.yaml").expect(0).out == done.out, "another release")
        root.user("snug", "run", "--", "sh", "-c", "exit 7").expect(7)
    finally:
        os.chmod("/dev/kvm", mode & 0o7777)


@test
def debian_12():
    life_of_the_package("bookworm")


@test
def debian_13():
    life_of_the_package("trixie")


@test
def the_tar_in_the_users_folder():
    root = Root("bookworm")
    mode = os.stat("/dev/kvm").st_mode
    try:
        root.copy(TAR, "/tmp/snug.tar.gz")
        root.user("mkdir", "-p", "/home/someone/.local").expect(0)
        root.user("tar", "xzf", "/tmp/snug.tar.gz", "-C", "/home/someone/.local", "--strip-components=1").expect(0)
        os.chmod("/dev/kvm", 0o666)
        done = root.user("/home/someone/.local/bin/snug", "run", "--", "id", "-u").expect(0)
        check(done.out == "0\n", "odd output", done.out, done.err)
        check(root.files() == root.before, "something was written elsewhere", *sorted(root.files() - root.before))
    finally:
        os.chmod("/dev/kvm", mode & 0o7777)
        root.close()


main("package")
