"""Shares: folders and files of the host in the guest, as a person sees them. Mounted by the agent, before a command runs."""
import contextlib
import json
import shutil

from guests import *  # noqa: F403
from network import need_uplink


def shared(*words, flags=(), kernel=(), **keywords):
    """snug run FLAGS -- WORDS with the tiny kernel, in little memory."""
    return snug("run", *(kernel or ("--kernel", TINY, "--initrd", INITRD)), "-m", "128M", "--boot-timeout", "300s", *flags, "--", *words,
                **keywords)


class Folder:
    """src/file, src/deep/file; for a `with`."""

    def __init__(self, below=None):
        self.below = below

    def __enter__(self):
        self.holder = tempfile.TemporaryDirectory(dir=self.below)
        self.path = os.path.realpath(self.holder.name)
        self.src = self.path + "/src"
        os.makedirs(self.src + "/deep")
        self.write("file", "of the host\n")
        self.write("deep/file", "deep\n")
        return self

    def __exit__(self, *_):
        self.holder.cleanup()

    def write(self, name, text):
        with open(f"{self.src}/{name}", "w") as file:
            file.write(text)

    def read(self, name):
        with open(f"{self.src}/{name}") as file:
            return file.read()


@test
def shares_a_folder_both_ways():
    with Folder() as folder:
        ended = shared("sh", "-c", "cat /work/file /work/deep/file; echo of the guest >/work/new; mkdir /work/made; "
                       "grep ' /work ' /proc/mounts", flags=["-v", folder.src + ":/work"]).expect(0)
        lines = ended.out.splitlines()
        check(lines[:2] == ["of the host", "deep"] and lines[2].startswith("share0 /work virtiofs rw,nodev"), "odd", ended.out, ended.err)
        check(ended.err == "", "something on stderr", ended.err)
        check(folder.read("new") == "of the guest\n" and os.path.isdir(folder.src + "/made"), "nothing came back")
        check(os.stat(folder.src + "/new").st_uid == os.geteuid(), "not this user's file")


@test
def shares_the_same_path_and_the_working_folder():
    """-v "$PWD" alone; the command runs where its caller stands."""
    with Folder() as folder:
        ended = shared("sh", "-c", "pwd; cat file", flags=["-v", folder.src], cwd=folder.src + "/deep").expect(0)
        check(ended.out == f"{folder.src}/deep\ndeep\n", "not the working folder", ended.out)
        ended = shared("pwd", flags=["-v", ".:/work"], cwd=folder.src).expect(0)
        check(ended.out == "/work\n", "not the working folder", ended.out)
        ended = shared("pwd", flags=["-v", ".:/work", "-w", "/tmp"], cwd=folder.src).expect(0)
        check(ended.out == "/tmp\n", "-w does not win", ended.out)
        ended = shared("pwd", flags=["-v", folder.src + ":/work"], cwd=folder.path).expect(0)
        check(ended.out == "/root\n", "a folder that is not shared", ended.out)


@test
def shares_read_only():
    with Folder() as folder:
        ended = shared("sh", "-c", "cat /work/file; echo x >/work/new; rm /work/file; mount -o remount,rw /work; echo x >/work/new",
                       flags=["-v", folder.src + ":/work:ro"])
        check(ended.out == "of the host\n" and ended.err.count("Read-only file system") >= 2, "not read-only", ended.out, ended.err)
        check(sorted(os.listdir(folder.src)) == ["deep", "file"], "something was changed", os.listdir(folder.src))


@test
def shares_a_file():
    with Folder() as folder:
        script = ("cat /etc/of-the-host /a/b/ro; echo more >>/etc/of-the-host; echo no >>/a/b/ro; "
                  "grep -c virtiofs /proc/mounts; ls -d /run/snug-file-* /tmp/snug-file-*")
        ended = shared("sh", "-c", script, flags=["-v", folder.src + "/file:/etc/of-the-host", "-v", folder.src + "/deep/file:/a/b/ro:ro"])
        check(ended.out == "of the host\ndeep\n2\n", "not the files", ended.out, ended.err)
        check("Read-only file system" in ended.err, "not read-only", ended.err)
        check(folder.read("file") == "of the host\nmore\n" and folder.read("deep/file") == "deep\n", "not in the file")


