# shellcheck shell=bash disable=SC2154
# Pieces that recipes of modules share (they name this file in `shared`).

# write_modules PACKAGE FOLDER: FOLDER/initrd has the modules of a kernel that `drivers` asks for: modules/NAME.ko and
# modules/ID.list with the names to load, in order.
write_modules() {
  local tree=$work/tree root=$work/unpacked id name file
  unpack_kernel "$1" "$root"
  mkdir -p "$tree/modules" "$root/lib/modules"
  [[ ! -d $root/usr/lib/modules ]] || mv "$root"/usr/lib/modules/* "$root/lib/modules/"
  PATH=$PATH:/usr/sbin:/sbin
  depmod -b "$root" "$release"
  for id in "${!drivers[@]}"; do
    : >"$tree/modules/$id.list"
    for name in ${drivers[$id]}; do
      modprobe -S "$release" -d "$root" -D "$name" >"$work/order" || die "the kernel package has no module $name"
      while read -r file; do
        name=$(basename "${file%%.ko*}")
        grep -qx "$name" "$tree/modules/$id.list" || echo "$name" >>"$tree/modules/$id.list"
        case $file in
          *.ko) cp "$file" "$tree/modules/$name.ko" ;;
          *.ko.xz) xz -dc "$file" >"$tree/modules/$name.ko" ;;
          *.ko.zst) zstd -qdc "$file" >"$tree/modules/$name.ko" ;;
          *) die "no idea how to unpack $file" ;;
        esac
      done < <(awk '$1 == "insmod" { print $2 }' "$work/order")
    done
  done
  strip --strip-debug "$tree"/modules/*.ko
  write_initrd "$tree" "$2/initrd"
}
