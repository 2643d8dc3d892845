"""A share under pjdfstest (github.com/pjd/pjdfstest), which is no part of this repository: SNUG_TEST_PJDFSTEST is the folder of its
source, and SNUG_TEST_PJDFSTEST_ONLY, if set, a part of the names of its files: no others. What is known to fail, and why, is in
pjdfstest.differences."""
import fnmatch
import re
import shutil

from builds import Work, needs
from guests import *  # noqa: F403

HERE = os.path.dirname(__file__)
SOURCE = os.environ.get("SNUG_TEST_PJDFSTEST")
ONLY = os.environ.get("SNUG_TEST_PJDFSTEST_ONLY", "")
# What its configure script finds where the C library is glibc.
FOUND = ("FACCESSAT FCHMODAT FCHOWNAT FSTATAT LCHMOD LINKAT MKDIRAT MKFIFOAT MKNODAT OPENAT POSIX_FALLOCATE READLINKAT RENAMEAT "
         "SYMLINKAT UNLINKAT UTIMENSAT SYS_SYSMACROS_H STRUCT_STAT_ST_ATIM STRUCT_STAT_ST_CTIM STRUCT_STAT_ST_MTIM").split()
SCRIPT = """mkdir -p /work/run; cd /work/run
for file in {files}; do echo "== $file"; sh /work/suite/tests/$file 2>&1 || true; done
"""


def built(folder):
    """A copy of the suite in `folder`, with its program."""
    if not SOURCE:
        raise Skip("SNUG_TEST_PJDFSTEST does not say where its source is")
    check(os.path.exists(f"{SOURCE}/pjdfstest.c"), f"SNUG_TEST_PJDFSTEST: no pjdfstest.c in {SOURCE}")
    needs("gcc", "openssl")
    shutil.copytree(f"{SOURCE}/tests", f"{folder}/tests")
    shutil.copy(f"{SOURCE}/pjdfstest.c", folder)
    with open(f"{folder}/config.h", "w") as config:
        config.write("#define _GNU_SOURCE 1\n" + "".join(f"#define HAVE_{name} 1\n" for name in FOUND))
    made = subprocess.run(["gcc", "-w", "-I", folder, "-o", f"{folder}/pjdfstest", f"{folder}/pjdfstest.c"], capture_output=True, text=True)
    check(made.returncode == 0, "it cannot be built", made.stderr)


def files_of(folder):
    found = []
    for top, _, names in os.walk(f"{folder}/tests"):
        found += [os.path.relpath(f"{top}/{name}", f"{folder}/tests") for name in names if name.endswith(".t")]
    return sorted(name for name in found if ONLY in name)


def known(server):
    """Patterns of what fails for this server; "*" stands for both."""
    with open(f"{HERE}/pjdfstest.differences") as file:
        words = [line.split(None, 2) for line in file if line.strip() and not line.startswith("#")]
    return [pattern for pattern, condition, _ in words if condition in ("*", server)]


def failures(output):
    """(cases that there were, [(FILE:NUMBER, what it says)]); a file that ends early counts for those that are missing."""
    total, failed = 0, []
    for part in re.split(r"^== ", output, flags=re.M)[1:]:
        name, _, lines = part.partition("\n")
        planned = re.search(r"^1\.\.(\d+)", lines, re.M)
        count = int(planned.group(1)) if planned else 1
        total += count
        seen = dict.fromkeys(range(1, count + 1), "no word of it")
        for word, number, rest in re.findall(r"^(ok|not ok) (\d+)(.*)", lines, re.M):
            seen[int(number)] = None if word == "ok" or "# TODO" in rest else rest.strip(" -") or "not so"
        failed += [(f"{name}:{number}", text) for number, text in seen.items() if text is not None]
    return total, failed


def hold(work, server):
    suite = work.src + "/suite"
    os.mkdir(suite)
    built(suite)
    files = files_of(suite)
    check(files, "no file of it is called that")
    ended = work.run(SCRIPT.format(files=" ".join(files)))
    check(ended.status == 0, "the guest", ended.err)
    total, failed = failures(ended.out)
    listed = known(server)
    wrong = [(name, text) for name, text in failed if not any(fnmatch.fnmatch(name, pattern) for pattern in listed)]
    print(f"    {len(files)} files, {total} cases, {len(failed) - len(wrong)} fail as listed, {len(wrong)} otherwise", flush=True)
    for name, text in wrong:
        print(f"    {name}: {text}", flush=True)
    check(not wrong, "not all of it passes")


@test
def shares_pass_pjdfstest_served_by_root():
    if os.geteuid() != 0:
        raise Skip("root alone can be root")
    with Work(as_root=True) as work:
        hold(work, "root")


@test
def shares_pass_pjdfstest_served_by_a_user():
    with Work() as work:
        hold(work, "user")
