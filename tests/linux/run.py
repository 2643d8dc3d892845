#!/usr/bin/env python3
"""Linux guests, booted by snug: on hardware KVM directly, elsewhere inside one lab boot.

Images come from guest-images/build; tools/test hands their paths over in SNUG_IMAGE_*. Words on the command line
select tests whose names contain them.
"""
import functools
import select
import shutil
import sys

sys.path.insert(0, sys.path[0] + "/../support")
from harness import *  # noqa: E402,F403

STOCK = os.environ["SNUG_IMAGE_STOCK"]
STOCK_FULL = os.environ["SNUG_IMAGE_STOCK_FULL"]
TINY = os.environ["SNUG_IMAGE_TINY"]  # vmlinux; the bzImages lie beside it
INITRD = os.environ["SNUG_IMAGE_INITRD"]
INITRD_LEAN = os.environ["SNUG_IMAGE_INITRD_LEAN"]
MICRO = os.environ["SNUG_IMAGE_MICRO"]
TINY_FOLDER = os.path.dirname(TINY)

KERNELS = {
    "stock_cloud": STOCK,
    "stock_full": STOCK_FULL,
    "tiny_elf": TINY,
    "tiny_gzip": TINY_FOLDER + "/bzImage",
    "tiny_lz4": TINY_FOLDER + "/bzImage.lz4",
    "tiny_zstd": TINY_FOLDER + "/bzImage.zstd",
    "tiny_xz": TINY_FOLDER + "/bzImage.xz",
    "tiny_lzma": TINY_FOLDER + "/bzImage.lzma",
    "tiny_bzip2": TINY_FOLDER + "/bzImage.bzip2",
}

# A marker that the kernel's own messages do not contain keeps what a command prints apart from them.
MARK = "==snug-test=="


def guest(kernel, *flags, command=None, **keywords):
    arguments = ["run", "--kernel", kernel, "--initrd", INITRD, "--timeout", "300s", *flags]
    if command is not None:
        arguments += ["--", "sh", "-c", f"echo; echo '{MARK}'; {command}; r=$?; echo '{MARK}'; exit $r"]
    return snug(*arguments, **keywords)


def marked(ended):
    """What the command in the guest printed."""
    parts = ended.out.replace("\r", "").split(MARK + "\n")
    check(len(parts) >= 3, "the guest's command did not run to its end", ended.out, ended.err)
    return parts[1]


# --- kernels -------------------------------------------------------------------------------------------------
def boots(kernel):
    def run():
        # <N>: the level; 4 is a warning, lower is worse.
        text = marked(guest(kernel, "--cmdline", "quiet", command="dmesg -r | wc -l; dmesg -r | grep '^<[0-4]>' || true")
                      .expect(0))
        check(int(text.split()[0]) > 100, "the kernel's log is not there", text)
        bad = [line for line in text.splitlines()
               if re.search(r"ACPI|DSDT|FADT|MADT|MCFG|RSDP|XSDT|PCI|pci|8250|ttyS|serial|rtc|RTC|i8042|pvpanic|e820|"
                             r"BIOS|firmware|Firmware|APIC|apic|irq|IRQ|MTRR|PAT", line)]
        check(not bad, "dmesg warns about our tables or devices:", "\n".join(bad))
    return run


for kernel_name, kernel_path in KERNELS.items():
    add("boot_" + kernel_name, boots(kernel_path))


# --- processors and memory -----------------------------------------------------------------------------------
def online(cpus):
    def run():
        text = marked(guest(TINY, "--cpus", str(cpus), command="nproc; cat /sys/devices/system/cpu/online; "
                            "grep -c ^processor /proc/cpuinfo; grep 'core id' /proc/cpuinfo").expect(0))
        words = text.split("\n")
        check(words[0] == str(cpus) and words[2] == str(cpus), f"not all of {cpus} vCPUs are online", text)
        check(len(set(re.findall(r"core id\s*: (\d+)", text))) == cpus, "core ids are not all different", text)
    return run


