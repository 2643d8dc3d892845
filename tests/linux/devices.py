"""The small devices: clock, PCI root, entropy."""
from guests import *  # noqa: F403


@test
def clock_is_right():
    before = time.time()
    text = marked(guest(TINY, command="date +%s; hwclock -u -r 2>/dev/null; cat /sys/class/rtc/rtc0/since_epoch").expect(0))
    lines = text.split()
    check(before - 2 <= int(lines[0]) <= time.time() + 2, "the guest's time is off", text)
    check(before - 2 <= int(lines[-1]) <= time.time() + 2, "the RTC's time is off", text)


@test
def pci_host_bridge_alone():
    text = marked(guest(TINY, "--rng", "false", "--balloon", "none", command="ls /sys/bus/pci/devices; cat /sys/bus/pci/devices/*/class").expect(0))
    check(text.split() == ["0001:00:00.0", "0x060000"], "PCI devices are not just the host bridge", text)


@test
def pci_by_ports():
    text = marked(guest(TINY, "--pci", "ports", command="cat /sys/class/misc/hw_random/rng_current; ls /sys/bus/pci/devices").expect(0))
    check(text.split()[:2] == ["virtio_rng.0", "0000:00:00.0"], "no devices by ports", text)


@test
def rng_gives_random_bytes():
    text = marked(guest(TINY, "--cmdline", "quiet", command="cat /sys/class/misc/hw_random/rng_current; for i in 1 2; do "
                        "dd if=/dev/hwrng bs=512 count=20 2>/dev/null | md5sum; done; "
                        "dd if=/dev/hwrng bs=512 count=20 2>/dev/null | wc -c").expect(0))
    name, first, _, second, _, size = text.split()
    check(name.startswith("virtio_rng") and size == "10240" and first != second, "not 10240 random bytes", text)
