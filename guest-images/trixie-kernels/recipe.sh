# shellcheck shell=bash disable=SC2034,SC2154
about="Debian 13's kernels, on any release: cloud and general (vmlinuz-cloud, vmlinuz-general, and the release of each)"
from_release=trixie
packages=(linux-image-cloud-amd64 linux-image-amd64)

make_image() {
  local kind package
  need_space 700
  for kind in cloud general; do
    package=linux-image-cloud-amd64
    [[ $kind != general ]] || package=linux-image-amd64
    unpack_kernel "$package" "$work/$kind"
    mv "$work/$kind/boot/vmlinuz-$release" "$1/vmlinuz-$kind"
    printf '%s\n' "$release" >"$1/release-$kind"
    rm -rf "${work:?}/$kind"
  done
}