for count in (1, 2, 4):
    add(f"cpus_{count}", online(count))


@test
def cpus_2_stock_kernel():
    text = marked(guest(STOCK, "--cpus", "2", command="nproc").expect(0))
    check(text.split()[0] == "2", "not both vCPUs are online", text)


def memory(size, mib):
    def run():
        text = marked(guest(TINY, "--memory", size, command="grep MemTotal /proc/meminfo").expect(0))
        total = int(re.search(r"MemTotal:\s+(\d+) kB", text).group(1)) / 1024
        # Of its memory a kernel keeps the page array (1/64), its own image, some tables, and, with memory above
        # 4 GiB, 64 MiB of bounce buffers.
        least = mib - mib / 64 - 32 - (68 if mib > 3072 else 0)
        check(least <= total <= mib, f"MemTotal is {total:.0f} MiB of {mib}", text)
    return run


for memory_size, memory_mib in (("64M", 64), ("512M", 512), ("5G", 5120)):
    add(f"memory_{memory_size}", memory(memory_size, memory_mib))


# --- ends ----------------------------------------------------------------------------------------------------
@test
def end_power_off():
    guest(TINY, "--cmdline", "quiet snug.poweroff").expect(0)


@test
def end_guest_command_status():
    guest(TINY, "--cmdline", "quiet", command="exit 7").expect(7)


@test
def end_guest_command_status_stock_kernel():
    guest(STOCK, "--cmdline", "quiet", command="exit 7").expect(7)


@test
def end_reset_exit():
    guest(TINY, "--cmdline", "quiet snug.reboot", "--on-reboot", "exit").expect(0)


@test
def end_reset_stock_kernel():
    """Debian's kernel expects EFI of hardware-reduced ACPI, and resets by a jump to the reset vector."""
    guest(STOCK, "--cmdline", "quiet snug.reboot", "--on-reboot", "exit").expect(0)


@test
def end_reset_restarts_in_the_same_process():
    ended = guest(TINY, "--cmdline", "quiet snug.reboot", "--timeout", "40s", "--stats")
    ended.expect(124)
    check(ended.stat("boots") >= 2, "the guest was not restarted", ended.err)


@test
def end_panic_reported_by_pvpanic():
    ended = guest(TINY, "--cmdline", "snug.panic").expect(123)
    check("panicked" in ended.err and "sysrq triggered crash" in ended.err, "the message does not say why", ended.err)


@test
def end_panic_seen_on_the_console():
    ended = guest(STOCK, "--cmdline", "quiet snug.panic").expect(123)
    check("panicked" in ended.err and "Kernel panic" in ended.err, "the message does not say why", ended.err)


@test
def end_no_init_panics():
    ended = snug("run", "--kernel", TINY, "--cmdline", "quiet", "--timeout", "300s").expect(123)
    check("Unable to mount root fs" in ended.err, "the message does not say why", ended.err)


@test
def end_triple_fault():
    ended = snug("run", "--kernel", MICRO + "/triple_fault.elf", "--timeout", "60s").expect(123)
    check("triple fault" in ended.err, "the message does not say so", ended.err)


@test
def end_timeout():
    ended = guest(TINY, "--cmdline", "quiet", "--timeout", "3s").expect(124)
    check("timeout of 3s" in ended.err, "the message does not say so", ended.err)


@test
def end_boot_timeout():
    ended = snug("run", "--kernel", MICRO + "/spin.elf", "--boot-timeout", "1s", "--timeout", "60s").expect(124)
    check("boot_timeout" in ended.err, "the message does not say so", ended.err)


def started(*flags):
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--timeout", "300s", *flags],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen = b""
    while b"snug-initrd: ready" not in seen:
        chunk = os.read(process.stdout.fileno(), 4096)
        check(chunk, "the guest ended before it was ready", seen)
        seen += chunk
    return process


@test
def end_sigterm_powers_the_guest_off():
    process = started("--grace-period", "100s")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=BOUND)
    Ended(process.returncode, out, err).expect(0)


