"""The serial console: terminals, pipes, files."""
from guests import *  # noqa: F403


@test
def console_interactive():
    with Terminal("run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet") as terminal:
        terminal.wait_for(b"snug-initrd: ready")
        terminal.wait_for(b"# ")
        terminal.expect_raw()
        terminal.type(b"echo $((6*7))-typed\r", until=b"42-typed")
        terminal.type(b"\x01h", until=b"Ctrl-A x")
        # The shell's line editor reads ahead: what is meant for cat is typed when the editor is done.
        terminal.type(b"echo $((7*7))-next; cat -v\r", until=b"49-next")
        # The echo of the guest's terminal, then what cat has read; the host's terminal adds a \r to each line.
        terminal.type(b"\x01\x01\r", until=b"^A\r\r\n^A\r\r\n")
        terminal.type(b"\x01x")
        terminal.expect_end(0)


@test
def console_terminal_restored_after_signals():
    for number in (signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV, signal.SIGTERM):
        with Terminal("run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet", "--grace-period", "1ms") as terminal:
            terminal.wait_for(b"snug-initrd: ready")
            held = hold(terminal.process.pid)
            terminal.process.send_signal(number)
            terminal.expect_end(128 + number)
            check_gone(held)


@test
def console_ten_megabytes_pasted():
    """The guest reads slowly; the paste waits outside, and the monitor does not grow."""
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet",
                                *on_console("stty raw -echo; echo ready; head -c 5000 | md5sum; echo; sleep 3600")],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        import threading
        data = bytes(32 + i % 90 for i in range(10 << 20))
        expected = hashlib.md5(data[:5000]).hexdigest().encode()

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
        read_until(b"  -", "the guest did not get its 5000 bytes")
        check(expected in seen, "what arrived is not what was sent", seen)
        # All but what the guest took waits in the pipe: the writer is still held back.
        check(thread.is_alive(), "10 MB went somewhere: input is not flow-controlled")
        growth = monitor_kib(process.pid)
        check(growth < 16 * 1024, f"the monitor holds {growth} KiB beyond guest memory (started at {before})")
    finally:
        process.kill()
        process.communicate()


@test
def console_stalled_reader_does_not_stop_the_guest():
    read_end, write_end = os.pipe()
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet", "--timeout",
                                "300s", *on_console("i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done; exit 5")],
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
    process = subprocess.Popen([SNUG, "run", "--kernel", TINY, "--initrd", INITRD, "--cmdline", "quiet",
                                *on_console("echo hello; exit 5")], stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    _, err = process.communicate(timeout=BOUND)
    ended = Ended(process.returncode, b"", err).expect(5)
    check("Broken pipe" in ended.err, "nothing is said of the closed stdout", ended.err)


@test
@exhaustive
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
