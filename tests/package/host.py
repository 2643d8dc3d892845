#!/usr/bin/env python3
"""What tools/package makes, looked at on this machine: contents, fields, debug data, the same bytes again, the service,
the recipes as they are installed. SNUG_PACKAGES: the folder with the packages."""
import glob
import hashlib
import shutil
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.path[0] + "/../support")
from harness import *  # noqa: E402,F403

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
PACKAGES = os.environ["SNUG_PACKAGES"]


def only(pattern, folder=PACKAGES):
    found = glob.glob(f"{folder}/{pattern}")
    check(len(found) == 1, f"not one {pattern} in {folder}", found)
    return found[0]


DEB, SYMBOLS, TAR = only("snug_*_amd64.deb"), only("snug-dbgsym_*_amd64.deb"), only("snug-*-linux-x86_64.tar.gz")
VERSION = os.path.basename(DEB).split("_")[1]


def output(*command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    check(done.returncode == 0, f"{command} ended with {done.returncode}", done.stdout, done.stderr)
    return done.stdout


def unpacked(folder, package=DEB):
    output("dpkg-deb", "-x", package, folder)
    return folder + "/usr"


@test
def what_is_in_the_package():
    rows = [line.split(None, 5) for line in output("dpkg-deb", "-c", DEB).splitlines()]
    for mode, owner, _, _, _, path in rows:
        check(owner == "root/root", f"{path} belongs to {owner}")
        check(mode[0] == "l" or (mode[5] != "w" and mode[8] != "w"), f"others may write to {path}: {mode}")
        check(mode[0] == "l" or mode[4] == "r" and mode[7] == "r", f"others may not read {path}: {mode}")
        check(path == "./" or path.startswith("./usr/"), f"{path} is outside of /usr")
    files = {row[5][1:] for row in rows}
    for wanted in ("bin/snug", "lib/systemd/user/snug@.service", "share/snug/images/default/kernel",
                   "share/snug/images/default/initrd", "share/snug/guest-images/build", "share/snug/tools/lib/common.sh",
                   "share/doc/snug/copyright", "share/doc/snug/changelog.gz"):
        check("/usr/" + wanted in files, f"{wanted} is missing", *sorted(files))
    check(not any("micro-guests" in path or path.endswith(".pyc") for path in files), "things for tests are in it")


@test
def what_the_package_says_of_itself():
    fields = dict(line.split(": ", 1) for line in output("dpkg-deb", "-f", DEB).splitlines() if not line.startswith(" "))
    check(fields["Version"] == VERSION and fields["Architecture"] == "amd64", "odd fields", fields)
    check("Depends" not in fields, "a static program depends on something", fields)
    check(fields["Recommends"] == "passt", "passt is not recommended", fields)
    check(re.fullmatch(r"busybox \(= \S+\), linux(-source)?\S* \(= \S+\)", fields["Built-Using"]), "odd Built-Using", fields)
    check(int(fields["Installed-Size"]) < 20000, "large", fields)


@test
def nothing_tells_where_it_was_made():
    with tempfile.TemporaryDirectory() as folder:
        for package in (DEB, SYMBOLS):
            unpacked(folder, package)
        found = subprocess.run(["grep", "-rlaF", "-e", TOP, "-e", os.path.expanduser("~/.cache"), folder],
                               stdout=subprocess.PIPE, text=True).stdout
    check(not found, "paths of this machine are in it", found)


@test
def debug_data_is_apart_and_belongs_to_the_program():
    with tempfile.TemporaryDirectory() as folder:
        program = unpacked(folder) + "/bin/snug"
        sections = output("readelf", "-SW", program)
        check(".symtab" not in sections and ".debug" not in sections, "not stripped", sections)
        check("INTERP" not in output("readelf", "-lW", program), "not static")
        check(output(program, "version").startswith("snug " + VERSION), "another version")
        build = re.search(r"Build ID: (\w+)", output("readelf", "-n", program)).group(1)
        symbols = unpacked(folder + "/symbols", SYMBOLS) + f"/lib/debug/.build-id/{build[:2]}/{build[2:]}.debug"
        check(os.path.exists(symbols), f"no debug data of {build}")
        check(".debug_info" in output("readelf", "-SW", symbols) and build in output("readelf", "-n", symbols), "not its own")


def sums(folder):
    return {os.path.basename(path): hashlib.sha256(open(path, "rb").read()).hexdigest() for path in
            (DEB.replace(PACKAGES, folder), SYMBOLS.replace(PACKAGES, folder), TAR.replace(PACKAGES, folder))}


def packaged_again(tree, output, **more):
    """By somebody with other habits."""
    done = subprocess.run(["bash", "-c", f"umask 077; exec tools/package --output {output}"], cwd=tree, text=True,
                          env={**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", **more},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    check(done.returncode == 0, f"status {done.returncode}", done.stdout)
    first, second = sums(PACKAGES), sums(output)
    check(first == second, "other bytes", first, second)


@test
def packaging_again_gives_the_same_bytes():
    with tempfile.TemporaryDirectory() as folder:
        packaged_again(TOP, folder + "/out")


@test
@exhaustive
def compiling_elsewhere_gives_the_same_bytes():
    epoch = output("git", "-C", TOP, "log", "-1", "--format=%ct").strip()
    with tempfile.TemporaryDirectory() as folder:
        copy = folder + "/another-tree"
        shutil.copytree(TOP, copy, symlinks=True, ignore=lambda path, names: [n for n in names if path == TOP and (
            n == ".git" or n.startswith("build"))])
        packaged_again(copy, folder + "/out", SOURCE_DATE_EPOCH=epoch, CCACHE_DISABLE="1")


@test
def the_tar_runs_where_it_is_unpacked():
    with tempfile.TemporaryDirectory() as folder:
        output("tar", "xzf", TAR, "-C", folder)
        top = f"{folder}/snug-{VERSION}"
        environment = {**os.environ, "XDG_CACHE_HOME": folder + "/cache", "HOME": folder}
        listed = output(top + "/bin/snug", "image", "list", env=environment).splitlines()
        check(any(row.startswith("default ") and top in row for row in listed), "its image is not found", listed)
        doctor = subprocess.run([top + "/bin/snug", "doctor"], env=environment, stdout=subprocess.PIPE, text=True).stdout
        check(f"guest image: default, {top}/share/snug/images/default/kernel" in doctor, "its image is not taken", doctor)
        service = open(top + "/share/systemd/user/snug@.service").read()
        check("ExecStart=%h/.local/bin/snug run" in service, "the service starts another program", service)
        check(os.path.exists(top + "/INSTALL"), "nothing says how")


@test
def the_service_is_good():
    if not shutil.which("systemd-analyze"):
        raise Skip("no systemd-analyze")
    with tempfile.TemporaryDirectory() as folder:
        usr = unpacked(folder)
        path = folder + "/snug@.service"
        with open(usr + "/lib/systemd/user/snug@.service") as file:
            text = file.read()
        check("ExecStart=/usr/bin/snug run --name %i %E/snug/%i.yaml\n" in text, "not this program", text)
        with open(path, "w") as file:
            file.write(text.replace("/usr/bin/snug", usr + "/bin/snug"))
        done = subprocess.run(["systemd-analyze", "--user", "--man=no", "verify", path], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, env={**os.environ, "XDG_RUNTIME_DIR": folder})
        ours = [line for line in done.stdout.splitlines() if "snug" in line]
        check(done.returncode == 0 and not ours, f"status {done.returncode}", done.stdout)


@test
def installed_recipes_are_those_of_the_tree():
    """The same images have the same names, so all that a recipe is made from has come along."""
    with tempfile.TemporaryDirectory() as folder:
        usr = unpacked(folder)
        known = {line.split()[0] for line in output(usr + "/share/snug/guest-images/build", "list").splitlines()}
        check(known == {"agent", "debian-rootfs", "default", "initrd", "stock", "stock-kernel", "stock-kernel-full",
                        "stock-modules", "tiny-kernel"}, "other recipes than expected", known)
        for name in ("default", "initrd"):
            path = output(usr + "/bin/snug", "image", "build", name).strip()
            check(path == output(TOP + "/guest-images/build", name).strip(), f"{name} is another image", path)


@test
@exhaustive
def installed_recipes_work_in_an_empty_cache():
    with tempfile.TemporaryDirectory() as folder:
        usr = unpacked(folder)
        environment = {**os.environ, "XDG_CACHE_HOME": folder + "/cache"}
        path = output(usr + "/bin/snug", "image", "build", "stock", env=environment).strip()
        for part in ("kernel", "initrd", "modules"):
            check(os.path.exists(f"{path}/{part}"), f"no {part}")


@test
def lintian_has_nothing_to_say():
    if not shutil.which("lintian"):
        raise Skip("lintian is not installed")
    done = subprocess.run(["lintian", "--allow-root", "--fail-on", "error,warning", DEB, SYMBOLS], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    check(done.returncode == 0, f"status {done.returncode}", done.stdout)


main("package")
