"""Kernels at random addresses: as the guest's root sees them."""
from guests import *  # noqa: F403

LINKED = 0xffffffff81000000


def base_of(kernel, *flags):
    """Virtual address of the kernel's first byte, physical address of its code."""
    ended = guest(kernel, *flags, command="grep -m1 -w _text /proc/kallsyms; grep Kernel.code /proc/iomem").expect(0)
    lines = marked(ended)
    virtual = re.search(r"^([0-9a-f]{16}) . _text$", lines, re.M)
    physical = re.search(r"([0-9a-f]+)-[0-9a-f]+ : Kernel code", lines)
    check(virtual and physical, "the guest does not say where its kernel lies", lines)
    return int(virtual.group(1), 16), int(physical.group(1), 16)


@test
@exhaustive
def kaslr_stock_kernel_lies_elsewhere_at_each_boot():
    first, second = base_of(STOCK), base_of(STOCK)
    if first[0] == second[0]:
        second = base_of(STOCK)  # one time in 479 two are the same by chance
    print(f"    kernel bases: {first[0]:x} and {second[0]:x}, in memory at {first[1]:x} and {second[1]:x}")
    check(first[0] != second[0], "three boots, one address")
    for virtual, physical in (first, second):
        check(virtual % (2 << 20) == 0 and LINKED <= virtual < 0xffffffffc0000000, f"{virtual:x} is no place for a kernel")
        check(physical % (2 << 20) == 0 and physical >= 16 << 20, f"{physical:x} is no place in memory for a kernel")


@test
def kaslr_of_a_kept_kernel():
    bzimage = f"{TINY_FOLDER}/bzImage"
    bases = [base_of(bzimage)[0] for _ in range(2)]
    if bases[0] == bases[1]:
        bases.append(base_of(bzimage)[0])
    check(len(set(bases)) > 1, "three boots of a kernel kept in the cache, one address", bases)


@test
@exhaustive
def kaslr_off_by_the_spec_and_by_the_command_line():
    bzimage = f"{TINY_FOLDER}/bzImage"
    check(base_of(bzimage, "--kaslr", "false") == (LINKED, 16 << 20), "moved in spite of kaslr: false")
    check(base_of(bzimage, "--cmdline", "nokaslr") == (LINKED, 16 << 20), "moved in spite of nokaslr")