# A guest in which nobody listens to the power button.
DEAF = ("--", "sh", "-c", "echo snug-initrd: ready; sleep 1000")


@test
def end_sigterm_with_a_deaf_guest():
    process = started("--grace-period", "1s", *DEAF)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=BOUND)
    ended = Ended(process.returncode, out, err).expect(143)
    check("grace period" in ended.err, "the message does not say so", ended.err)


@test
def end_second_signal_stops_at_once():
    process = started("--grace-period", "1h", *DEAF)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=BOUND)
    Ended(process.returncode, out, err).expect(130)


# --- figures -------------------------------------------------------------------------------------------------
@test
def exits_from_first_run_to_power_off():
    ended = snug("run", "--kernel", TINY, "--initrd", INITRD_LEAN, "--cmdline", "quiet", "--rng", "false", "--stats",
                 "--timeout", "300s").expect(0)
    print(f"    exits to user space, tiny kernel, quiet, power-off: {ended.stat('exits'):.0f} (budget 250)")
    check(ended.stat("exits") <= 250, "more exits than the budget", ended.err)


# --- console -------------------------------------------------------------------------------------------------
@test
def console_interactive():
    terminal = Terminal("run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet")
    try:
        terminal.wait_for(b"snug-initrd: ready")
        terminal.wait_for(b"# ")
        check(terminal.settings() != terminal.before, "the terminal is not in raw mode")
        terminal.type(b"echo $((6*7))-typed\r")
        terminal.wait_for(b"42-typed")
        terminal.type(b"\x01h")
        terminal.wait_for(b"Ctrl-A x")
        # The shell's line editor reads ahead: what is meant for cat is typed when the editor is done.
        terminal.type(b"echo $((7*7))-next; cat -v\r")
        terminal.wait_for(b"49-next")
        terminal.type(b"\x01\x01\r")
        # The echo of the guest's terminal, then what cat has read; the host's terminal adds a \r to each line.
        terminal.wait_for(b"^A\r\r\n^A\r\r\n")
        terminal.type(b"\x01x")
        status = terminal.wait_end()
        check(status == 0, f"exit status {status} after Ctrl-A x", terminal.screen)
        check(terminal.settings() == terminal.before, "the terminal was not restored")
    finally:
        terminal.close()


@test
def console_terminal_restored_after_signals():
    for number in (signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV, signal.SIGTERM):
        terminal = Terminal("run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet", "--grace-period", "1ms")
        try:
            terminal.wait_for(b"snug-initrd: ready")
            terminal.process.send_signal(number)
            status = terminal.wait_end()
            check(status == 128 + number, f"exit status {status} after signal {number}", terminal.screen)
            check(terminal.settings() == terminal.before, f"the terminal was not restored after signal {number}")
        finally:
            terminal.close()


@test
def console_ten_megabytes_pasted():
    """The guest reads slowly; the paste waits outside, and the monitor does not grow."""
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet", "--", "sh",
                                "-c", "stty raw -echo; echo ready; head -c 20000 | md5sum; echo; sleep 3600"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        import hashlib
        import threading
        data = bytes(32 + i % 90 for i in range(10 << 20))
        expected = hashlib.md5(data[:20000]).hexdigest().encode()

        def paste():
            try:
                process.stdin.write(data)
            except (BrokenPipeError, ValueError):
                pass

        seen = b""
        deadline = time.monotonic() + BOUND

        def read_until(mark, complaint):
            nonlocal seen
            while mark not in seen:
                check(time.monotonic() < deadline, complaint, seen)
                ready, _, _ = select_read(process.stdout, 1)
                if ready:
                    seen += os.read(process.stdout.fileno(), 4096)

        # A line discipline that is not raw yet throws away what comes without a line's end.
        read_until(b"ready", "the guest did not come up")
        thread = threading.Thread(target=paste, daemon=True)
        thread.start()
        before = resident_kib(process.pid)
        read_until(b"  -", "the guest did not get its 20000 bytes")
        check(expected in seen, "what arrived is not what was sent", seen)
        # All but what the guest took waits in the pipe: the writer is still held back.
        check(thread.is_alive(), "10 MB went somewhere: input is not flow-controlled")
        growth = monitor_kib(process.pid)
        check(growth < 16 * 1024, f"the monitor holds {growth} KiB beyond guest memory (started at {before})")
    finally:
        process.kill()
        process.communicate()