@test
def shares_two_and_one_within():
    """A folder before what lies in it, whatever the order of the spec."""
    with Folder() as folder:
        os.mkdir(folder.path + "/other")
        with open(folder.path + "/other/file", "w") as file:
            file.write("other\n")
        with open(folder.path + "/vm.yaml", "w") as spec:
            spec.write(f"kernel: {TINY}\ninitrd: {INITRD}\nmemory: 128M\nshares: [\"other:/work/deep:ro\", {{source: src, target: /work, "
                       f"tag: mine}}, {{source: other, tag: by-hand}}]\n"
                       "command: cat /work/file /work/deep/file && mount -t virtiofs by-hand /mnt && cat /mnt/file && "
                       "grep -c virtiofs /proc/mounts\n")
        ended = snug("run", folder.path + "/vm.yaml").expect(0)
        check(ended.out == "of the host\nother\nother\n3\n", "not both", ended.out, ended.err)


@test
def shares_are_there_for_exec_and_after_a_reset():
    with Folder() as folder:
        env = {**os.environ, "XDG_RUNTIME_DIR": folder.path}
        snug("run", "-d", "--wait", "--name", "shares", "--kernel", TINY, "--initrd", INITRD, "-m", "128M", "-v", folder.src + ":/work",
             env=env).expect(0)
        try:
            for round in range(2):
                out = snug("exec", "shares", "--", "sh", "-c", "cat /work/file; grep -c virtiofs /proc/mounts", env=env).expect(0).out
                check(out == "of the host\n1\n", f"not shared in round {round}", out)
                info = json.loads(snug("inspect", "shares", env=env).expect(0).out)
                check(info["shares"] == [{"tag": "share0", "source": folder.src, "target": "/work", "readonly": False, "state": "mounted"}],
                      "inspect says something else", info["shares"])
                if round == 0:
                    snug("exec", "shares", "--", "sh", "-c", "sync; reboot -f", env=env)
                    deadline = time.monotonic() + BOUND
                    while json.loads(snug("inspect", "shares", env=env).expect(0).out)["boots"] != 2:
                        check(time.monotonic() < deadline, "no second boot")
                        time.sleep(0.2)
        finally:
            snug("rm", "--force", "shares", env=env)


@test
@exhaustive
def shares_with_the_stock_kernel():
    """Its drivers are modules."""
    with Folder() as folder:
        ended = shared("cat", "/work/file", flags=["-v", folder.src + ":/work"],
                       kernel=("--kernel", STOCK, "--initrd", INITRD, "--initrd", STOCK_MODULES)).expect(0)
        check(ended.out == "of the host\n", "not shared", ended.out, ended.err)


@test
def shares_that_cannot_be_mounted_end_a_run():
    with Folder() as folder:
        ended = shared("echo", "ran", flags=["-v", folder.src + "/file:/etc"]).expect(125)
        check(ended.out == "" and "mount share0 on /etc: the guest's agent: /etc is a folder, and the share is a file" in ended.err,
              "not the reason", ended.out, ended.err)
        # An agent of before: it says no more than its version.
        with open(folder.path + "/old.c", "w") as source:
            source.write(OLD_AGENT)
        built = subprocess.run(["gcc", "-static", "-O1", "-Wall", "-Werror", "-o", folder.path + "/old", folder.path + "/old.c"],
                               capture_output=True, text=True)
        check(built.returncode == 0, "the old agent", built.stderr)
        ended = shared("echo", "ran", flags=["-v", folder.src + ":/work", "--initrd",
                                             small_initrd(folder.path, {"sbin/snug-agent": folder.path + "/old"})]).expect(125)
        check(ended.out == "" and "older than this snug" in ended.err and "snug image build initrd" in ended.err, "not the reason", ended.err)


@test
def shares_the_root():
    """A folder is the guest's root, and stays what it is."""
    the_root(("--kernel", TINY, "--initrd", INITRD))


@test
@exhaustive
def shares_the_root_with_the_stock_kernel():
    the_root(("--kernel", STOCK, "--initrd", INITRD, "--initrd", STOCK_MODULES))


