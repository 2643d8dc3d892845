# shellcheck shell=bash disable=SC2034,SC2154
about="what tools/lab boots: stock-kernel-full and an initrd that gets it onto this machine's files"
needs=(image)
depends=(stock-kernel-full initrd)
shared=(lib/initrd.sh lib/lab.sh)

# In the folder: vmlinuz, initrd, modules.
make_image() {
  local kernel=${built[stock-kernel-full]%/*}
  ln -s "../${kernel#"$images/"}/vmlinuz" "$1/vmlinuz"
  ln -s "../${kernel#"$images/"}/modules" "$1/modules"
  lab_tree "$work/tree" "$guest_images/lab/files" virtio_pci virtio_console 9pnet_virtio "${lab_modules[@]}" kvm_amd
  write_initrd "$work/tree" "$1/initrd"
}
