# shellcheck shell=bash disable=SC2154
# What the recipes of the labs share: the initrd that gets a lab onto the outer machine's files.

# What jobs in a lab are likely to want. Anything else can be loaded with modprobe there.
# shellcheck disable=SC2034 # for the recipes
lab_modules=(9p overlay tun vhost_net vhost_vsock)

# lab_tree TREE FILES MODULE...: the first file system of a lab with Debian's general kernel, with these modules and those
# they need. FILES defines, for init, how the lab reaches the outer machine's files.
lab_tree() {
  local tree=$1 files=$2 kernel=${built[stock-kernel-full]%/*} release module file number=0 applet
  shift 2
  read -r release <"$kernel/release"
  mkdir -p "$tree"/{bin,dev,lower,modules,new,proc,sys,upper}
  install -m 755 "${built[initrd]%/*}/busybox" "$tree/bin/busybox"
  for applet in sh mount mkdir insmod chroot chmod ln ifconfig hostname poweroff tftp; do
    ln -s busybox "$tree/bin/$applet"
  done
  install -m 755 "$guest_images/lab/init" "$tree/init"
  install -m 644 "$files" "$tree/files"

  # In loading order, each module once, under names that sort that way.
  for module; do
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
}
