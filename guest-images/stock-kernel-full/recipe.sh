# shellcheck shell=bash disable=SC2034,SC2154
about="Debian's general kernel with its modules (the lab runs on it)"
needs=(image)
packages=(linux-image-amd64)
result=vmlinuz

# Beside vmlinuz: `release` holds its release R, and `modules/` is a tree for `modprobe -S R -d modules`.
make_image() {
  need_space 700
  unpack_kernel linux-image-amd64 "$work/unpacked"
  mv "$work/unpacked/boot/vmlinuz-$release" "$1/vmlinuz"
  mv "$work/unpacked/boot/config-$release" "$1/config"
  debian_version linux-image-amd64 >"$1/version"
  printf '%s\n' "$release" >"$1/release"
  mkdir -p "$1/modules/lib/modules"
  local tree
  for tree in "$work/unpacked"{/usr,}/lib/modules/"$release"; do
    [[ ! -d $tree ]] || mv "$tree" "$1/modules/lib/modules/"
  done
  rm -f "$1/modules/lib/modules/$release"/{build,source}
  PATH=$PATH:/usr/sbin:/sbin depmod -b "$1/modules" "$release"
}
