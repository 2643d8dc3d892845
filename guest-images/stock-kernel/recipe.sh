# shellcheck shell=bash disable=SC2034,SC2154
about="Debian's cloud kernel: vmlinuz, config, version"
packages=(linux-image-cloud-amd64)
result=vmlinuz

make_image() {
  unpack_kernel linux-image-cloud-amd64 "$work/unpacked"
  mv "$work/unpacked/boot/vmlinuz-$release" "$1/vmlinuz"
  mv "$work/unpacked/boot/config-$release" "$1/config"
  debian_version linux-image-cloud-amd64 >"$1/version"
}
