"""A share under pjdfstest (github.com/pjd/pjdfstest), which is no part of this repository: SNUG_TEST_PJDFSTEST is the folder of its
source, and SNUG_TEST_PJDFSTEST_ONLY, if set, a part of the names of its files: no others. What is known to fail, and why, is in
pjdfstest.differences."""
import re
import shutil

from builds import Work, needs
from guests import *  # noqa: F403
from posix_cases import folder_with_attributes

HERE = os.path.dirname(__file__)
SOURCE = os.environ.get("SNUG_TEST_PJDFSTEST")
ONLY = os.environ.get("SNUG_TEST_PJDFSTEST_ONLY", "")
# What its configure script finds where the C library is glibc.
FOUND = ("FACCESSAT FCHMODAT FCHOWNAT FSTATAT LCHMOD LINKAT MKDIRAT MKFIFOAT MKNODAT OPENAT POSIX_FALLOCATE READLINKAT RENAMEAT "
         "SYMLINKAT UNLINKAT UTIMENSAT SYS_SYSMACROS_H STRUCT_STAT_ST_ATIM STRUCT_STAT_ST_CTIM STRUCT_STAT_ST_MTIM").split()
SCRIPT = """mkdir -p /work/run; cd /work/run; cp /work/suite/pjdfstest /tmp
for file in {files}; do echo "== $file"; sh /work/suite/tests/$file 2>&1 || true; done
"""
# In the place of functions of its own that start five programs for each case.
QUICKER = r"""
fstest=/tmp/pjdfstest
expect() {
  e=$1
  shift
  r=$(${fstest} $* 2>/dev/null)
  r=${r##*
}
  word="not ok"
  if [ "$r" = "$e" ] || echo "$r" | grep -Eq "^$e\$"; then word=ok; fi
  echo "$word $ntest${todomsg:+ # TODO $todomsg} - tried '$*', expected $e, got $r"
  todomsg=""
  : $(( ntest += 1 ))
}
namegen() {
  read -r uuid </proc/sys/kernel/random/uuid
  echo "pjdfstest_$uuid"
}
"""


def built(folder):
    """A copy of the suite in `folder`, with its program."""
    if not SOURCE:
        raise Skip("SNUG_TEST_PJDFSTEST does not say where its source is")
    check(os.path.exists(f"{SOURCE}/pjdfstest.c"), f"SNUG_TEST_PJDFSTEST: no pjdfstest.c in {SOURCE}")
    needs("gcc", "openssl")
    shutil.copytree(f"{SOURCE}/tests", f"{folder}/tests")
    with open(f"{folder}/tests/misc.sh", "a") as functions:
        functions.write(QUICKER)
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
    """[(pattern of FILE:NUMBER TEXT, reason)] of what fails for this server."""
    with open(f"{HERE}/pjdfstest.differences") as file:
        lines = [re.split(r"\s{2,}", line.strip()) for line in file if line.strip() and not line.startswith("#")]
    return [(re.compile(pattern), reason) for who, pattern, reason in lines if who in ("both", server)]


def cases_of(output):
    """[(FILE, number, whether it passes, what it says)], in order; a file that ends early has those that are missing, too."""
    found = []
    for part in re.split(r"^== ", output, flags=re.M)[1:]:
        name, _, lines = part.partition("\n")
        planned = re.search(r"^1\.\.(\d+)", lines, re.M)
        seen = {number: (False, "no word of it") for number in range(1, int(planned.group(1)) + 1 if planned else 2)}
        for word, number, rest in re.findall(r"^(ok|not ok) (\d+)(.*)", lines, re.M):
            seen[int(number)] = (word == "ok" or "# TODO" in rest, rest.strip(" -"))
        found += [(name, number, *one) for number, one in seen.items()]
    return found


def sorted_out(cases, listed):
    """Failures: by reason, those that follow from them, and the others. What is done with a name of which something listed has failed
    follows from that: a file that was not made cannot be removed, nor be what a link leads to, until it is made anew. So does a
    look, without a name, at what such a case has left."""
    by_reason, follow, others, touched, before = {}, [], [], set(), False
    for file, number, passes, text in cases:
        names = {(file, one) for one in re.findall(r"pjdfstest_[0-9a-f-]+", text)}
        follows = bool(names & touched) or (not text and before)
        reason = not passes and next((reason for pattern, reason in listed if pattern.search(f"{file}:{number} {text}")), None)
        if reason:
            by_reason.setdefault(reason, []).append(f"{file}:{number}")
        elif not passes and follows:
            follow.append(f"{file}:{number}")
        elif not passes:
            others.append((f"{file}:{number}", text or "not so"))
        before = not passes and bool(reason or follows)
        if passes and re.search(r"tried '(-\S+ \S+ )*(create|mkdir|mkfifo|mknod|bind) ", text):
            touched -= names
        elif reason or follows:
            touched |= names
    return by_reason, follow, others


def hold(work, server):
    suite = work.src + "/suite"
    os.mkdir(suite)
    built(suite)
    files = files_of(suite)
    check(files, "no file of it is called that")
    ended = work.run(SCRIPT.format(files=" ".join(files)))
    check(ended.status == 0, "the guest", ended.err)
    cases = cases_of(ended.out)
    by_reason, follow, others = sorted_out(cases, known(server))
    print(f"    {len(files)} files, {len(cases)} cases, {sum(case[2] for case in cases)} pass; {sum(map(len, by_reason.values()))} fail as listed, "
          f"{len(follow)} follow from these, {len(others)} fail otherwise", flush=True)
    for reason, names in by_reason.items():
        print(f"    {len(names)}: {reason}", flush=True)
    for name, text in others:
        print(f"    {name}: {text}", flush=True)
    check(not others, "not all of it passes")


@test
def shares_pass_pjdfstest_served_by_root():
    if os.geteuid() != 0:
        raise Skip("root alone can be root")
    with folder_with_attributes() as parent, Work(as_root=True, parent=parent) as work:
        hold(work, "root")


@test
def shares_pass_pjdfstest_served_by_a_user():
    with folder_with_attributes() as parent, Work(parent=parent) as work:
        hold(work, "user")
