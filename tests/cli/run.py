#!/usr/bin/env python3
"""The command line as a person meets it, and corrupt input by the hundred (on the ASan+UBSan build)."""
import json
import random
import shutil
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.path[0] + "/../support")
from harness import *  # noqa: E402,F403

MICRO = os.environ["SNUG_IMAGE_MICRO"]
STOCK = os.environ["SNUG_IMAGE_STOCK"]
INITRD = os.environ["SNUG_IMAGE_INITRD"]
ASAN = os.environ.get("SNUG_BIN_ASAN")
HAVE_KVM = os.access("/dev/kvm", os.R_OK | os.W_OK)


def needs_kvm():
    if not HAVE_KVM:
        raise Skip("no usable /dev/kvm")


# --- help and errors -----------------------------------------------------------------------------------------
@test
def help_teaches():
    out = snug("--help").expect(0).out
    for word in ("snug run", "doctor", "validate"):
        check(word in out, f"--help does not mention {word}", out)
    out = snug("run", "--help").expect(0).out
    for word in ("--memory", "--kernel", "Ctrl-A x", "Exit status"):
        check(word in out, f"run --help does not mention {word}", out)


@test
def version_is_one_line():
    top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
    known = subprocess.run([top + "/tools/lib/source-commit"], cwd=top, stdout=subprocess.PIPE, text=True).stdout.strip()
    commit = r" \(commit [0-9a-f]{12,40}\+?\)" if known else ""
    for words in (["version"], ["--version"]):
        check(re.fullmatch(rf"snug \d+\.\d+\.\d+{commit}\n", snug(*words).expect(0).out), f"odd output of {words}")


@test
def wrong_usage_is_125_and_says_what_to_try():
    for words in ([], ["frobnicate"], ["run", "--frobnicate"], ["run", "a", "b"], ["validate"], ["run", "--"]):
        ended = snug(*words).expect(125)
        check("snug: " in ended.err and ("--help" in ended.err or "--" in ended.err), f"no advice for {words}", ended.err)


@test
def wrong_words_get_the_right_ones():
    for words, meant in ((["stp"], "stop"), (["run", "--memry", "1G"], "--memory"), (["ps", "--al"], "--all"),
                         (["--versio"], "--version")):
        err = snug(*words).expect(125).err
        check(f"did you mean '{meant}'" in err, f"no suggestion for {words}", err)


@test
def flags_are_checked_all_at_once():
    ended = snug("run", "--cpus", "99", "--memory", "12", "--timeout", "soon", "-k", "/nonexistent/kernel").expect(125)
    for flag in ("--cpus", "--memory", "--timeout", "--kernel"):
        check(flag in ended.err, f"{flag} is not reported", ended.err)


@test
def spec_problems_have_places_and_suggestions():
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/vm.yaml"
        with open(path, "w") as spec:
            spec.write("name: x\nmemroy: 1G\ncpus: 0\ncpus: 2\nkernel: missing\n")
        for command in ("validate", "run"):
            err = snug(command, path).expect(1 if command == "validate" else 125).err
            check(f"{path}:2:1: " in err and "did you mean 'memory'?" in err, "no suggestion", err)
            check(f"{path}:3:7: " in err, "the range of cpus is not reported", err)
            check(f"{path}:4:1: " in err, "the duplicate key is not reported", err)
            check("missing" in err, "the missing kernel is not reported", err)


@test
def shares_are_checked_all_at_once():
    with tempfile.TemporaryDirectory() as folder:
        folder = os.path.realpath(folder)
        os.mkdir(folder + "/src")
        ended = snug("run", "-v", "gone", "--share", "src:work", "--volume", "src:/a", "-v", "src:/a", "-v", "src:/b,cache=never",
                     "-v", "/dev/null", "-v", "src:/c:z", cwd=folder).expect(125)
        for words in (f"no such folder or file: {folder}/gone; docker makes what is missing, snug does not", "got 'work' in 'src:work'",
                      "'/a' is the target of another share already", "expected auto, always or none, got 'never'",
                      "is a device, not a folder or a file: /dev/null", "labels of SELinux"):
            check(words in ended.err, f"nothing of {words!r}", ended.err)
        check(all(line.startswith("--share: ") for line in ended.err.splitlines()), "not all begin with the flag", ended.err)
        with open(folder + "/vm.yaml", "w") as spec:
            spec.write("shares:\n- src:/work:ro\n- source: src\n  mount_point: /b\n- {source: src, target: /work}\nvolumes: [a]\n")
        err = snug("validate", folder + "/vm.yaml").expect(1).err
        for words in (":4:3: shares[1]: unknown key 'mount_point' (did you mean 'target'?)", ":5:25: shares[2].target: '/work' is the target",
                      ":6:1: unknown key 'volumes' (did you mean 'shares'?)"):
            check(words in err, f"nothing of {words!r}", err)
        with open(folder + "/vm.yaml", "w") as spec:
            spec.write("shares: [src:/work:ro, {source: src, tag: mine, uid: 1000}]\n")
        out = snug("validate", "--print", folder + "/vm.yaml").expect(0).out
        check(f"  - source: {folder}/src\n    target: /work\n    tag: share0\n    readonly: true\n" in out and "    uid: 1000\n" in out, "odd", out)
    properties = json.loads(snug("schema").expect(0).out)["properties"]["shares"]["anyOf"][1]["properties"]
    check(set(properties) == {"source", "target", "tag", "readonly", "cache", "submounts", "uid", "gid"}, "not its keys", properties)
    out = snug("run", "--help").expect(0).out
    check("-v, --share, --volume" in out or "-v,--share,--volume" in out, "the help does not say", out)


