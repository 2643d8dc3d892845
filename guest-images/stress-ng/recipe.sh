# shellcheck shell=bash disable=SC2034,SC2154
about="stress-ng with its libraries, an initrd to be loaded behind the first (6 MB)"
needs=(image)
packages=(stress-ng libbsd0 libmd0 libcrypt1 libxxhash0 zlib1g libc6)
shared=(lib/initrd.sh lib/stand_in.sh)
result=initrd

# Debian's stress-ng is linked with what draws on screens, too.
make_image() {
  local package
  for package in "${packages[@]}"; do unpack_package "$package" "$work/unpacked"; done
  program_tree usr/bin/stress-ng "$work/tree"
  write_initrd "$work/tree" "$1/initrd"
}
