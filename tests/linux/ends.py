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
def end_reset_stock_kernel():
    """Debian's kernel expects EFI of hardware-reduced ACPI, and resets by a jump to the reset vector."""
    guest(STOCK, "--cmdline", "quiet snug.reboot", "--on-reboot", "exit").expect(0)


@test
def end_reset_restarts_in_the_same_process():
    """Until it is asked to end: then its next reset is that."""
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--stats", "--grace-period", "none",
                                *on_console("echo up; reboot -f")],
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
