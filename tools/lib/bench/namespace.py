"""A network of this run's own, in which guests, passt and their peers are; nothing of it is left afterwards.

A network namespace has a tap interface for a guest (address 10.99.0.1) and a way out that leads nowhere, which passt
wants to see. It needs root or unprivileged user namespaces.
"""
import contextlib
import os
import subprocess
import sys

TAP, TAP_HOST, TAP_GUEST = "snugbench1", "10.99.0.1", "10.99.0.2"
UP_HOST, UP_GATEWAY = "192.0.2.2", "192.0.2.1"

# Holds the way out open, so that it has a carrier, until its own input ends.
HOLDER = f"""
import fcntl, os, struct, subprocess, sys
up = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(up, 0x400454ca, struct.pack("16sH22x", b"uplink0", 0x1002))  # TUNSETIFF: IFF_TAP, IFF_NO_PI
for words in ("link set lo up", "addr add {UP_HOST}/24 dev uplink0", "link set uplink0 up",
              "route add default via {UP_GATEWAY}", "tuntap add dev {TAP} mode tap", "addr add {TAP_HOST}/24 dev {TAP}",
              "link set {TAP} up"):
    subprocess.run(["ip", *words.split()], check=True)
print("ready", flush=True)
sys.stdin.read()
"""


class Namespace:
    """`reason`: why there is none, or None. `prefix`: words in front of a command that runs in it."""

    def __init__(self):
        self.reason = None
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        try:
            self.holder = subprocess.Popen(["unshare", *user, "--net", sys.executable, "-c", HOLDER], stdin=subprocess.PIPE,
                                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as problem:
            self.holder, self.reason = None, f"no network namespace: {problem}"
            return
        if self.holder.stdout.readline() != b"ready\n":
            said = self.holder.stderr.read().decode("utf-8", "replace").strip().splitlines()
            self.reason = "no network namespace: " + (said[-1] if said else "it could not be made")
        self.prefix = ["nsenter", "--target", str(self.holder.pid), "--net",
                       *(["--user", "--preserve-credentials"] if user else [])]

    @contextlib.contextmanager
    def serving(self, *command):
        """A peer of one guest. The next guest wants another: one that a guest left in the middle may wait for it still."""
        # Quiet: what a server says of a guest that was given up, that guest has said before.
        server = subprocess.Popen([*self.prefix, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            server.kill()
            server.wait()

    def close(self):
        if self.holder:
            self.holder.stdin.close()
            self.holder.wait()
            self.holder.stdout.close()
            self.holder.stderr.close()