@test
def missing_spec_is_named():
    err = snug("run", "/nonexistent/vm.yaml").expect(125).err
    check("/nonexistent/vm.yaml" in err, "the file is not named", err)


@test
def schema_is_json_with_every_key():
    schema = json.loads(snug("schema").expect(0).out)
    keys = set(schema["properties"])
    wanted = {"name", "cpus", "memory", "kernel", "initrd", "cmdline", "console", "timeout", "boot_timeout", "on_reboot",
              "on_panic", "jail", "limits", "log"}
    check(wanted <= keys, f"keys missing from the schema: {wanted - keys}")
    check(schema["additionalProperties"] is False, "unknown keys are allowed")


@test
def examples_are_valid():
    folder = os.path.join(os.path.dirname(__file__), "../../guest-images/examples")
    names = sorted(name for name in os.listdir(folder) if name.endswith(".yaml"))
    check(names, "no examples")
    # With a cache where every image is that they mention, and with an empty one.
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "XDG_CACHE_HOME": cache}
        for name in names:
            with open(os.path.join(folder, name)) as file:
                mentioned = re.findall(r"^[^#\n]*\bcache:([\w/-]+)", file.read(), re.M)
            if mentioned:
                err = snug("validate", os.path.join(folder, name), env=env).expect(1).err
                check(f"to make it: snug image build {mentioned[0].split('/')[0]}" in err, "no advice", err)
            for path in mentioned:
                os.makedirs(os.path.dirname(f"{cache}/snug/{path}"), exist_ok=True)
                with open(f"{cache}/snug/{path}", "wb") as file:
                    file.truncate(1 << 20)
            snug("validate", os.path.join(folder, name), env=env).expect(0)
            shutil.rmtree(cache + "/snug", ignore_errors=True)


@test
def a_full_disk_or_closed_stdout_is_an_error():
    with open("/dev/full", "w") as full:
        process = subprocess.run([SNUG, "schema"], stdout=full, stderr=subprocess.PIPE, text=True)
    check(process.returncode == 125 and "stdout" in process.stderr, f"status {process.returncode}", process.stderr)


@test
def no_default_image_says_how_to_make_one():
    needs_kvm()
    with tempfile.TemporaryDirectory() as empty:
        err = snug("run", env={**os.environ, "XDG_CACHE_HOME": empty}).expect(125).err
    check("snug image build default" in err and "snug image build stock" in err, "no advice", err)


@test
def doctor_says_whether_guests_run():
    ended = snug("doctor")
    check(ended.status in (0, 1), "odd status", ended.out)
    check("Linux guests run here." in ended.out or "Linux guests do not run here." in ended.out, "no verdict", ended.out)
    # Each step of the jail, had or not: the last is one that every host has.
    check("     ok  jail: end with the parent\n" in ended.out, "nothing of the jail", ended.out)
    check("PROBLEM  jail" not in ended.out, "a missing step is no problem", ended.out)


