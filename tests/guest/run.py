#!/usr/bin/env python3
"""snug itself with micro-guests, on whatever /dev/kvm there is."""
import os
import sys

sys.dont_write_bytecode = True
# Whatever a guest does is done by one that is locked in.
os.environ.setdefault("SNUG_JAIL", "require")

from micro import *  # noqa: E402,F403
import hostile  # noqa: E402
import life  # noqa: E402,F401
import moves  # noqa: E402,F401
import pmem  # noqa: E402,F401
import snapshots  # noqa: E402,F401
import updates  # noqa: E402,F401
import virtio  # noqa: E402,F401: its tests
import wall  # noqa: E402,F401


def micro(name, *flags, **keywords):
    return snug("run", "--kernel", f"{MICRO}/{name}.elf", "--timeout", "120s", *flags, **keywords)


@test
def linux_protocol_entry_prints_and_powers_off():
    check(micro("hello").expect(0).out == "micro-guest: hello\r\n", "odd output")


@test
def pvh_entry():
    check(micro("pvh").expect(0).out == "micro-guest: entered by PVH\r\n", "odd output")


@test
def debug_exit_gives_an_odd_status():
    micro("widths").expect(15)


@test
def triple_fault_is_123_with_registers():
    ended = micro("triple_fault").expect(123)
    check("triple fault" in ended.err and "rip" in ended.err and "code at" in ended.err, "no report", ended.err)


@test
def no_memory_to_run_in_is_said():
    ended = micro("nowhere").expect(125)
    check("cannot emulate" in ended.err and "rip" in ended.err, "no report", ended.err)


@test
def timeout_is_124():
    ended = micro("spin", "--timeout", "300ms").expect(124)
    check("timeout of 0.3s" in ended.err, "the message does not say so", ended.err)


@test
def boot_timeout_is_124():
    check("boot_timeout" in micro("spin", "--boot-timeout", "300ms").expect(124).err, "the message does not say so")


@test
def signals_end_a_guest_that_has_no_power_button():
    for first, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)):
        # A shell or nohup(1) around the tests may have them ignored, which snug respects.
        process = subprocess.Popen([SNUG, "run", "-k", MICRO + "/spin.elf", "--grace-period", "200ms", "--log-level", "debug"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGHUP, signal.SIGINT)])
        seen = b""
        while b"command line:" not in seen:
            seen += os.read(process.stderr.fileno(), 4096)
        time.sleep(0.2)
        process.send_signal(first)
        out, err = process.communicate(timeout=BOUND)
        Ended(process.returncode, out, err).expect(status)


@test
def restarts_in_the_same_process():
    ended = micro("reset", "--timeout", "2s", "--stats").expect(124)
    check(ended.stat("boots") >= 2, "not restarted", ended.err)
    micro("reset", "--on-reboot", "exit").expect(0)


@test
def panic_policies():
    check("panicked" in micro("panic").expect(123).err, "no message")
    check(micro("panic", "--on-panic", "restart", "--timeout", "2s", "--stats").expect(124).stat("boots") >= 2, "not restarted")
    micro("panic", "--on-panic", "ignore").expect(0)


@test
def terminal_quits_helps_and_is_restored():
    with Terminal("run", "--kernel", MICRO + "/echo.elf") as terminal:
        terminal.wait_for(b"echo ready")
        terminal.expect_raw()
        terminal.type(b"abc", until=b"abc")
        terminal.stop_and_go(signal.SIGTSTP, restores=True)
        terminal.stop_and_go(signal.SIGSTOP, restores=False)
        terminal.type(b"def", until=b"def")
        terminal.type(b"\x01\x01", until=b"\x01")
        terminal.type(b"\x01h", until=b"Ctrl-A x")
        terminal.type(b"\x01x")
        terminal.expect_end(0)


@test
def terminal_quits_however_much_the_guest_leaves_unread():
    with Terminal("run", "--kernel", MICRO + "/spin.elf") as terminal:
        deadline = time.monotonic() + BOUND
        while not terminal.is_raw():
            check(time.monotonic() < deadline, "never became raw")
            time.sleep(0.05)
        for _ in range(20):
            terminal.type(b"x" * 1000)
            terminal.poll(0.05)
        terminal.wait_for(b"input is dropped")
        terminal.type(b"\x01x")
        terminal.expect_end(0)


@test
@unrecorded()
def sixty_four_kilobytes_through_the_console_are_exact():
    data = bytes(33 + i % 90 for i in range(65536))
    process = subprocess.Popen([SNUG, "run", "--kernel", MICRO + "/echo.elf", "--timeout", "250s"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(data + b"\x04", timeout=BOUND)
    Ended(process.returncode, out, err).expect(0)
    echoed = out.split(b"echo ready\r\n", 1)[1].rstrip(b"\x04")
    check(echoed == data, f"{len(echoed)} of {len(data)} bytes came back, or not the same", err)


@test
def ten_megabytes_of_input_do_not_grow_the_monitor():
    process = subprocess.Popen([SNUG, "run", "--kernel", MICRO + "/spin.elf"], stdin=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        os.set_blocking(process.stdin.fileno(), False)
        sent = 0
        block = b"y" * 65536
        deadline = time.monotonic() + 2
        while sent < 10 << 20 and time.monotonic() < deadline:
            try:
                sent += os.write(process.stdin.fileno(), block)
            except BlockingIOError:
                time.sleep(0.01)
        check(sent < 10 << 20, "10 MB went into a guest that reads nothing")
        check(resident_kib(process.pid) < 24 * 1024, f"{resident_kib(process.pid)} KiB resident")
    finally:
        process.kill()
        process.communicate()


@test
def closed_standard_streams():
    done = subprocess.run(["sh", "-c", f'"$0" run -k {MICRO}/hello.elf <&- >&-', SNUG], stderr=subprocess.PIPE, timeout=BOUND)
    check(done.returncode == 0, f"status {done.returncode}", done.stderr)
    done = subprocess.run(["sh", "-c", f'"$0" run -k {MICRO}/hello.elf <&- >&- 2>&-', SNUG], timeout=BOUND)
    check(done.returncode == 0, f"status {done.returncode}")


@test
def console_to_a_full_disk_is_survived_and_said():
    ended = micro("hello", "--console", "file:/dev/full").expect(0)
    check("No space left" in ended.err, "nothing is said", ended.err)


@test
@unrecorded()
def loading_a_large_elf_is_cheap():
    def cpu_ms(kernel, *flags):
        return min(micro(kernel, "--stats", *flags).expect(0).stat("cpu_before_first_run") for _ in range(7))

    mapped, copied, small = cpu_ms("padded"), cpu_ms("padded", "--kernel-cache", "false"), cpu_ms("hello")
    print("    CPU time before the first KVM_RUN, best of 7, 18 MiB ELF, 13 MiB of it loaded:"
          f" {mapped:.2f} ms (budget 3 ms), {copied:.2f} ms without the kernel cache, {small:.2f} ms with a 20 KiB ELF")
    # Bounds with room for a busy machine, which takes longer for nothing as well: a second copy of the image, or one fault for
    # each page, breaks them.
    check(copied < 12 * max(1, small / 4.5), f"{copied} ms, {small} ms for next to nothing")
    check(mapped < small + 1.5, f"{mapped} ms mapped, {small} ms for next to nothing: something is copied")


hostile.add_cases()
main("guest-run")
