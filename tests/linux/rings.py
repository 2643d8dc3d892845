"""The transport of virtio devices: both layouts of queues, queues reset alone, drivers that leave and return under
load, guests without MSI-X."""
from guests import *  # noqa: F403
from network import need_uplink

HERE = os.path.dirname(__file__)


def guest_with_devices(*flags, script):
    """A disk, a network interface and entropy. The lines that the script prints, those of works(), all of it."""
    need_uplink()
    with tempfile.TemporaryDirectory() as folder:
        disk = folder + "/disk.img"
        with open(disk, "wb") as file:
            file.write(os.urandom(4 << 20))
        subprocess.run(["gcc", "-static", "-O1", "-o", folder + "/ring_size", HERE + "/ring_size.c"], check=True)
        more = small_initrd(folder, {"bin/ring-size": folder + "/ring_size", "etc/rings.sh": HERE + "/rings.sh"})
        ended = guest(TINY, "--initrd", more, "--disk", disk, "--net", "user", "--balloon", "none", *flags, command=". /etc/rings.sh; " + script)
        working = [checksum(disk), "2048", "address"]
    return marked(ended.expect(0)).splitlines(), working, ended


def both_ways(packed):
    lines, working, ended = guest_with_devices(
        "--cmdline", "quiet", "--packed-rings", "true" if packed else "false",
        script="features; works; for n in 64 256; do ring-size eth0 $n; works; done; rebind_under_load 3; works; complaints")
    wanted = ["11" if packed else "01"] * 3 + working
    for size in (64, 256):
        wanted += [f"rx {size} tx {size}", *working]
    check(lines == wanted + working, "not what was expected", lines, wanted + working, ended.err)
    check("broke the rules" not in ended.err, "snug complains of Linux's driver", ended.err)


@test
def virtio_packed_rings_resized_and_rebound_under_load():
    both_ways(packed=True)


@test
def virtio_split_rings_resized_and_rebound_under_load():
    both_ways(packed=False)


@test
def virtio_without_message_interrupts():
    lines, working, ended = guest_with_devices("--cmdline", "quiet pci=nomsi", script=(
        "works; rebind_under_load 1; works; grep -c PCI-MSI /proc/interrupts; grep virtio /proc/interrupts; complaints"))
    check(lines[:7] == [*working, *working, "0"], "not what was expected", lines, working, ended.err)
    check(len(lines) > 7 and all("IO-APIC" in line for line in lines[7:]), "not a line of the I/O APIC", lines)