# --- limits --------------------------------------------------------------------------------------------------
@test
def limits_that_make_no_sense_are_said():
    err = snug("run", "-m", "256M", "--limits-cpu", "150%", "--limits-memory", "256M", "--limits-io-weight", "0").expect(125).err
    for words in ("--limits-cpu: expected a number of processors", "did you mean 1.5?", "give it 272M or more", "+64M",
                  "--limits-io-weight: expected a whole number from 1 to 10000"):
        check(words in err, f"not said: {words}", err)
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/vm.yaml"
        with open(path, "w") as spec:
            spec.write("limits:\n  cpu: 1.5\n  memory: +1M\n  cpu_quota: 3\n")
        err = snug("validate", path).expect(1).err
        check(f"{path}:3:11: limits.memory: '1M' is too little; at least 16M" in err, "no place", err)
        check(f"{path}:4:3: limits: unknown key 'cpu_quota' (did you mean 'cpu'?)" in err, "no suggestion", err)
        with open(path, "w") as spec:
            spec.write("limits: {cpu: 1.5, memory: +64M}\n")
        shown = snug("validate", "--print", path).expect(0).out
        check("limits:\n  cpu: 1.5\n  memory: \"+64M\"\n  io_weight: none\n" in shown, "not what is in force", shown)


@test
def doctor_says_which_limits_can_be_had():
    out = snug("doctor").out
    check(re.search(r"^ *(ok|note)  limits: .", out, re.M), "nothing of limits", out)
    for line, todo in re.findall(r"^ *note  (limits: no .*)\n(.*)$", out, re.M):
        check("-> " in todo, "it does not say what to do", line, todo)


@test
def limits_that_cannot_be_had_are_never_left_out():
    needs_kvm()
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode != 0:
        raise Skip("root alone can take control groups away")
    without = ("unshare", "--mount", "sh", "-c", 'umount -a -l -t cgroup2 && exec "$@"', "sh")
    for flag in ("--limits-cpu=1", "--limits-memory=+64M", "--limits-io-weight=50"):
        err = snug("run", "--kernel", MICRO + "/hello.elf", flag, prefix=without).expect(125).err
        check(len(err.splitlines()) == 1 and "limits: " in err and "cgroup v2" in err, "no clear error", err)
    snug("run", "--kernel", MICRO + "/hello.elf", prefix=without).expect(0)


@test
def doctor_and_run_agree_on_an_emulated_kernel_mode():
    needs_kvm()
    if snug("doctor").status == 0:
        raise Skip("Linux guests run here")
    err = snug("run", "-k", STOCK, "--initrd", INITRD, bound=60).expect(125).err
    check("emulates guest kernel mode" in err and len(err.strip().splitlines()) == 1, "not one clear line", err)


# --- networks ------------------------------------------------------------------------------------------------
@test
def a_port_in_use_is_125_and_says_which():
    import socket
    needs_kvm()
    if not shutil.which("passt"):
        raise Skip("passt is not installed")
    for kind, suffix, name in ((socket.SOCK_STREAM, "", "TCP"), (socket.SOCK_DGRAM, "/udp", "UDP")):
        with socket.socket(socket.AF_INET, kind) as holder:
            holder.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                holder.listen()
            port = holder.getsockname()[1]
            err = snug("run", "--kernel", MICRO + "/hello.elf", "-p", f"{port}:80{suffix}").expect(125).err
            check(f"publish {name} port {port} on 127.0.0.1" in err and "another host port" in err, "no clear error", err)


@test
def missing_network_tools_are_125_and_say_what_to_install():
    needs_kvm()
    kernel = MICRO + "/hello.elf"
    err = snug("run", "--kernel", kernel, "--net", "user", env={**os.environ, "PATH": "/nonexistent"}).expect(125).err
    check("passt" in err and "apt install passt" in err, "the package is not named", err)
    err = snug("run", "--kernel", kernel, "--net", "tap,tap=snugmissing").expect(125).err
    check("no interface snugmissing" in err and "ip tuntap add dev snugmissing" in err, "no command that makes it", err)
    err = snug("run", "--kernel", kernel, "--net", "tap,tap=fd:900").expect(125).err
    check("fd:900: not open" in err, "the descriptor is not named", err)


# --- corrupt input -------------------------------------------------------------------------------------------
def read(path, limit=None):
    with open(path, "rb") as file:
        return file.read(limit)


def ends_clearly(folder, name, data, arguments, expected=125):
    """snug must end with `expected` and one clear message, and no sanitizer may complain."""
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(data)
    process = subprocess.run([ASAN, *[path if word == "@" else word for word in arguments]], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=BOUND)
    err = process.stderr.decode("utf-8", "replace")
    check("Sanitizer" not in err and "runtime error" not in err, f"a sanitizer complains about {name}", err)
    check(process.returncode == expected, f"{name}: status {process.returncode}, expected {expected}", err)
    message = err.strip()
    check(message, f"{name}: no message")
    check(len(message) < 20000, f"{name}: a flood of messages")


