# shellcheck shell=bash disable=SC2034,SC2154
about="the modules that stock-kernel needs for snug's devices, as an archive to load behind the initrd"
needs=(image)
packages=(linux-image-cloud-amd64)
shared=(lib/initrd.sh lib/modules.sh)
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
  [0x105b]="virtio_pci virtio_pmem nd_pmem erofs overlay"
  [root]="erofs overlay"  # on a disk, of a container image
  [storage]="ext4"  # what is kept of it
)

make_image() { write_modules linux-image-cloud-amd64 "$1"; }
