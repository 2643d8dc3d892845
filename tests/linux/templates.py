"""Machines for commands that begin with a template: what belongs to one run is not in it, and what is none is not used."""
import functools
import glob
import http.server
import shutil
import threading

from images import File, Images, prepared
from network import address_of, need_uplink
from snapshots import BOOT, Machines
from guests import *  # noqa: F403


class Templates(Machines):
    """With a cache of a test's own."""

    def __enter__(self):
        super().__enter__()
        self.env["XDG_CACHE_HOME"] = self.folder.name + "/cache"
        self.store = self.folder.name + "/cache/snug/templates"
        return self

    def start(self, script, *flags, kernel=TINY, status=0):
        initrds = ["--initrd", INITRD] + (["--initrd", STOCK_MODULES] if kernel == STOCK else [])
        return self.snug("run", "-k", kernel, *initrds, "-m", "128M", "--template", "true", "--log-level", "info", *flags, "--",
                         "sh", "-c", script).expect(status)

    def unasked(self, *arguments, status=0):
        """As people do, who do not know of templates."""
        env = {name: value for name, value in self.env.items() if name != "SNUG_TEMPLATE"}
        return snug("run", "-k", TINY, "--initrd", INITRD, "-m", "128M", *arguments, env=env).expect(status)

    def kept(self):
        names = [name for name in (os.listdir(self.store) if os.path.isdir(self.store) else []) if not name.endswith(".seen")]
        check(not [name for name in names if name.startswith("new-")], "one that was begun is left", names)
        return sorted(names)


@contextlib.contextmanager
def web_server(folder):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.func.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()


NETWORK = (f"{BOOT}; cat /sys/class/net/eth0/address; ip -4 -o addr show dev eth0 | grep -c 'inet '; "
           "gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); wget -q -O - http://$gateway:$1/file; "
           "cat /proc/sys/kernel/random/uuid; hostname; grep -c 127.0.1.1 /etc/hosts; grep \" $(hostname)$\" /etc/hosts; ls /run/left 2>&1; "
           "for i in $(seq 100); do ip -6 addr show dev eth0 scope link | grep -q inet6 && break; usleep 50000; done; "
           "ip -6 -o addr show dev eth0 scope link | sed 's/.*inet6 \\([^ ]*\\).*/\\1/'; echo mine > /run/left; dmesg | grep -c DHCP; true")


def with_networks(kernel):
    need_uplink()
    with Templates() as machines, web_server(machines.folder.name) as port:
        with open(machines.folder.name + "/file", "w") as file:
            file.write("over the network\n")
        script = NETWORK.replace("$1", str(port))
        flags = ["--net", "user,host_loopback=true"]
        seen = []
        for name in ("one", "two", "three"):
            ended = machines.start(script, *flags, "--name", name, kernel=kernel)
            boot, address, count, fetched, uuid, host, lines, hosts, left, local, failures = ended.out.splitlines()
            check(len(machines.kept()) == 1, "not one template", machines.kept(), ended.err)
            check(address == address_of(name), f"the address of {name} is not its own", ended.out)
            check(count == "1" and fetched == "over the network" and failures == "0", "the network is not there", ended.out, ended.err)
            check((host, lines, hosts.split()) == (name, "1", ["127.0.1.1", name]), "another one's name", ended.out)
            check("No such file" in left, "what the one before has left", ended.out)
            # Made of the address that it has now (RFC 4291, appendix A).
            check(local.startswith("fe80:") and local.split("/")[0].endswith(f"{address[12:14]}{address[15:17]}".lstrip("0")), "another's IPv6 address", ended.out)
            seen.append((boot, address, uuid))
        check(len({boot for boot, _, _ in seen}) == 1, "they boot", seen)
        check(len({address for _, address, _ in seen}) == len({uuid for _, _, uuid in seen}) == 3, "they are not others", seen)
        # The given address, and another kind: two interfaces.
        ended = machines.start("cat /sys/class/net/eth0/address", "--net", "user,mac=02:11:22:33:44:55", kernel=kernel)
        check(ended.out == "02:11:22:33:44:55\n", "not the address that was asked for", ended.out, ended.err)
        check(len(machines.kept()) == 1, "another kind by its address", machines.kept())
        for _ in range(2):
            ended = machines.start(f"{BOOT}; cat /sys/class/net/eth1/address", "--net", "user", "--net", "user,mac=02:11:22:33:44:66", kernel=kernel)
            check(ended.out.splitlines()[1] == "02:11:22:33:44:66", "not the address of the second one", ended.out, ended.err)
        check(len(machines.kept()) == 2, "two interfaces are no other kind", machines.kept())