def select_read(stream, seconds):
    import select
    return select.select([stream], [], [], seconds)


def monitor_kib(pid):
    """Resident memory but guest RAM, KiB. Guest RAM is what no child may inherit (MADV_DONTFORK, flag "dc"): a
    cached kernel splits it into several mappings, so size alone does not tell."""
    total = 0
    resident = 0
    with open(f"/proc/{pid}/smaps") as maps:
        for line in maps:
            if line.startswith("Rss:"):
                resident = int(line.split()[1])
            elif line.startswith("VmFlags:") and "dc" not in line.split():
                total += resident
    return total


@test
def console_stalled_reader_does_not_stop_the_guest():
    read_end, write_end = os.pipe()
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet", "--timeout",
                                "300s", "--", "sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done; exit 5"],
                               stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    try:
        _, err = process.communicate(timeout=BOUND)
        ended = Ended(process.returncode, b"", err).expect(5)
        check("bytes dropped" in ended.err, "nothing is said of the bytes that nobody took", ended.err)
    finally:
        os.close(read_end)


@test
def console_closed_stdout():
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet", "--", "sh",
                                "-c", "echo hello; exit 5"], stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    _, err = process.communicate(timeout=BOUND)
    ended = Ended(process.returncode, b"", err).expect(5)
    check("Broken pipe" in ended.err, "nothing is said of the closed stdout", ended.err)


@test
def console_to_a_file_and_none():
    with tempfile.TemporaryDirectory() as folder:
        guest(TINY, "--console", f"file:{folder}/console", command="echo in-the-file").expect(0)
        with open(folder + "/console") as console:
            check("in-the-file" in console.read(), "the file has no console output")
    ended = guest(TINY, "--console", "none", command="echo nowhere; exit 3").expect(3)
    check(ended.out == "", "console none prints", ended.out)


@test
def console_pty():
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet", "--console",
                                "pty"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        path = re.search(rb"(/dev/pts/\d+)", process.stderr.readline()).group(1).decode()
        end = os.open(path, os.O_RDWR | os.O_NOCTTY)
        seen = b""
        while b"# " not in seen:
            check(select_read(end, BOUND)[0], "nothing on the pty", seen)
            seen += os.read(end, 4096)
        os.write(end, b"echo $((5*5))-pty; poweroff -f\n")
        while b"25-pty" not in seen:
            check(select_read(end, BOUND)[0], "no answer on the pty", seen)
            seen += os.read(end, 4096)
        check(process.wait(timeout=BOUND) == 0, "the guest did not power off")
        os.close(end)
    finally:
        process.kill()
        process.communicate()


@test
def console_input_from_a_file():
    with tempfile.TemporaryFile() as script:
        script.write(b"echo $((3*3))-from-stdin\nexit\n")
        script.seek(0)
        ended = snug("run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet", "--timeout", "300s",
                     stdin=script).expect(0)
        check("9-from-stdin" in ended.out, "the shell did not read stdin", ended.out)


# --- devices -------------------------------------------------------------------------------------------------
@test
def clock_is_right():
    before = time.time()
    text = marked(guest(TINY, command="date +%s; hwclock -u -r 2>/dev/null; cat /sys/class/rtc/rtc0/since_epoch").expect(0))
    lines = text.split()
    check(before - 2 <= int(lines[0]) <= time.time() + 2, "the guest's time is off", text)
    check(before - 2 <= int(lines[-1]) <= time.time() + 2, "the RTC's time is off", text)