def needs_asan():
    needs_kvm()
    if not ASAN:
        raise Skip("SNUG_BIN_ASAN is not set")


@test
def corrupt_kernels():
    """A bzImage and an ELF cut short everywhere and broken where it matters."""
    needs_asan()
    pick = random.Random(1)
    stock = read(STOCK)
    elf = read(MICRO + "/hello.elf")
    cases = {"empty": b"", "text": b"#!/bin/sh\necho kernel\n", "zeros": bytes(65536), "initrd": read(INITRD, 65536)}
    for i in range(40):
        cases[f"bzimage-cut-{i}"] = stock[:pick.randrange(1, len(stock) - 100000)]
    setup = (stock[0x1f1] + 1) * 512
    payload_offset = int.from_bytes(stock[0x248:0x24c], "little")
    for i in range(30):
        # Inside of the compressed payload, so that unpacking meets it: checked by frame and size.
        broken = bytearray(stock)
        at = setup + payload_offset + pick.randrange(0, 3)
        broken[at] ^= 1 << pick.randrange(8)
        broken[0x1fe + pick.randrange(2)] ^= 0xff
        cases[f"bzimage-magic-{i}"] = bytes(broken)
    for i in range(20):
        cases[f"elf-cut-{i}"] = elf[:pick.randrange(1, 0x1000)]
    for field, size in ((0x10, 2), (0x12, 2), (0x18, 8), (0x20, 8), (0x36, 2), (0x38, 2)):
        for value in (0xff, 0xfe, 0x7f):
            broken = bytearray(elf)
            broken[field:field + size] = bytes([value]) * size
            cases[f"elf-field-{field:x}-{value:x}"] = bytes(broken)
    for i in range(40):
        # Program headers: addresses and sizes that wrap, overlap, or lie outside of everything.
        broken = bytearray(elf)
        at = 64 + pick.choice((0, 56)) + pick.choice((8, 24, 32, 40))
        broken[at + 5:at + 8] = bytes([pick.choice((0x80, 0xff, 0x7f))]) * 3
        cases[f"elf-header-{i}"] = bytes(broken)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in cases.items():
            ends_clearly(folder, name, data, ["run", "-k", "@", "--timeout", "20s", "--console", "none"])
            os.unlink(os.path.join(folder, name))
    print(f"    {len(cases)} kernels")


@test
def corrupt_initrds():
    needs_asan()
    pick = random.Random(2)
    initrd = read(INITRD, 1 << 16)
    cases = {"empty": b"", "zeros": bytes(4096), "html": b"<html>not found</html>\n", "elf": read(MICRO + "/hello.elf")}
    for i in range(30):
        broken = bytearray(initrd)
        broken[pick.randrange(0, 6)] = pick.choice((0, 0x20, 0x41, 0xff))
        cases[f"magic-{i}"] = bytes(broken)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in cases.items():
            ends_clearly(folder, name, data, ["run", "-k", MICRO + "/hello.elf", "--initrd", "@", "--timeout", "20s"])
    print(f"    {len(cases)} initrds")


@test
def corrupt_specs():
    needs_asan()
    pick = random.Random(3)
    good = f"name: x\ncpus: 2\nmemory: 64M\nkernel: {MICRO}/hello.elf\ninitrd: [a, b]\nconsole: none\nlog: {{level: warn}}\n"
    cases = {"empty-map": b"{}x", "nul": b"name: \0", "binary": bytes(range(256)), "deep": b"[" * 100000,
             "bomb": b"a: &a [x,x]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (98 + i, 98 + i, 97 + i, 97 + i) for i in range(24)),
             "huge": b"name: " + b"x" * (2 << 20)}
    while len(cases) < 100:
        data = bytearray(good.encode())
        for _ in range(pick.randrange(1, 4)):
            data[pick.randrange(len(data))] = pick.choice(b"{}[]:\t\"'&*!|>%@`\x00\x80\xff")
        # "a" and "b" do not exist: a mutation that leaves the rest valid is still reported.
        cases[f"mutated-{len(cases)}"] = bytes(data)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in cases.items():
            ends_clearly(folder, name + ".yaml", data, ["run", "@"])
    print(f"    {len(cases)} specs")


import agents  # noqa: E402,F401
import container_images  # noqa: E402,F401
import documentation  # noqa: E402,F401
import images  # noqa: E402,F401
import lab_files  # noqa: E402,F401
import layers  # noqa: E402,F401
import pulling  # noqa: E402,F401
import service  # noqa: E402,F401
import streams  # noqa: E402,F401
import waiting  # noqa: E402,F401

main("cli")