add("templates_of_machines_with_networks_tiny", functools.partial(with_networks, TINY))
add("templates_of_machines_with_networks_stock", functools.partial(with_networks, STOCK), is_exhaustive=True)


@test
def templates_with_published_ports_are_no_others():
    """An interface that nobody has named."""
    need_uplink()
    with Templates() as machines:
        first = machines.start(BOOT, "-p", "0:80").out
        check(len(machines.kept()) == 1 and machines.start(BOOT, "--net", "user").out == first, "another kind", machines.kept())
        check(machines.start(BOOT).out != first, "one without an interface is the same")


@test
def templates_with_disks_that_forget():
    with Templates() as machines:
        disk = machines.folder.name + "/disk.img"
        with open(disk, "wb") as file:
            file.write(b"as it was".ljust(1 << 20, b"\0"))
        time.sleep(3)  # what was changed just now may change once more without that being seen
        flags = ["--disk", f"{disk},ephemeral=true"]
        script = f"{BOOT}; head -c 9 /dev/vda; echo; printf 'changed' > /dev/vda; sync; head -c 9 /dev/vda; echo"
        seen = [machines.start(script, *flags).out for _ in range(3)]
        check(len(set(seen)) == 1 and seen[0].endswith("as it was\nchangedas\n"), "the disk of another run", *seen)
        check(len(machines.kept()) == 1, "not one template", machines.kept())
        # Another content is another kind.
        with open(disk, "r+b") as file:
            file.write(b"otherwise")
        time.sleep(3)
        ended = machines.start(script, *flags).out
        check("\notherwise\n" in ended and ended.splitlines()[0] != seen[0].splitlines()[0], "the disk as it was before", ended)
        check(len(machines.kept()) == 2, "no template of it", machines.kept())
        # One that keeps what is written has none.
        ended = machines.start("true", "--disk", disk)
        check("template: not for this machine: it has disks that keep what is written to them" in ended.err, "not said", ended.err)


def shared_folders(top, names):
    """Of each name a folder with a file that has it."""
    for name in names:
        os.mkdir(f"{top}/{name}")
        with open(f"{top}/{name}/name", "w") as file:
            file.write(f"of {name}\n")
    return [f"{top}/{name}" for name in names]


