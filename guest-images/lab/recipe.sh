# shellcheck shell=bash disable=SC2034,SC2154
about="what tools/lab boots: stock-kernel-full and an initrd that gets it onto this machine's files"
needs=(image)
depends=(stock-kernel-full initrd)
shared=(lib/initrd.sh)

# What the lab's kernel needs before it can see a file system, and what jobs are likely to want. Anything else can
# be loaded with modprobe in the lab.
modules=(virtio_pci virtio_console 9pnet_virtio 9p overlay kvm_amd tun vhost_net vhost_vsock)

# In the folder: vmlinuz, initrd, modules.
make_image() {
  local kernel=${built[stock-kernel-full]%/*} tree=$work/tree release module file number=0
  read -r release <"$kernel/release"
  ln -s "../${kernel#"$images/"}/vmlinuz" "$1/vmlinuz"
  ln -s "../${kernel#"$images/"}/modules" "$1/modules"

  mkdir -p "$tree"/{bin,dev,lower,modules,new,proc,sys,upper}
  install -m 755 "${built[initrd]%/*}/busybox" "$tree/bin/busybox"
  local applet
  for applet in sh mount mkdir insmod chroot chmod ln ifconfig hostname poweroff; do
    ln -s busybox "$tree/bin/$applet"
  done
  install -m 755 "$guest_images/lab/init" "$tree/init"

  # In loading order, each module once, under names that sort that way.
  for module in "${modules[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin modprobe -S "$release" -d "$kernel/modules" -D "$module" >>"$work/order" ||
      die "the kernel package has no module $module"
  done
  while read -r file; do
    number=$((number + 1))
    module=$tree/modules/$(printf '%02d' "$number")-$(basename "${file%%.ko*}").ko
    case $file in
      *.ko) cp "$file" "$module" ;;
      *.ko.xz) xz -dc "$file" >"$module" ;;
      *.ko.zst) zstd -qdc "$file" >"$module" ;;
      *) die "no idea how to unpack $file" ;;
    esac
  done < <(awk '$1 == "insmod" && !seen[$2]++ { print $2 }' "$work/order")
  write_initrd "$tree" "$1/initrd"
}
