"""Kernels of every form, their processors and memory, what they are given to boot."""
from guests import *  # noqa: F403


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


def boots(kernel):
    def run():
        # <N>: the level; 4 is a warning, lower is worse.
        text = marked(guest(kernel, "--cmdline", "quiet", command="dmesg -r | wc -l; dmesg -r | grep '^<[0-4]>' || true")
                      .expect(0))
        check(int(text.split()[0]) > 100, "the kernel's log is not there", text)
        # Of the processor that the lab emulates, which says that it can more than its firmware does.
        bad = [line for line in text.splitlines() if "amd_pstate" not in line
               if re.search(r"ACPI|DSDT|FADT|MADT|MCFG|RSDP|XSDT|PCI|pci|8250|ttyS|serial|rtc|RTC|i8042|pvpanic|e820|"
                             r"BIOS|firmware|Firmware|APIC|apic|irq|IRQ|MTRR|PAT", line)]
        check(not bad, "dmesg warns about our tables or devices:", "\n".join(bad))
    return run


for kernel_name, kernel_path in KERNELS.items():
    add("boot_" + kernel_name, boots(kernel_path))


def boots_trixie(kind):
    def run():
        if not TRIXIE:
            raise Skip("SNUG_IMAGE_TRIXIE does not say where the kernels are")
        boots(f"{TRIXIE}/vmlinuz-{kind}")()
    return run


# The next release's, whatever this machine is.
for kernel_kind in ("cloud", "general"):
    add("boot_trixie_" + kernel_kind, boots_trixie(kernel_kind), is_exhaustive=kernel_kind == "general")


def online(cpus):
    def run():
        text = marked(guest(TINY, "--cpus", str(cpus), command="nproc; cat /sys/devices/system/cpu/online; "
                            "grep -c ^processor /proc/cpuinfo; grep 'core id' /proc/cpuinfo").expect(0))
        words = text.split("\n")
        check(words[0] == str(cpus) and words[2] == str(cpus), f"not all of {cpus} vCPUs are online", text)
        check(len(set(re.findall(r"core id\s*: (\d+)", text))) == cpus, "core ids are not all different", text)
    return run


for count in (1, 2, 4):
    add(f"cpus_{count}", online(count), is_exhaustive=count != 4)


@test
@exhaustive
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
    add(f"memory_{memory_size}", memory(memory_size, memory_mib), is_exhaustive=memory_size == "512M")


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