@test
def pci_host_bridge_alone():
    text = marked(guest(TINY, "--rng", "false", command="ls /sys/bus/pci/devices; cat /sys/bus/pci/devices/*/class").expect(0))
    check(text.split() == ["0000:00:00.0", "0x060000"], "PCI devices are not just the host bridge", text)


@test
def rng_gives_random_bytes():
    text = marked(guest(TINY, "--cmdline", "quiet", command="cat /sys/class/misc/hw_random/rng_current; for i in 1 2; do "
                        "dd if=/dev/hwrng bs=512 count=20 2>/dev/null | md5sum; done; "
                        "dd if=/dev/hwrng bs=512 count=20 2>/dev/null | wc -c").expect(0))
    name, first, _, second, _, size = text.split()
    check(name.startswith("virtio_rng") and size == "10240" and first != second, "not 10240 random bytes", text)


def checksum(path, start=0, size=-1):
    import hashlib
    with open(path, "rb") as file:
        file.seek(start)
        return hashlib.md5(file.read(size)).hexdigest()


@test
def disks_hold_what_is_written():
    mib = 1 << 20
    with tempfile.TemporaryDirectory() as folder:
        source, target = folder + "/source.img", folder + "/target.img"
        with open(source, "wb") as file:
            file.write(os.urandom(16 * mib))
        with open(target, "wb") as file:
            file.truncate(64 * mib)
        ended = guest(TINY, "--cmdline", "quiet", "--cpus", "2", "--disk", source + ",readonly=true,serial=source-1",
                      "--disk", target + ",queues=2", "--stats", command=
                      "cat /sys/block/vda/serial; echo; cat /sys/block/vda/ro; ls /sys/block/vdb/mq | wc -w; md5sum < /dev/vda; "
                      "dd if=/dev/vda of=/dev/vdb bs=1M seek=8 2>/dev/null && sync && echo 3 > /proc/sys/vm/drop_caches; "
                      "dd if=/dev/vdb bs=1M skip=8 count=16 2>/dev/null | md5sum; "
                      "dd if=/dev/zero of=/dev/vda bs=512 count=1 2>/dev/null || echo refused; "
                      "dmesg -r | grep -E '^<[0-4]>.*(virtio|vd[ab]|blk)' || true").expect(0)
        words = marked(ended).replace(" -", "").split()
        sum_of_source = checksum(source)
        check(words == ["source-1", "1", "2", sum_of_source, sum_of_source, "refused"], "not what was expected", ended.out)
        check(checksum(target, 8 * mib, 16 * mib) == sum_of_source, "the file does not hold what the guest wrote")


@test
def disk_space_comes_back_by_discard():
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/disk.img"
        with open(path, "wb") as file:
            file.write(b"x" * (8 << 20))
        guest(TINY, "--cmdline", "quiet", "--disk", path, command="blkdiscard /dev/vda").expect(0)
        check(os.stat(path).st_blocks * 512 < 1 << 20, "the discarded disk still takes its space")
        check(os.stat(path).st_size == 8 << 20, "the disk's size has changed")


@test
def disk_is_locked_against_a_second_machine():
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/disk.img"
        with open(path, "wb") as file:
            file.truncate(1 << 20)
        process = started("--cmdline", "quiet", "--disk", path)
        try:
            for flags in ((), (",readonly=true",)):
                ended = guest(TINY, "--disk", path + "".join(flags)).expect(125)
                check("in use" in ended.err, "the message does not say so", ended.err)
        finally:
            process.kill()
            process.communicate()


@test
def cmdline_reboot_by_keyboard_controller():
    guest(TINY, "--cmdline", "quiet reboot=k snug.reboot", "--on-reboot", "exit").expect(0)


@test
def several_initrds_are_one():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/root")
        with open(folder + "/root/extra", "w") as extra:
            extra.write("from-the-second\n")
        archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=b"root\nroot/extra\n", cwd=folder,
                                 stdout=subprocess.PIPE, check=True).stdout
        with open(folder + "/second.cpio", "wb") as second:
            second.write(archive)
        text = marked(guest(TINY, "--initrd", folder + "/second.cpio", command="cat /root/extra").expect(0))
        check("from-the-second" in text, "the second archive is not there", text)


