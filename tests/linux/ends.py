"""How a machine ends, and its exit status."""
from guests import *  # noqa: F403


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
@exhaustive
def end_reset_stock_kernel():
    """Debian's kernel expects EFI of hardware-reduced ACPI, and resets by a jump to the reset vector."""
    guest(STOCK, "--cmdline", "quiet snug.reboot", "--on-reboot", "exit").expect(0)


@test
def end_reset_restarts_in_the_same_process():
    """Until it is asked to end: then its next reset is that. Devices with threads of their own go and come with each boot."""
    folder = tempfile.TemporaryDirectory()
    with open(folder.name + "/disk.img", "wb") as disk:
        disk.truncate(1 << 20)
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--stats", "--grace-period", "none",
                                "--disk", folder.name + "/disk.img,thread=true", "--net", "user,thread=true",
                                *on_console("echo up; dd if=/dev/vda of=/dev/null 2>/dev/null; reboot -f")],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        seen, deadline = b"", time.monotonic() + BOUND
        while seen.count(b"\nup\r") < 3:
            check(time.monotonic() < deadline, "the guest was not restarted", seen)
            if select_read(process.stdout, 1)[0]:
                chunk = os.read(process.stdout.fileno(), 4096)
                check(chunk, "snug ended", seen)
                seen += chunk
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=BOUND)
        ended = Ended(process.returncode, out, err).expect(0)
        check(ended.stat("boots") >= 3, "not boots of one process", err)
    finally:
        process.kill()
        process.communicate()
        folder.cleanup()


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


@test
def end_sigterm_powers_the_guest_off():
    process = started("--grace-period", "100s")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=BOUND)
    Ended(process.returncode, out, err).expect(0)


# A guest in which nobody listens to the power button.
DEAF = on_console("echo snug-initrd: ready; sleep 1000")


@test
def end_sigterm_with_a_deaf_guest():
    process = started("--grace-period", "1s", *DEAF)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=BOUND)
    ended = Ended(process.returncode, out, err).expect(143)
    check("grace period" in ended.err, "the message does not say so", ended.err)


@test
@exhaustive
def end_no_grace():
    process = started("--grace-period", "0", *DEAF)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=BOUND)
    Ended(process.returncode, out, err).expect(143)


@test
def end_second_signal_stops_at_once():
    process = started("--grace-period", "1h", *DEAF)
    process.send_signal(signal.SIGINT)
    check(b"power button pressed" in process.stderr.readline(), "the first signal is not told of")
    time.sleep(0.5)  # closer together, two signals are one wish
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=BOUND)
    Ended(process.returncode, out, err).expect(130)


@test
def end_panic_text_of_a_program():
    """A guest whose driver would have reported a panic has had none, whatever its programs print."""
    guest(TINY, "--cmdline", "quiet", "--on-reboot", "exit", command=(
        "echo; echo 'Kernel panic - not syncing: says a program' > /dev/console; sleep 0.2; reboot -f")).expect(0)


@test
@exhaustive
def end_boot_timeout_of_a_guest_on_hvc0():
    with tempfile.TemporaryDirectory() as folder:
        log = folder + "/hvc0"
        # The time limit lasts for longer than a boot takes anywhere, and much less than the guest runs on.
        ended = guest(TINY, "--cmdline", "quiet console=hvc0", "--virtio-console", "file:" + log, "--boot-timeout", "20s",
                      command="echo a line of user space, longer than what the kernel writes at once; sleep 25; echo still there").expect(0)
        with open(log) as file:
            check("still there" in file.read(), "the console has something else", ended.out, ended.err)


@test
@exhaustive
def end_not_by_a_stop_and_go():
    """The whole machine stands still for longer than the guest's watchdog is patient: no lockup of the guest's."""
    script = ("echo 1 > /proc/sys/kernel/softlockup_panic; echo 1 > /proc/sys/kernel/hung_task_panic; "
              "echo 2 > /proc/sys/kernel/watchdog_thresh; sleep 3; echo stop me; "
              "i=0; while [ $((i += 1)) -lt 300000 ]; do :; done; sleep 8; dmesg | grep -i 'soft lockup'; echo done")
    process = subprocess.Popen([SNUG, "run", "--kernel", STOCK, "--initrd", INITRD, "--cpus", "2", "--timeout", "300s",
                                *on_console(script)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        seen, deadline = b"", time.monotonic() + BOUND
        while b"stop me" not in seen:
            check(time.monotonic() < deadline and process.poll() is None, "the guest did not start", seen)
            if select_read(process.stdout, 1)[0]:
                seen += os.read(process.stdout.fileno(), 4096)
        stop_machine(process.pid)
        time.sleep(45 if EVERYTHING else 10)
        continue_machine(process.pid)
        out, err = process.communicate(timeout=BOUND)
    finally:
        process.kill()
        process.wait()
    check(process.returncode == 0 and b"done" in out and b"soft lockup" not in out, "not as if nothing had been", seen + out, err)