@test
def templates_of_machines_with_shares():
    """The template has a device that nobody has mounted: what it is of is each machine's own."""
    with Templates() as machines:
        one, two = shared_folders(machines.folder.name, ("one", "two"))
        script = f"{BOOT}; cat /work/name; ls /work; echo $1 > /work/by-$1; grep -c ' /work ' /proc/mounts".replace("$1", "$(hostname)")

        def run(name, folder):
            return machines.start(script, "--name", name, "-v", f"{folder}:/work").out.splitlines()

        first = run("a", one)
        check(first[1:] == ["of one", "name", "1"] and len(machines.kept()) == 1, "no template", first, machines.kept())
        for name, folder in (("b", two), ("c", one)):
            seen = run(name, folder)
            there = ["by-a", "name"] if folder == one else ["name"]
            check(seen == [first[0], f"of {os.path.basename(folder)}", *there, "1"], "not what it shares", seen, first)
        check(sorted(os.listdir(one)) == ["by-a", "by-c", "name"] and sorted(os.listdir(two)) == ["by-b", "name"], "in another's folder",
              os.listdir(one), os.listdir(two))
        # Elsewhere, read-only, one file, and where the caller stands.
        ended = machines.start(f"{BOOT}; cat /deep/er/name; echo > /deep/er/new", "-v", f"{two}:/deep/er:ro", status=1)
        check(ended.out == f"{first[0]}\nof two\n" and "Read-only file system" in ended.err, "not read-only", ended.out, ended.err)
        ended = machines.start(f"{BOOT}; cat /etc/motd", "-v", f"{two}/name:/etc/motd")
        check(ended.out == f"{first[0]}\nof two\n", "not the file", ended.out, ended.err)
        ended = machines.snug("run", "-k", TINY, "--initrd", INITRD, "-m", "128M", "--template", "true", "-v", one, "--", "sh", "-c",
                              f"{BOOT}; pwd; cat name", cwd=one).expect(0)
        check(ended.out == f"{first[0]}\n{one}\nof one\n", "not where it stands", ended.out, ended.err)
        # What cannot be mounted is told, and is no fault of the template's.
        ended = machines.start("echo it runs", "-v", f"{one}:/proc/none", status=125)
        check("mount share0 on /proc/none: " in ended.err and ended.out == "", "not told", ended.out, ended.err)
        check(len(machines.kept()) == 1, "it is none any more", machines.kept())


@test
@exhaustive
def templates_of_other_devices_are_other_kinds():
    """One that is called otherwise, and a second one."""
    with Templates() as machines:
        one, two = shared_folders(machines.folder.name, ("one", "two"))
        seen = set()
        for flags in (["-v", f"{one}:/work"], ["-v", f"source={one},target=/work,tag=mine"], ["-v", f"{one}:/work", "-v", f"{two}:/other"]):
            boots = [machines.start(f"{BOOT}; cat /work/name", *flags).out for _ in range(2)]
            check(boots[0] == boots[1] and boots[0] not in seen and boots[0].endswith("of one\n"), "no kind of its own", boots)
            seen.add(boots[0])
            check(len(machines.kept()) == len(seen), "not one template more", machines.kept())


@test
def templates_of_machines_with_shares_come_by_themselves():
    with Templates() as machines:
        folders = shared_folders(machines.folder.name, "abc")
        seen = [machines.unasked("-v", folder, "--", "sh", "-c", f"{BOOT}; cat {folder}/name") for folder in folders]
        check([ended.err for ended in seen] == [""] * 3, "something is said", *(ended.err for ended in seen))
        boots, names = zip(*(ended.out.splitlines() for ended in seen))
        check(names == ("of a", "of b", "of c"), "not their folders", names)
        check(boots[0] != boots[1] == boots[2], "not the third one first begins so", boots)


@test
@exhaustive
def templates_are_not_taken_of_a_share_in_use():
    """Here it is the guest's root, which its initrd enters before there is an agent."""
    with Templates() as machines:
        root = root_folder(machines.folder.name, "root")
        for _ in range(2):
            ended = machines.start("cat /usr/tool", "-v", f"source={root},tag=files", "--cmdline", "snug.root=files")
            check(ended.out == "of root\n", "not that root", ended.out, ended.err)
            check("template: share files: the guest has mounted it" in ended.err and machines.kept() == [], "one is taken", ended.err)
        # And one that is told to leave it, and does not know how.
        ended = machines.start("cat /usr/tool", "--root", root)
        check(ended.out == "of root\n" and machines.kept() == [], "one is taken", ended.out, ended.err)
        check("template: none of this guest" in ended.err, "not said", ended.err)


def root_folder(top, name):
    for folder in ("bin", "usr", "etc"):
        os.makedirs(f"{top}/{name}/{folder}")
    shutil.copy(os.path.dirname(INITRD) + "/busybox", f"{top}/{name}/bin/busybox")
    for applet in ("sh", "cat", "ls", "touch", "hostname", "dmesg", "head", "md5sum", "cut"):
        os.symlink("busybox", f"{top}/{name}/bin/{applet}")
    with open(f"{top}/{name}/usr/tool", "w") as file:
        file.write(f"of {name}\n")
    return f"{top}/{name}"