@test
def spec_file_boots():
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/vm.yaml", "w") as spec:
            spec.write(f"name: spec-test\ncpus: 2\nmemory: 128M\nkernel: {TINY}\ninitrd: {INITRD}\n"
                       "cmdline: quiet snug.run=nproc%3bexit%209\ntimeout: 4m\non_reboot: exit\n")
        ended = snug("run", folder + "/vm.yaml").expect(9)
        check("2" in ended.out.split(), "the spec's vCPUs are not there", ended.out)



# --- network -------------------------------------------------------------------------------------------------
def need_uplink():
    """passt translates to the host's network: it wants a default route. A host without one gets a dead end."""
    if "default" in subprocess.run(["ip", "route"], capture_output=True, text=True).stdout:
        return
    import fcntl
    import struct
    # Held open for as long as the tests run, so that it has a carrier and a link-local address.
    uplink = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(uplink, 0x400454ca, struct.pack("16sH22x", b"uplink0", 0x1002))  # TUNSETIFF: IFF_TAP, IFF_NO_PI
    for command in ("link set lo up", "addr add 192.0.2.2/24 dev uplink0",
                    "addr add fd00::2/64 dev uplink0 nodad", "link set uplink0 up", "route add default via 192.0.2.1",
                    "-6 route add default via fd00::1"):
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
        check(done.returncode == 0, f"ip {command}", done.stderr)


def free_port(kind):
    import socket
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def small_initrd(folder, files):
    """An archive with `files` (name in the guest: path here), to be loaded behind the initrd."""
    tree = folder + "/tree"
    for name, path in files.items():
        os.makedirs(os.path.dirname(f"{tree}/{name}"), exist_ok=True)
        shutil.copy(path, f"{tree}/{name}")
    archive = folder + "/more.cpio"
    with open(archive, "wb") as out:
        names = "\n".join(os.path.relpath(os.path.join(top, name), tree) for top, folders, leaves in os.walk(tree)
                          for name in folders + leaves)
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=tree, input=names.encode(), stdout=out, check=True)
    return archive


def passt_processes():
    return subprocess.run(["pgrep", "-x", "passt|passt.avx2"], capture_output=True, text=True).stdout.split()


