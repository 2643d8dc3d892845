# shellcheck shell=bash disable=SC2034,SC2154
about="modules of stock-kernel-full for folders of the host (virtiofs, 9p) and a disk with ext4, as an archive"
needs=(image)
packages=(linux-image-amd64)
shared=(lib/initrd.sh lib/modules.sh)
result=initrd

# As in stock-modules, for tools/bench: Debian's cloud kernel has no 9P.
declare -gA drivers=(
  [0x1042]="virtio_pci virtio_blk ext4"
  [0x1049]="virtio_pci 9p 9pnet_virtio"
  [0x105a]="virtio_pci virtiofs"
)

make_image() { write_modules linux-image-amd64 "$1"; }