@test
def templates_of_roots_of_the_host():
    """What a machine has for a root is told when it begins."""
    with Images() as images:
        images.run("true", flags=["-u", "root"]).expect(0)
        agent, = glob.glob(images.path + "/cache/snug/agent/*.initrd")
        time.sleep(3)  # what was made just now may change once more without that being seen
        (folder,) = shared_folders(images.path, ("folder",))
        seen = []
        for name in ("one", "two", "three"):
            root = root_folder(images.path, name)
            ended = images.snug("run", "-k", TINY, "--initrd", agent, "-m", "128M", "--template", "true", "--log-level", "info", "--name", name,
                                "--root", root, "-v", f"{folder}:/work", "--", "sh", "-c",
                                f"{BOOT}; cat /usr/tool /work/name /etc/hosts; hostname; ls /etc; touch /etc/mine").expect(0)
            boot, *rest = ended.out.splitlines()
            check(rest == [f"of {name}", "of folder", f"127.0.1.1 {name}", name, "hosts"], "not its root", ended.out, ended.err)
            check(os.listdir(root + "/etc") == [], "the host's folder has changed")
            seen.append(boot)
        check(len(set(seen)) == 1 and len(os.listdir(images.path + "/cache/snug/templates")) == 1, "they boot", seen, ended.err)
        ended = images.snug("run", "-k", TINY, "--initrd", agent, "-m", "128M", "--template", "true", "--root", folder, "--", "/bin/sh")
        check(ended.status == 127 and "/bin/sh" in ended.err, "a root without programs", ended.err)


@test
def templates_of_images():
    """One for all images of about a size."""
    need_uplink()
    with Images() as images:
        prepared(images, "default", kernel=TINY, initrd=INITRD)  # a kernel of one's own has a disk
        flags = ["-u", "root", "--template", "true", "--net", "user", "--log-level", "info"]
        script = " | ".join("/bin/busybox " + part for part in BOOT.split(" | "))
        script += "; cat /etc/version /etc/resolv.conf; /bin/busybox hostname; cat /etc/hosts; ls /srv; touch /srv/mine; cat /sys/class/net/eth0/address"
        store = images.path + "/cache/snug/templates"
        seen = []
        # The first one's agent has been laid there just now, and might still change: it leaves nothing.
        for name in ("none", "one", "two"):
            ended = images.run(script, kernel=(), flags=[*flags, "--name", name]).expect(0)
            lines = ended.out.splitlines()
            check(lines[1] == "2" and name in lines and f"127.0.1.1 {name}" in lines and "mine" not in lines and lines[-1] == address_of(name),
                  "not what the image has", ended.out, ended.err)
            seen.append(lines[0])
            time.sleep(3 if name == "none" else 0)
        check(seen[1] == seen[2] and len(os.listdir(store)) == 1, "it boots", seen, ended.err)
        # Another image, which is there for the first time, and has what the first one has not.
        other = images.with_layer("other", [File("etc/version", "3\n"), File("data/"), File("data/file", "of the image\n")], {"Volumes": {"/data": {}}})
        boot = script.split(";")[0]
        ended = images.run("sh", "-c", f"{boot}; cat /etc/version /data/file; grep ' /data ' /proc/mounts; touch /data/mine; ls /data", kernel=(), flags=flags,
                           name=other).expect(0)
        lines = ended.out.splitlines()
        check(lines[0] == seen[1] and len(os.listdir(store)) == 1, "it boots", ended.out, seen, ended.err)
        check(lines[1:3] == ["3", "of the image"] and "tmpfs" in lines[3] and lines[4:] == ["file", "mine"], "another image", ended.out)
        ended = images.run(f"{boot}; ls -d /data; cat /proc/cmdline", kernel=(), flags=flags).expect(0)
        check(ended.out.startswith(seen[1]) and "/data" not in ended.out, "what another image has", ended.out, ended.err)