def the_root(kernel):
    with Folder() as folder:
        root = folder.path + "/root"
        for name in ("bin", "usr", "home/user", "etc", "empty"):
            os.makedirs(f"{root}/{name}")
        shutil.copy(os.path.dirname(INITRD) + "/busybox", root + "/bin/busybox")
        for name in ("sh", "cat", "rm", "ls", "mount", "id", "touch"):
            os.symlink("busybox", f"{root}/bin/{name}")
        for name in ("usr/tool", "home/user/work", "etc/hosts"):
            with open(f"{root}/{name}", "w") as file:
                file.write(name + "\n")
        before = sorted(os.walk(root))
        ended = shared("sh", "-c", "cat /usr/tool; rm -rf /usr /home; ls -d /usr /home; touch /new /etc/new; cat /etc/new; "
                       "ls / ; mount | grep ' / '; id -u; cat /proc/1/comm", kernel=kernel, flags=["--root", root]).expect(0)
        check(ended.out.startswith("usr/tool\nbin\ndev\nempty\netc\nnew\nproc\nroot\nrun\nsys\ntmp\n"), "not that root", ended.out, ended.err)
        check("type overlay" in ended.out and "\n0\n" in ended.out, "not below a layer", ended.out)
        check(sorted(os.walk(root)) == before, "the host's folder has changed", list(os.walk(root)))
        check(open(root + "/usr/tool").read() == "usr/tool\n", "the host's file has changed")
        # Without an agent as well, and with a share beside it.
        ended = snug("run", *kernel, "-m", "128M", "--root", root, "--cmdline",
                     'quiet "snug.run=cat /home/user/work"').expect(0)
        check("home/user/work" in ended.out, "not that root", ended.out, ended.err)
        ended = shared("cat", "/work/file", kernel=kernel, flags=["--root", root, "-v", folder.src + ":/work"]).expect(0)
        check(ended.out == "of the host\n", "no share", ended.out, ended.err)
        ended = shared("true", flags=["--root", folder.src + "/file"])
        check(ended.status == 125 and "is a file, not a folder" in ended.err, "taken", ended.err)


@test
def shares_of_a_host_without_an_image():
    """Nothing is prepared: the host's own kernel and programs, in a guest that cannot change them."""
    kernel = f"/boot/vmlinuz-{os.uname().release}"
    # Not in /tmp, of which the guest has one of its own.
    with Folder("/var/tmp") as folder, contextlib.ExitStack() as stack:
        if not os.path.exists(kernel):
            with open(os.path.dirname(STOCK_FULL) + "/release") as file:
                if os.geteuid() != 0 or file.read().split()[0] != os.uname().release:
                    raise Skip("this host has no kernel that could be booted")
            os.makedirs("/boot", exist_ok=True)
            shutil.copy(STOCK_FULL, kernel)
            stack.callback(os.unlink, kernel)
        nothing = {name: folder.path + "/nothing" for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_DATA_DIRS")}
        env = {**os.environ, **nothing}

        def run(*words, flags=()):
            return snug("run", "-m", "256M", "--boot-timeout", "300s", *flags, "--", *words, env=env, cwd=folder.src)

        ended = run("sh", "-c", "cat /etc/os-release; pwd; cat file; echo mine >/etc/of-the-guest; cat /etc/of-the-guest; rm -rf /etc/apt; ls -d /etc/apt; rm -f "
                    "file; ls file; id -u; cat /proc/1/comm").expect(0)
        with open("/etc/os-release") as file:
            check(ended.out == f"{file.read()}{folder.src}\nof the host\nmine\n0\ninit\n", "not the host's root", ended.out, ended.err)
        check("no guest image" in ended.err and kernel in ended.err, "it does not say what it does", ended.err)
        check(folder.read("file") == "of the host\n" and not os.path.exists("/etc/of-the-guest"), "the host has changed")
        # The second time, from the cache; and on a network.
        need_uplink()
        made = os.listdir(folder.path + "/nothing/snug/host")
        ended = run("sh", "-c", "ip -4 -o address show dev eth0; ip route; cat /etc/resolv.conf; getent hosts $(hostname)",
                    flags=["--net", "user"]).expect(0)
        for text in ("inet ", "default via ", "127.0.1.1"):
            check(text in ended.out, f"no {text}", ended.out, ended.err)
        check(os.listdir(folder.path + "/nothing/snug/host") == made and len(made) == 1, "made again", made)


# Listens where the agent does, calls the host, and greets with version 2. It is the guest's first program.
OLD_AGENT = r"""
#include <linux/vm_sockets.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void) {
  int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
  struct sockaddr_vm own = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = 1000};
  bind(listener, (struct sockaddr*)&own, sizeof own);
  listen(listener, 8);
  struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 1000};
  int call = socket(AF_VSOCK, SOCK_STREAM, 0);
  while (connect(call, (struct sockaddr*)&host, sizeof host) != 0) usleep(50000);
  close(call);
  for (;;) {
    static const char hello[] = {8, 0, 0, 0, 1, 0, 0, 0, 'S', 'N', 'U', 'G', 2, 0, 2, 0};
    char bytes[4096];
    int stream = accept(listener, 0, 0);
    if (write(stream, hello, sizeof hello) < 0) continue;
    while (read(stream, bytes, sizeof bytes) > 0) continue;
    close(stream);
  }
}
"""
