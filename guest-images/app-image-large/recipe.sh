# shellcheck shell=bash disable=SC2034,SC2154
about="a container image of about 300 MB, unpacked, of compilers and libraries of Debian's, in an OCI layout: for tools/bench image"
from_release=bookworm
packages=(busybox-static libllvm14 gcc-12 cpp-12 g++-12 libicu72 libpython3.11-stdlib perl-modules-5.36)
shared=(app-images/layers.py)

# In the folder: layout, with the tag large.
make_image() {
  command -v python3 >/dev/null || die "images are put together by python3; run: sudo apt-get install python3"
  unpack_package busybox-static "$work/base"
  local package
  for package in "${packages[@]:1}"; do unpack_package "$package" "$work/large"; done
  python3 -B "$guest_images/app-images/layers.py" "$work" "$1/layout" || die "could not put the image together"
}