@test
def templates_of_images_with_an_init_of_their_own():
    with Images() as images:
        prepared(images, "default", kernel=TINY, initrd=INITRD)  # a kernel of one's own has a disk
        inittab = "::sysinit:/bin/sh -c 'echo $GREETING >/tmp/began'\n::respawn:/bin/sleep 1000\n"
        name = images.with_layer("init", [File("etc/inittab", inittab), File("sbin/"), File("sbin/init", link="../bin/busybox")],
                                 {"Cmd": ["/sbin/init"], "Env": ["PATH=/bin", "GREETING=hi there"]})
        boot = " | ".join("/bin/busybox " + part for part in BOOT.split(" | "))
        seen = []
        for greeting in ("none", "one", "two"):
            ended = images.run("/bin/sh", "-c", f"{boot}; cat /proc/1/comm; while ! [ -s /tmp/began ]; do sleep 0.1; done; cat /tmp/began; exit 3", name=name,
                               kernel=(), flags=["--init", "image", "--template", "true", "-e", f"GREETING={greeting}"]).expect(3)
            seen.append(ended.out.splitlines())
            check(seen[-1][1:] == ["init", greeting], "another first program", ended.out, ended.err)
            time.sleep(3 if greeting == "none" else 0)
        check(seen[1][0] == seen[2][0], "it boots", seen)


@test
def templates_of_kinds_that_come_again():
    with Templates() as machines:
        command = ["--", "sh", "-c", f"ls /run/left 2>&1; echo > /run/left; {BOOT}; exit 7"]
        seen = []
        for number, kept in enumerate((0, 1, 1, 1)):
            ended = machines.unasked(*command, status=7)
            check(ended.err == "" and "No such file" in ended.out, f"run {number + 1} is not like the others", ended.out, ended.err)
            check(len(machines.kept()) == kept, f"templates after run {number + 1}", machines.kept())
            seen.append(ended.out)
        check(len(set(seen[:2])) == 2 and len(set(seen[1:])) == 1, "not the third one first begins so", *seen)
        # Where they are not wanted, by whichever way, and where there can be none.
        disk = machines.folder.name + "/disk.img"
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        for flags in (["--template", "false"], ["--disk", disk]):
            for _ in range(3 if EVERYTHING else 2):
                ended = machines.unasked(*flags, *command, status=7)
                check(ended.out not in seen and ended.err == "", f"with {flags} it does not boot", ended.out, ended.err)
                seen.append(ended.out)
        machines.env["SNUG_TEMPLATE"] = "false"
        ended = machines.snug("run", "-k", TINY, "--initrd", INITRD, "-m", "128M", *command).expect(7)
        check(ended.out not in seen, "it begins so in spite of the environment", ended.out)
        machines.env["SNUG_TEMPLATE"] = "sometimes"
        ended = machines.snug("run", "-k", TINY, "--initrd", INITRD, "-m", "128M", *command).expect(125)
        check("SNUG_TEMPLATE" in ended.err and "set it to auto, true or false" in ended.err, "odd words", ended.err)
        check(len(machines.kept()) == 1, "more templates", machines.kept())


@test
@exhaustive
def templates_that_lead_nowhere_are_not_tried_again():
    with Templates() as machines:
        command = ["--", "sh", "-c", BOOT]
        first, second, third = (machines.unasked(*command).out for _ in range(3))
        check(first != second == third, "no template", first, second, third)
        name, = machines.kept()
        with open(f"{machines.store}/{name}/state", "r+b") as file:
            file.truncate(100)
        seen = {first, second}
        for _ in range(3):
            ended = machines.unasked(*command)
            check(ended.out not in seen and ended.err == "" and machines.kept() == [], "it is tried again", ended.out, ended.err)
            seen.add(ended.out)