@test
def net_user_fetches_and_answers():
    import http.server
    import socket
    import threading
    need_uplink()
    with tempfile.TemporaryDirectory() as folder:
        data = os.urandom(3 << 20)
        os.mkdir(folder + "/www")
        with open(folder + "/www/file", "wb") as file:
            file.write(data)
        subprocess.run(["gcc", "-static", "-O1", "-o", folder + "/udp_echo", sys.path[1] + "/udp_echo.c"], check=True)
        more = small_initrd(folder, {"bin/udp-echo": folder + "/udp_echo"})
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder + "/www")
        handler.func.log_message = lambda *_: None
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tcp, udp = free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
        script = (f"gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); "
                  f"wget -q -O - http://$gateway:{server.server_port}/file | md5sum; "
                  "cat /sys/class/net/eth0/address; for i in $(seq 100); do "
                  "ip -6 addr show dev eth0 scope global | grep -q inet6 && break; sleep 0.2; done; echo $((i < 100)); "
                  "mkdir /www; echo from the guest > /www/page; httpd -p 80 -h /www; udp-echo 53 & echo serving; "
                  "nc -l -p 81 < /dev/null > /dev/null; "
                  "dmesg -r | grep -E '^<[0-4]>.*(virtio|eth0|net)' || true")
        process = subprocess.Popen(
            [SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--initrd", more, "--timeout", "300s", "--cmdline", "quiet",
             "--name", "webguest", "--net", "user,host_loopback=true", "-p", f"{tcp}:80", "-p", f"127.0.0.1:{udp}:53/udp",
             "-p", f"{tcp + 1}:81", "--", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        seen = b""
        deadline = time.monotonic() + BOUND
        try:
            while b"serving" not in seen:
                check(time.monotonic() < deadline and process.poll() is None, "the guest does not serve", seen)
                if select.select([process.stdout], [], [], 1)[0]:
                    seen += os.read(process.stdout.fileno(), 4096)
            words = seen.decode().replace("\r", "").split()
            import hashlib
            check(words[0] == hashlib.md5(data).hexdigest(), "what was fetched is not what was served", seen)
            check(re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", words[2]), "no MAC address", seen)
            check(words[3] == "1", "no IPv6 address by router advertisement", seen)
            import urllib.request
            page = urllib.request.urlopen(f"http://127.0.0.1:{tcp}/page", timeout=60).read()
            check(page == b"from the guest\n", "the published TCP port gives something else", page)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(5)
                client.connect(("127.0.0.1", udp))
                answer = b""
                for _ in range(10):
                    client.send(b"hello")
                    try:
                        answer = client.recv(100)
                        break
                    except socket.timeout:
                        continue
                check(answer == b"echo hello", "the published UDP port gives something else", answer)
            check(len(passt_processes()) == 1, "not one passt", passt_processes())
            socket.create_connection(("127.0.0.1", tcp + 1), 60).close()
            out, err = process.communicate(timeout=BOUND)
        finally:
            process.kill()
            process.wait()
            server.shutdown()
        check(process.returncode == 0, f"status {process.returncode}", seen + out, err)
        check(not passt_processes(), "passt is still there", passt_processes())


@test
def net_user_host_loopback_is_shut_unless_asked_for():
    import http.server
    import threading
    need_uplink()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        ended = guest(TINY, "--cmdline", "quiet", "--net", "user", command=(
            "gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); echo gateway $gateway; "
            f"(timeout 5 wget -q -O - http://$gateway:{server.server_port}/ > /dev/null 2>&1) 2>/dev/null && echo reached || echo shut")).expect(0)
    finally:
        server.shutdown()
    words = marked(ended).split()
    check(words[0] == "gateway" and "." in words[1], "no gateway", ended.out)
    check(words[-1] == "shut" and "reached" not in words, "the host's loopback is open", ended.out)


@test
def net_user_survives_the_end_of_passt():
    need_uplink()
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--timeout", "300s", "--cmdline", "quiet",
                                "--net", "user", "--", "sh", "-c",
                                "echo carrier $(cat /sys/class/net/eth0/carrier); "
                                "while [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.1; done; echo unplugged; "
                                "while [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done; "
                                "udhcpc -i eth0 -n -q -t 20 -T 1 > /dev/null 2>&1 && echo back"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        seen = b""
        deadline = time.monotonic() + BOUND
        while b"carrier 1" not in seen:
            check(time.monotonic() < deadline and process.poll() is None, "the guest did not start", seen)
            if select.select([process.stdout], [], [], 1)[0]:
                seen += os.read(process.stdout.fileno(), 4096)
        time.sleep(3)  # what ends sooner has never worked, and ends snug
        subprocess.run(["pkill", "-KILL", "-x", "passt|passt.avx2"], check=True)
        out, err = process.communicate(timeout=BOUND)
    finally:
        process.kill()
        process.wait()
    check(b"unplugged" in out and b"back" in out, "the guest did not get its network back", seen + out, err)
    check(b"passt killed by signal 9" in err, "not a word of it", err)
    check(not passt_processes(), "passt is still there", passt_processes())


@test
def net_user_leaves_no_process_when_killed():
    need_uplink()
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet", "--net", "user",
                                "--", "sh", "-c", "echo up; sleep 1000"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    check(process.stdout.readline(), "the guest did not start")
    check(len(passt_processes()) == 1, "not one passt", passt_processes())
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while passt_processes():
        check(time.monotonic() < deadline, "passt outlives a killed snug", passt_processes())
        time.sleep(0.1)


main("linux")
