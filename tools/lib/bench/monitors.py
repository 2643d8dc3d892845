"""The monitors, and how each is told to run the same guest."""
import json
import os
import shutil
import subprocess


class GuestSpec:
    """What is run: files, sizes, devices. `ends`: the guest resets by itself; otherwise it waits at a shell."""

    def __init__(self, kernel, initrd, cpus=1, memory_mib=128, disk=None, tap=None, rng=False, ends=True,
                 words="quiet", extra=(), more=()):
        self.kernel = kernel  # a key of Setting.kernels
        self.initrd = initrd
        self.cpus = cpus
        self.memory_mib = memory_mib
        self.disk = disk
        self.tap = tap
        self.rng = rng
        self.ends = ends
        self.words = words
        self.extra = list(extra)  # flags of snug's own
        self.more = list(more)    # flags of QEMU's own
        self.drive = self.disk_device = ""  # what QEMU's disk is told besides

    def changed(self, **changes):
        copy = GuestSpec(None, None)
        copy.__dict__.update(self.__dict__, **changes)
        return copy

    def devices(self):
        return [name for name, there in (("disk", self.disk), ("NIC", self.tap), ("rng", self.rng)) if there]

    def case(self):
        cpus = f"{self.cpus} vCPU{'s' if self.cpus > 1 else ''}"
        memory = f"{self.memory_mib // 1024} GiB" if self.memory_mib % 1024 == 0 else f"{self.memory_mib} MiB"
        return f"{self.kernel}, {cpus}, {memory}, {' + '.join(self.devices()) or 'serial only'}"


class Monitor:
    name = ""
    program = ""
    kernels = ("ELF", "bzImage", "Debian bzImage", "Debian full bzImage")

    def __init__(self, setting):
        self.setting = setting

    def missing_program(self):
        return None if shutil.which(self.program) else f"{self.program} is not on PATH"

    def missing(self, guest):
        """Why this guest cannot be run by it here, or None."""
        if self.missing_program():
            return self.missing_program()
        if guest.kernel not in self.kernels:
            return f"{self.name} does not boot this kind of kernel ({guest.kernel})"
        return None

    def version(self):
        return ""

    def kernel_file(self, guest):
        return self.setting.kernels[guest.kernel]

    def words(self, guest, reset):
        """The kernel's command line; `reset`: its reboot method that ends this monitor."""
        line = f"console=ttyS0 panic=-1 {guest.words} reboot={reset}"
        return line + " -- reset" if guest.ends else line


class Snug(Monitor):
    name = "snug"

    def missing(self, guest):
        return None

    def version(self):
        return _first_line([self.setting.snug, "--version"])

    def command(self, guest):
        words = [self.setting.snug, "run", "--kernel", self.kernel_file(guest), "--initrd", guest.initrd,
                 "--cpus", str(guest.cpus), "--memory", f"{guest.memory_mib}M", "--on-reboot", "exit", "--stats",
                 "--rng", "true" if guest.rng else "false", "--balloon", "none"]
        # Its own console words come first already.
        words += ["--cmdline", self.words(guest, "k").replace("console=ttyS0 panic=-1 ", "")]
        if guest.disk:
            words += ["--disk", guest.disk]
        if guest.tap:
            words += ["--net", f"tap,tap={guest.tap}"]
        return words + guest.extra


class Qemu(Monitor):
    program = "qemu-system-x86_64"

    def version(self):
        return _first_line([self.program, "--version"])

    def machine(self, guest):
        raise NotImplementedError

    def command(self, guest):
        machine, reset = self.machine(guest)
        words = [self.program, "-M", machine, "-accel", "kvm", "-cpu", self.setting.qemu_cpu, "-smp", str(guest.cpus),
                 "-m", f"{guest.memory_mib}M", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                 "-serial", "stdio", "-kernel", self.kernel_file(guest), "-initrd", guest.initrd,
                 "-append", self.words(guest, reset)]
        if guest.disk:
            words += ["-drive", f"id=d,file={guest.disk},format=raw,if=none" + guest.drive, "-device",
                      "virtio-blk-pci,drive=d" + guest.disk_device]
        words += guest.more
        if guest.tap:
            words += ["-netdev", f"tap,id=n,ifname={guest.tap},script=no,downscript=no", "-device",
                      "virtio-net-pci,netdev=n,romfile="]
        if guest.rng:
            words += ["-device", "virtio-rng-pci"]
        return words


class QemuMicrovm(Qemu):
    name = "QEMU microvm"

    def machine(self, guest):
        # Its quickest forms. Without ACPI where nothing needs it: several CPUs and PCI are found through ACPI only. With
        # a clock chip, which it leaves out under KVM: Linux looks for one and spins for 1.2 s where there is none.
        if guest.devices() or guest.cpus > 1 or guest.kernel == "Debian bzImage":
            return "microvm,pcie=on,rtc=on", "t"
        return "microvm,acpi=off,rtc=on", "t"


class QemuQ35(Qemu):
    name = "QEMU q35"

    def machine(self, guest):
        return "q35", "k"


class Kvmtool(Monitor):
    name = "kvmtool"
    program = "lkvm"
    kernels = ("bzImage",)

    def version(self):
        return _first_line([self.program, "--version"])

    def command(self, guest):
        words = [self.program, "run", "--kernel", self.kernel_file(guest), "--initrd", guest.initrd, "--cpus",
                 str(guest.cpus), "--mem", str(guest.memory_mib), "--console", "serial", "--params",
                 self.words(guest, "k")]
        if guest.disk:
            words += ["--disk", guest.disk]
        words += ["--network", f"mode=tap,tapif={guest.tap}" if guest.tap else "mode=none"]
        return words + (["--rng"] if guest.rng else [])


class Firecracker(Monitor):
    name = "Firecracker"
    program = "firecracker"

    def version(self):
        return _first_line([self.program, "--version"])

    def command(self, guest):
        config = {
            "boot-source": {"kernel_image_path": self.kernel_file(guest), "initrd_path": guest.initrd,
                            "boot_args": self.words(guest, "k")},
            "machine-config": {"vcpu_count": guest.cpus, "mem_size_mib": guest.memory_mib},
            "drives": [{"drive_id": "d", "path_on_host": guest.disk, "is_root_device": False,
                        "is_read_only": False}] if guest.disk else [],
            "network-interfaces": [{"iface_id": "n", "host_dev_name": guest.tap}] if guest.tap else [],
        }
        if guest.rng:
            config["entropy"] = {}
        path = os.path.join(self.setting.folder, "firecracker.json")
        with open(path, "w") as file:
            json.dump(config, file)
        return [self.program, "--no-api", "--config-file", path]


class CloudHypervisor(Monitor):
    name = "Cloud Hypervisor"
    program = "cloud-hypervisor"

    def version(self):
        return _first_line([self.program, "--version"])

    def command(self, guest):
        words = [self.program, "--kernel", self.kernel_file(guest), "--initramfs", guest.initrd, "--cpus",
                 f"boot={guest.cpus}", "--memory", f"size={guest.memory_mib}M", "--serial", "tty", "--console", "off",
                 "--cmdline", self.words(guest, "t")]
        if guest.disk:
            words += ["--disk", f"path={guest.disk}"]
        if guest.tap:
            words += ["--net", f"tap={guest.tap}"]
        return words


ALL = (Snug, QemuMicrovm, QemuQ35, Kvmtool, Firecracker, CloudHypervisor)


def _first_line(command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except OSError:
        return ""
    return done.stdout.decode("utf-8", "replace").partition("\n")[0].strip()