@test
def templates_for_several_commands_and_their_streams():
    with Templates() as machines:
        spec = machines.folder.name + "/spec.yaml"
        with open(spec, "w") as file:
            file.write(f"kernel: {TINY}\ninitrd: {INITRD}\nmemory: 128M\ntemplate: true\n"
                       "command: ['echo one; dmesg | head -40 | md5sum', 'echo two; exit 3', 'echo three']\n")
        seen = []
        for _ in range(3):
            junit = machines.folder.name + "/junit.xml"
            ended = machines.snug("run", spec, "--junit", junit).expect(3)
            lines = ended.out.split("\n")
            check((lines[0], lines[2:]) == ("one", ["two", "three", ""]), "not each of them once", ended.out, ended.err)
            with open(junit) as file:
                text = file.read()
            check('tests="3"' in text and 'failures="1"' in text, "not what ran", text)
            seen.append(lines[1])
        check(len(set(seen)) == 1, "they boot", seen)
        # One with an input, one that is more than fits into a packet, one that there is none of, one that is too long.
        check(machines.start("true").out == "", "it prints")
        flags = ["-k", TINY, "--initrd", INITRD, "-m", "128M", "--template", "true"]
        with open(spec) as file:
            ended = machines.snug("run", "-i", *flags, "--", "cat", stdin=file).expect(0)
        check(ended.out.startswith("kernel:"), "not its input", ended.out, ended.err)
        ended = machines.snug("run", *flags, "--", "sh", "-c", "echo ${#1}", "sh", "x" * 100_000).expect(0)
        check(ended.out == "100000\n", "not its argument", ended.out, ended.err)
        machines.snug("run", *flags, "--", "no-such-program").expect(127)


@test
@exhaustive
def templates_that_lead_nowhere_are_booted_after_all():
    with Templates() as machines:
        first = machines.start(BOOT).out
        name, = machines.kept()
        memory = f"{machines.store}/{name}/memory"

        def expect_a_boot(what):
            ended = machines.start(BOOT)
            check(ended.out != first and len(ended.out) == 33 and "template:" in ended.err, what, ended.out, ended.err)
            check(machines.kept() == [], "it is kept", ended.err)
            again = machines.start(BOOT)
            check(len(machines.kept()) == 1 and machines.start(BOOT).out == again.out, "no new one is made", again.err)

        # A guest whose memory is gone crashes at once, or hangs.
        size = os.path.getsize(memory)
        with open(memory, "r+b") as file:
            file.truncate(0)
            file.truncate(size)
        expect_a_boot("a guest without memory")
        first = machines.start(BOOT).out
        with open(memory, "r+b") as file:
            file.truncate(size // 2)
        expect_a_boot("half of a memory")
        first = machines.start(BOOT).out
        with open(f"{machines.store}/{name}/state", "r+b") as file:
            file.seek(200)
            file.write(b"\xff" * 50)
        expect_a_boot("a broken state")


@test
def templates_of_others_are_not_taken():
    with Templates() as machines:
        first = machines.start(BOOT).out
        name, = machines.kept()
        for path in (machines.store, f"{machines.store}/{name}/state", f"{machines.store}/{name}/memory"):
            mode = os.stat(path).st_mode & 0o7777
            os.chmod(path, mode | 0o022)
            check(machines.start(BOOT).out != first, f"one that others may write to: {path}")
            os.chmod(path, mode)
        if os.geteuid() == 0:
            os.chown(f"{machines.store}/{name}/memory", 65534, 65534)
            check(machines.start(BOOT).out != first, "one that belongs to another user")


@test
def templates_are_dropped_with_their_files():
    with Templates() as machines:
        kernel = machines.folder.name + "/vmlinux"
        initrd = machines.folder.name + "/initrd"
        shutil.copy(TINY, kernel)
        shutil.copy(INITRD, initrd)
        time.sleep(3)

        def run():
            return machines.snug("run", "-k", kernel, "--initrd", initrd, "-m", "128M", "--template", "true", "--", "sh", "-c", BOOT).expect(0).out

        first = run()
        check(run() == first, "it boots")
        for path in (kernel, initrd):
            os.utime(path)
            # It may still change: none is made of it, and none is found.
            check(run() != first, f"the one of another {path}")
            time.sleep(3)
            second = run()
            check(second != first and run() == second, "none of the file as it is")
            first = second
