# shellcheck shell=bash disable=SC2034,SC2154
about="fio with its libraries, an initrd to be loaded behind the first (4 MB)"
needs=(image)
packages=(fio libaio1 libc6 zlib1g)
shared=(lib/initrd.sh lib/stand_in.sh)
result=initrd

# Debian's fio is linked with the client libraries of network storage, 60 MB that no test of a disk ever calls.
make_image() {
  local package
  for package in "${packages[@]}"; do unpack_package "$package" "$work/unpacked"; done
  program_tree usr/bin/fio "$work/tree"
  write_initrd "$work/tree" "$1/initrd"
}
