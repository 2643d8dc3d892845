"""Layers by the hundred, made into images and looked at again: against the image specification as Python's tarfile has it, against
umoci, and as Linux mounts them. No guest."""
import concurrent.futures
import contextlib
import io
import shutil
import sys

sys.path.insert(0, __file__.rsplit("/", 2)[0] + "/support")
from harness import *  # noqa: E402,F403
import erofs_image  # noqa: E402
import layer_cases  # noqa: E402
import layer_rules  # noqa: E402
from layer_tar import PACKINGS, padded  # noqa: E402
from oci_layout import write_layout  # noqa: E402

ENOUGH = 300
STARTED = int(time.time())


def maker(program):
    """make-images of the same build."""
    path = os.path.join(os.path.dirname(os.path.abspath(program)), "../../tests/support/make-images") if program else ""
    if not os.access(path, os.X_OK):
        raise Skip(f"make-images is not beside {program or 'a sanitized program'}")
    return path


def in_memory():
    """A folder for images of which nothing is wanted but bytes."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


class Made:
    """Images of cases, by the name of the case, in a folder."""

    def __init__(self, folder, program, cases):
        self.folder, self.said, jobs = folder, {}, []
        for number, case in enumerate(cases):
            paths = []
            for i, layer in enumerate(case.packed()):
                paths.append(f"{folder}/{number}.{i}")
                with open(paths[-1], "wb") as file:
                    file.write(layer)
            jobs.append(" ".join([f"{folder}/{number}.image", *case.limits.split(), *paths]))
        done = subprocess.run([program], input="\n".join(jobs) + "\n", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=BOUND)
        check(done.returncode == 0, f"make-images ended with {done.returncode}", done.stderr)
        self.said = dict(zip((case.name for case in cases), done.stdout.splitlines()))
        check(len(self.said) == len(cases), "not a line for each", done.stdout)
        self.path = {case.name: f"{folder}/{number}.image" for number, case in enumerate(cases)}


def expected(case):
    # tarfile wants the last block filled.
    return layer_rules.made_of([io.BytesIO(padded(layer)) for layer in case.layers])


def differences(seen, wanted, without=()):
    """Lines; `without` are attributes, or (path, attribute), that are not compared."""
    lines = [f"{path!r} is {'missing' if path in wanted else 'too much'}" for path in sorted(seen.keys() ^ wanted.keys())]
    for path in sorted(seen.keys() & wanted.keys()):
        for field, one, other in zip(seen[path]._fields, seen[path], wanted[path]):
            if one != other and field not in without and (path, field) not in without:
                lines.append(f"{path!r}: {field} is {str(one)[:200]}, not {str(other)[:200]}")
    return lines


def report(count, wrong, what):
    print(f"    {count} {what}", flush=True)
    check(not wrong, f"{len(wrong)} are not as they should be", "\n".join(f"{name}: {line}" for name, lines in wrong.items() for line in lines[:3]))


@test
def layers_make_what_the_specification_says():
    cases = layer_cases.all_cases()
    check(len(cases) >= ENOUGH, f"only {len(cases)} cases")
    wrong = {}
    with in_memory() as folder:
        made = Made(folder, maker(PROGRAM), cases)
        for case in cases:
            said = made.said[case.name]
            if case.fault:
                missing = [word for word in (f"({case.fault})", *case.names) if word not in said]
                if missing:
                    wrong[case.name] = [f"says {said[:300]!r}, not {missing}"]
            elif said != "ok":
                wrong[case.name] = [said[:300]]
            elif lines := differences(erofs_image.read_image(made.path[case.name]), expected(case)[0], case.apart):
                wrong[case.name] = lines
    report(len(cases), wrong, f"cases, {sum(1 for case in cases if case.fault)} of them refused")


@test
def layers_of_all_kinds_meet_a_sanitizer():
    cases = layer_cases.all_cases()
    with in_memory() as folder:
        made = Made(folder, maker(os.environ.get("SNUG_BIN_ASAN")), cases)
        wrong = {case.name: [made.said[case.name]] for case in cases if (made.said[case.name] == "ok") == bool(case.fault)}
    report(len(cases), wrong, "cases")


@test
def layers_are_the_same_bytes_however_they_are_packed():
    cases = [case for case in layer_cases.all_cases() if not case.fault and case.packing == "plain" and sum(map(len, case.layers)) < 1 << 20]
    if not EVERYTHING:
        cases = cases[::4]
    wrong = {}
    packings = [name for name in PACKINGS if name != "plain"]
    with in_memory() as folder:
        pairs = []
        for number, case in enumerate(cases):
            other = layer_cases.Case(case.name + "/packed", *case.layers, packing=packings[number % len(packings)], limits=case.limits)
            pairs.append((case, other))
        made = Made(folder, maker(PROGRAM), [case for pair in pairs for case in pair])
        for case, other in pairs:
            with open(made.path[case.name], "rb") as one, open(made.path[other.name], "rb") as two:
                if made.said[other.name] != "ok" or one.read() != two.read():
                    wrong[case.name] = [f"other bytes in {other.packing}: {made.said[other.name]}"]
    report(len(cases), wrong, "images twice")


# --- umoci ------------------------------------------------------------------------------------------------------
def unpacked_by_umoci(folder, case):
    write_layout(folder + "/layout", case.layers, packing=None)
    done = subprocess.run(["umoci", "raw", "unpack", "--image", folder + "/layout:latest", folder + "/root"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=BOUND)
    if done.returncode != 0:
        return None, done.stderr.strip().splitlines()[-1:]
    return erofs_image.read_folder(folder + "/root"), []


def compare_with_umoci(case, image, folder):
    os.mkdir(folder)
    try:
        seen, said = unpacked_by_umoci(folder, case)
        if seen is None:
            return said
        # Folders that no entry describes, or from which something went, are of now to umoci.
        without = {(path, "mtime") for path, file in seen.items() if file.kind == "d" and file.mtime[0] >= STARTED}
        return differences(erofs_image.read_image(image), seen, without)
    finally:
        shutil.rmtree(folder)


@test
def layers_make_what_umoci_unpacks():
    if not shutil.which("umoci"):
        raise Skip("umoci is not installed")
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.mknod(folder + "/device", 0o20644, os.makedev(1, 3))
            for name in ("trusted.a", "user.a"):
                os.setxattr(folder, name, b"1")
        except OSError as problem:
            raise Skip(f"who unpacks layers here may not make what is in them: {problem}") from problem
        cases = [case for case in layer_cases.all_cases() if not case.fault and not case.umoci and not case.apart]
        if not EVERYTHING:
            cases = cases[::5]
        made = Made(folder, maker(PROGRAM), cases)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = pool.map(lambda case: compare_with_umoci(case, made.path[case.name], f"{made.path[case.name]}.umoci"), cases)
            wrong = {case.name: lines for case, lines in zip(cases, results) if lines}
    report(len(cases), wrong, "images beside umoci's")


# --- Linux ------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def mounted(image, folder):
    done = subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", image, folder], stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Skip(f"EROFS cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@test
def layers_are_what_linux_mounts():
    if os.geteuid() != 0:
        raise Skip("only root mounts")
    cases = [case for case in layer_cases.all_cases() if not case.fault]
    if not EVERYTHING:
        cases = cases[::5]
    wrong = {}
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/root")
        made = Made(folder, maker(PROGRAM), cases)
        for case in cases:
            with mounted(made.path[case.name], folder + "/root"):
                seen = erofs_image.read_folder(folder + "/root")
            wanted = expected(case)[0]
            # Contents of what is too large to be read are left out.
            without = {(path, "content") for path, file in seen.items() if file.content and file.content[1] is None}
            if lines := differences(seen, wanted, {*without, *case.apart}):
                wrong[case.name] = lines
    report(len(cases), wrong, "mounts")
