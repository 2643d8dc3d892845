"""Work on a share: a build, a repository, packages, and what stress-ng thinks of; by the host's own tools in a guest whose root is
the host's, as an ordinary user where that can be."""
import contextlib
import json
import shutil

from guests import *  # noqa: F403
from posix_cases import folder_with_attributes

USER = 12345
SOURCE = """#include <stdio.h>
#include "all.h"
int part_%(n)d(int a) { char text[32]; snprintf(text, sizeof text, "%%d", a + %(n)d); return text[0] != 0 ? a + SCALE * %(n)d : 0; }
"""
MAKEFILE = """PARTS := $(patsubst %.c,%.o,$(wildcard *.c))
prog: $(PARTS)
\t$(CC) -o $@ $^
%.o: %.c all.h
\t$(CC) -O1 -c -o $@ $<
clean:
\trm -f prog *.o
"""


class Work:
    """A folder (in `parent`) that an ordinary user owns, or whoever runs the tests, and snug as that user."""

    def __init__(self, as_root=False, parent=None):
        self.as_root, self.parent = as_root, parent

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        self.path = os.path.realpath(self.stack.enter_context(tempfile.TemporaryDirectory(dir=self.parent)))
        self.src = self.path + "/src"
        os.mkdir(self.src)
        self.user = os.geteuid()
        self.prefix = ()
        if self.user == 0 and not self.as_root:
            with contextlib.suppress(Skip):
                self.stack.enter_context(kvm_for_everybody())
                self.user = USER
        if self.user == USER:
            self.prefix = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", f"XDG_RUNTIME_DIR={self.path}",
                           f"HOME={self.path}", f"XDG_CACHE_HOME={self.path}")
        return self

    def __exit__(self, *_):
        self.stack.close()

    def run(self, script, memory="512M", flags=()):
        for top, folders, files in os.walk(self.path):
            for name in (*folders, *files, "."):
                os.chown(f"{top}/{name}", self.user, self.user, follow_symlinks=False)
        # Caches of root are root's.
        program, kernel, initrd = (shutil.copy(path, f"{self.path}/{name}") for path, name in ((PROGRAM, "snug"), (TINY, "kernel"), (INITRD, "initrd")))
        done = subprocess.run([*self.prefix, program, "run", "--kernel", kernel, "--initrd", initrd, "-m", memory, "--boot-timeout", "300s",
                               "--root", "/", *flags, "-v", self.src + ":/work", "-w", "/work", "-e", "HOME=/tmp", "--", "sh", "-ec", script],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return Ended(done.returncode, done.stdout, done.stderr)

    def check_owners(self):
        for top, folders, files in os.walk(self.src):
            for name in folders + files:
                check(os.lstat(f"{top}/{name}").st_uid == self.user, f"{top}/{name} is another's")


def needs(*tools):
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        raise Skip(f"not on this host: {', '.join(missing)}")


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


@test
def shares_hold_a_build_and_a_repository():
    needs("make", "gcc", "git")
    parts = 8
    with Work() as work:
        write(work.src + "/all.h", "#define SCALE 2\n" + "".join(f"int part_{n}(int);\n" for n in range(parts)))
        for n in range(parts):
            write(f"{work.src}/part_{n}.c", SOURCE % {"n": n})
        write(work.src + "/main.c", '#include <stdio.h>\n#include "all.h"\nint main(void) { int a = 0;\n' +
              "".join(f"a = part_{n}(a);\n" for n in range(parts)) + 'printf("%d\\n", a); return 0; }\n')
        write(work.src + "/Makefile", MAKEFILE)
        write(work.src + "/.gitignore", "*.o\nprog\nclone\n")
        sum_of = sum(range(parts))
        ended = work.run("make -s -j2; ./prog; make -q prog && echo nothing to do; sed -i 's/SCALE 2/SCALE 3/' all.h; make -s; ./prog; "
                         "git config --global user.name snug; git config --global user.email snug@localhost; "
                         "git init -q -b main . && git add . && git commit -q -m first && git status --porcelain; "
                         "git clone -q . clone; cd clone; git checkout -q -b other; sed -i 's/SCALE 3/SCALE 4/' all.h; git commit -q -a -m second; "
                         "git checkout -q main; git merge -q other; make -s; ./prog; git gc -q; git fsck --strict 2>&1; git status --porcelain; "
                         "git log --oneline | wc -l; cd ..; git status --porcelain; make -s clean; ls *.o 2>/dev/null | wc -l").expect(0)
        wanted = f"{2 * sum_of}\nnothing to do\n{3 * sum_of}\n{4 * sum_of}\n2\n0\n"
        check(ended.out == wanted, "not as on any disk", ended.out, ended.err)
        work.check_owners()
        # The host's git has no complaint either.
        done = subprocess.run(["git", "-c", "safe.directory=*", "-C", work.src + "/clone", "fsck", "--strict"], capture_output=True, text=True)
        check(done.returncode == 0, "not a repository", done.stderr)


@test
@exhaustive
def shares_hold_this_repository():
    """A part of snug's own build, in the guest."""
    needs("meson", "ninja", "g++")
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    with Work() as work:
        done = subprocess.run(["git", "-c", "safe.directory=*", "clone", "-q", "--no-hardlinks", top, work.src + "/snug"], capture_output=True, text=True)
        check(done.returncode == 0, "no clone", done.stderr)
        ended = work.run("cd snug; meson setup build >/dev/null; ninja -C build vmm/protocol/libprotocol.a vmm/base/libbase.a | tail -n 1; "
                         "ninja -C build vmm/base/libbase.a | tail -n 1", memory="2G").expect(0)
        check("no work to do" in ended.out, "built again, or not at all", ended.out, ended.err)
        work.check_owners()


@test
@exhaustive
def shares_hold_packages_of_npm():
    """200 packages, from archives that lie beside them."""
    needs("npm", "node")
    import io
    import tarfile
    count = 200
    with Work() as work:
        for n in range(count):
            os.makedirs(work.src + "/archives", exist_ok=True)
            with tarfile.open(f"{work.src}/archives/p{n}.tgz", "w:gz") as archive:
                for name, text in (("package.json", json.dumps({"name": f"p{n}", "version": "1.0.0", "main": "index.js", "bin": {f"p{n}": "index.js"}})),
                                   ("index.js", f"#!/usr/bin/env node\nmodule.exports = {n};\n"), ("lib/deep/a.js", "1\n" * 500)):
                    entry = tarfile.TarInfo("package/" + name)
                    entry.size = len(text)
                    entry.mode = 0o644
                    archive.addfile(entry, io.BytesIO(text.encode()))
        write(work.src + "/package.json", json.dumps({"name": "all", "version": "1.0.0", "dependencies": {
            f"p{n}": f"file:archives/p{n}.tgz" for n in range(count)}}))
        ended = work.run("npm install --offline --no-audit --no-fund --cache /work/cache >/dev/null; ls node_modules | wc -l; "
                         f"node -e 'let s = 0; for (let n = 0; n < {count}; ++n) s += require(\"p\" + n); console.log(s)'; "
                         "ls node_modules/.bin | wc -l; npm ls --offline | tail -n 2 | head -n 1 | wc -l; rm -rf node_modules; ls", memory="1G").expect(0)
        check(ended.out.startswith(f"{count}\n{count * (count - 1) // 2}\n{count}\n1\n"), "not installed", ended.out, ended.err)
        work.check_owners()


@test
@exhaustive
def shares_hold_under_stress_ng():
    """All that it has for file systems, at once; it says what it finds wrong, and leaves nothing."""
    # With what is to be removed behind them these seconds are minutes, too many for every day.
    needs("stress-ng")
    seconds = 60
    with folder_with_attributes() as parent, Work(parent=parent) as work:
        # The guest's kernel does not have what two of them are about, and a share's disk here is a small one.
        ended = work.run(f"stress-ng --class filesystem --all 1 --exclude binderfs,handle --timeout {seconds}s --verify --temp-path /work "
                         "--hdd-bytes 16M --iomix-bytes 16M --copy-file-bytes 128M --fallocate-bytes 16M --sync-file-bytes 16M 2>&1", memory="1G", flags=("--timeout", "900s"))
        for line in ended.out.splitlines():
            if "O_DIRECT failed" not in line:
                print("    " + line, flush=True)
        check(ended.status == 0 and "successful run completed" in ended.out and " fail:" not in ended.out, "something is wrong", ended.out, ended.err)
        check(os.listdir(work.src) == [], "something is left", os.listdir(work.src))
