"""snug under a service manager: what it tells systemd, on micro-guests."""
import contextlib
import socket
import struct

from harness import *  # noqa: F403

MICRO = os.environ["SNUG_IMAGE_MICRO"]


@contextlib.contextmanager
def managed(address, *arguments):
    """A machine whose service manager listens at `address`: the process, and a function for the next message."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skip("no usable /dev/kvm")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0", 1))
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.settimeout(BOUND)
        process = subprocess.Popen([SNUG, "run", "-k", MICRO + "/spin.elf", "--console", "none", *arguments],
                                   env={**os.environ, "NOTIFY_SOCKET": address}, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        def message():
            said, [(_, _, sender)], *_ = manager.recvmsg(4096, socket.CMSG_SPACE(struct.calcsize("3i")))
            # systemd listens to no other process than the one that it has started (NotifyAccess=main).
            check(struct.unpack("3i", sender)[0] == process.pid, "said by another process", said)
            return dict(line.split("=", 1) for line in said.decode().splitlines())

        try:
            yield process, message
        finally:
            process.kill()
            process.communicate()


@test
def a_service_manager_hears_when_the_guest_runs_and_ends():
    with tempfile.TemporaryDirectory() as folder:
        for address in (folder + "/notify", f"@snug-test-{os.getpid()}"):
            for grace, seconds in (("1s", 6), ("none", 24 * 3600 + 5)):
                with managed(address, "--name", f"svc-{os.getpid()}", "--grace-period", grace) as (process, message):
                    said = message()
                    check(said.get("READY") == "1" and f"svc-{os.getpid()}" in said["STATUS"], "not said that it runs", said)
                    process.send_signal(signal.SIGTERM)
                    said = message()
                    check(said.get("STOPPING") == "1", "not said that it ends", said)
                    check(said.get("EXTEND_TIMEOUT_USEC") == str(seconds * 1000000), "not the time that it may take", said)
                    if grace != "none":
                        _, err = process.communicate(timeout=BOUND)
                        check(process.returncode == 143, f"status {process.returncode}", err)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(address)


@test
def a_service_manager_that_is_gone_is_no_problem():
    for address in ("/nonexistent/notify", "relative", "@" + "x" * 200, ""):
        done = subprocess.run([SNUG, "run", "-k", MICRO + "/hello.elf", "--console", "none"], stdin=subprocess.DEVNULL,
                              env={**os.environ, "NOTIFY_SOCKET": address}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=BOUND)
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            raise Skip("no usable /dev/kvm")
        check(done.returncode == 0, f"status {done.returncode} with {address!r}", done.stderr)
