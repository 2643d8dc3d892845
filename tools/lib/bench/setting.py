"""What every table is measured with: files in RAM, a tap interface, the monitors, how often."""
import os
import shutil
import subprocess
import tempfile
import time

from bench import monitors

DISK_MIB = 64


class Setting:
    """`quick`: fewer runs and cases. `icount`: CPU times are instruction counts (tools/lab --icount)."""

    def __init__(self, snug, images, quick, icount):
        self.quick = quick
        self.images = images
        self.icount = icount
        self.runs = 1 if quick else 3
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.mkdtemp(prefix="snug-bench.", dir=base)
        self.snug = self._copied(snug, "snug")
        tiny = os.path.dirname(images["TINY"])
        self.kernels = {"ELF": self._copied(images["TINY"], "vmlinux"),
                        "bzImage": self._copied(f"{tiny}/bzImage", "bzImage"),
                        "Debian bzImage": self._copied(images["STOCK"], "debian-bzImage")}
        self.lean = self._copied(images["INITRD_LEAN"], "lean")  # resets at once
        self.initrd = self._copied(images["INITRD"], "initrd")   # says that it is ready, then waits
        time.sleep(3)  # snug's cache does not keep a kernel that was changed within the last two seconds
        self.disk = os.path.join(self.folder, "disk")
        with open(self.disk, "wb") as file:
            file.truncate(DISK_MIB << 20)
        self.warm = set()  # monitors whose program has run
        self.environment = dict(os.environ, XDG_CACHE_HOME=os.path.join(self.folder, "cache"),
                                SNUG_TEMPLATE="false",  # what begins with one says so
                                XDG_RUNTIME_DIR=self.folder)  # not /tmp/snug-UID, which may be another user's in the lab
        self.qemu_cpu = "host"
        if icount:
            self._no_unasked_huge_pages()
            subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], stderr=subprocess.DEVNULL, check=False)
        self.tap, self.tap_reason = self._make_tap("snugbench0")
        self.monitors = [kind(self) for kind in monitors.ALL]

    def path(self, name):
        return os.path.join(self.folder, name)

    def file(self, name, make):
        """A file of this run that make(path) has written."""
        make(self.path(name))
        return self.path(name)

    def full_disk(self, mib):
        """A disk without holes: reading those would cost nothing."""
        path = self.path("full-disk")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                for _ in range(mib):
                    file.write(b"snug" * (1 << 18))
        return path

    def _copied(self, path, name):
        copy = os.path.join(self.folder, name)
        shutil.copy(path, copy)
        return copy

    @staticmethod
    def _no_unasked_huge_pages():
        """Whether a thread's stack lies so that 2 MiB of it become one page is chance. The lab belongs to this run."""
        with open("/sys/kernel/mm/transparent_hugepage/enabled", "w") as file:
            file.write("madvise")

    def _make_tap(self, name):
        for command in (["ip", "tuntap", "add", name, "mode", "tap"], ["ip", "link", "set", name, "up"]):
            try:
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            except OSError as problem:
                return None, f"no tap interface: {problem}"
            if done.returncode != 0:
                return None, f"no tap interface: {done.stdout.decode().strip()}"
        return name, ""

    def method(self, text):
        return f"{text}; in the lab, 1 instruction = 1 ns" if self.icount else text

    def snug_monitor(self):
        return self.monitors[0]

    def close(self):
        if self.tap:
            subprocess.run(["ip", "tuntap", "del", self.tap, "mode", "tap"], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
