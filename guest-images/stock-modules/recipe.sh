# shellcheck shell=bash disable=SC2034,SC2154
about="the modules that stock-kernel needs for snug's devices, as an archive to load behind the initrd"
needs=(image)
packages=(linux-image-cloud-amd64)
shared=(lib/initrd.sh)
result=initrd

# What each device needs, by its PCI id; "any" is for every machine. The initrd's init reads the lists.
declare -gA drivers=(
  [any]="button evdev"
  [0x1041]="virtio_pci virtio_net"
  [0x1042]="virtio_pci virtio_blk"
  [0x1043]="virtio_pci virtio_console"
  [0x1044]="virtio_pci virtio_rng"
  [0x1045]="virtio_pci virtio_balloon"
  [0x1053]="virtio_pci vmw_vsock_virtio_transport"
  [0x105a]="virtio_pci virtiofs overlay"
)

# In the archive: modules/NAME.ko and modules/ID.list with the names to load, in order.
make_image() {
  local tree=$work/tree root=$work/unpacked id name file
  unpack_kernel linux-image-cloud-amd64 "$root"
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
  write_initrd "$tree" "$1/initrd"
}
