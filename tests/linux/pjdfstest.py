"""A share under pjdfstest (github.com/pjd/pjdfstest), which is no part of this repository: SNUG_TEST_PJDFSTEST is the folder of its
source, and SNUG_TEST_PJDFSTEST_ONLY, if set, parts of the names of its files: no others. What is known to fail, and why, is in
pjdfstest.differences. QEMU's server of folders is put to the same, to see how it does."""
import re
import shutil

from builds import Work, needs
from guests import *  # noqa: F403
from posix_cases import folder_with_attributes

HERE = os.path.dirname(__file__)
SOURCE = os.environ.get("SNUG_TEST_PJDFSTEST")
ONLY = os.environ.get("SNUG_TEST_PJDFSTEST_ONLY", "").split()
VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
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
namegen_len() {
  name=""
  while [ ${#name} -lt $1 ]; do
    read -r uuid </proc/sys/kernel/random/uuid
    name=$name$uuid
  done
  printf "%.$1s" "$name"
}
"""
# The first program of a guest of QEMU's.
FIRST = """#!/bin/sh
snug-setup
mkdir /work && mount -t virtiofs work /work && chmod 1777 /tmp || poweroff -f
%s
echo all of it is done
poweroff -f
"""


def built(folder):
    """A copy of the suite in `folder`, with its program."""
    if not SOURCE:
        raise Skip("SNUG_TEST_PJDFSTEST does not say where its source is")
    check(os.path.exists(f"{SOURCE}/pjdfstest.c"), f"SNUG_TEST_PJDFSTEST: no pjdfstest.c in {SOURCE}")
    needs("gcc")
    shutil.copytree(f"{SOURCE}/tests", f"{folder}/tests")
    with open(f"{folder}/tests/misc.sh", "a") as functions:
        functions.write(QUICKER)
    shutil.copy(f"{SOURCE}/pjdfstest.c", folder)
    with open(f"{folder}/config.h", "w") as config:
        config.write("#define _GNU_SOURCE 1\n" + "".join(f"#define HAVE_{name} 1\n" for name in FOUND))
    made = subprocess.run(["gcc", "-w", "-static", "-I", folder, "-o", f"{folder}/pjdfstest", f"{folder}/pjdfstest.c"], capture_output=True, text=True)
    check(made.returncode == 0, "it cannot be built", made.stderr)


def files_of(folder):
    found = []
    for top, _, names in os.walk(f"{folder}/tests"):
        found += [os.path.relpath(f"{top}/{name}", f"{folder}/tests") for name in names if name.endswith(".t")]
    found = sorted(name for name in found if not ONLY or any(part in name for part in ONLY))
    check(found, "no file of it is called that")
    return found


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


def with_kinds(cases):
    """The same, where each says behind the name of a file that something is done to which kind of file that is."""
    kinds, made = {}, {"create": "file", "mkdir": "folder", "mkfifo": "FIFO", "bind": "socket"}
    for file, number, passes, text in cases:
        words = re.sub(r"^tried '(-\w \S+ |-- )*", "", text).partition("'")[0].split()
        if len(words) < 2:
            yield file, number, passes, text
            continue
        names = [(file, word.rpartition("/")[2]) for word in words]
        if words[0] in made:
            kinds[names[1]] = made[words[0]]
        elif words[0] == "symlink":
            kinds[names[2]] = f"link to {kinds.get(names[1], 'nothing')}"
        elif words[0] == "mknod":
            kinds[names[1]] = {"f": "FIFO", "b": "device", "c": "device"}.get(words[2])
        elif words[0] in ("link", "rename") and passes and text.endswith("got 0"):
            kinds[names[2]] = kinds.get(names[1])
        yield file, number, passes, text.replace(words[1], f"{words[1]} ({kinds.get(names[1], '?')})", 1)


def sorted_out(cases, listed):
    """Failures: by reason, those that follow from them, and the others. What is done with a name of which something listed has failed
    follows from that: a file that was not made cannot be removed, nor be what a link leads to, until it is made anew. So does a
    look, without a name, at what such a case has left."""
    by_reason, follow, others, touched, before = {}, [], [], set(), False
    for file, number, passes, text in with_kinds(cases):
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


def say_what_passes(cases):
    for folder in sorted({case[0].split("/")[0] for case in cases}):
        of_it = [case for case in cases if case[0].startswith(folder + "/")]
        print(f"    {folder}: {len({case[0] for case in of_it})} files, {len(of_it)} cases, {sum(case[2] for case in of_it)} pass", flush=True)


def hold(work, server):
    suite = work.src + "/suite"
    os.mkdir(suite)
    built(suite)
    files = files_of(suite)
    ended = work.run(SCRIPT.format(files=" ".join(files)))
    check(ended.status == 0, "the guest", ended.err)
    cases = cases_of(ended.out)
    say_what_passes(cases)
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


def output_with_virtiofsd(folder, first):
    """What a guest of QEMU's says whose first program is that, with `folder`/src as its share."""
    with open(folder + "/first", "w", opener=lambda path, flags: os.open(path, flags, 0o755)) as file:
        file.write(first)
    with open(folder + "/initrd", "wb") as joined:
        for path in (INITRD, small_initrd(folder, {"first": folder + "/first"})):
            with open(path, "rb") as file:
                shutil.copyfileobj(file, joined)
            joined.write(bytes(-joined.tell() % 4))
    socket = folder + "/socket"
    server = subprocess.Popen([VIRTIOFSD, f"--socket-path={socket}", "-o", f"source={folder}/src", "-o", "cache=auto"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + BOUND
        while not os.path.exists(socket):
            check(server.poll() is None and time.monotonic() < deadline, "virtiofsd does not start")
            time.sleep(0.1)
        return subprocess.run(
            ["qemu-system-x86_64", "-M", "q35,memory-backend=m", "-accel", "kvm", "-accel", "tcg", "-cpu", "max", "-m", "512M", "-object",
             "memory-backend-memfd,id=m,size=512M,share=on", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
             "-kernel", TINY_FOLDER + "/bzImage", "-initrd", folder + "/initrd", "-append", "console=ttyS0 panic=-1 quiet rdinit=/first",
             "-chardev", f"socket,id=c,path={socket}", "-device", "vhost-user-fs-pci,chardev=c,tag=work"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout.decode(errors="replace").replace("\r", "")
    finally:
        server.kill()
        server.wait()


@test
def virtiofsd_is_put_to_pjdfstest_as_shares_are():
    """For the table in vmm/shares/README.md: what it fails of is no failure here."""
    needs("qemu-system-x86_64")
    if os.geteuid() != 0:
        raise Skip("root alone can start virtiofsd")
    if not os.path.exists(VIRTIOFSD):
        raise Skip(f"{VIRTIOFSD} is not there")
    with folder_with_attributes() as parent, tempfile.TemporaryDirectory(dir=parent) as folder:
        suite = folder + "/src/suite"
        os.makedirs(suite)
        built(suite)
        out = output_with_virtiofsd(folder, FIRST % SCRIPT.format(files=" ".join(files_of(suite))))
        check("all of it is done" in out, "the guest did not come to its end", out)
        cases = cases_of(out)
        say_what_passes(cases)
        for file, number, passes, text in cases:
            if not passes:
                print(f"    {file}:{number}: {text or 'not so'}", flush=True)
