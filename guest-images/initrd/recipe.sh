# shellcheck shell=bash disable=SC2034,SC2154
about="busybox with an init that gives a shell, runs a command (snug.run=) or just powers off"
needs=(image)
packages=(busybox-static)
depends=(agent)
shared=(lib/initrd.sh)
result=initrd

# Beside the initrd: `busybox`, the static binary in it, for whoever needs one (the lab).
make_image() {
  local tree=$work/tree
  unpack_package busybox-static "$work/unpacked"
  local binary=$work/unpacked/bin/busybox
  [[ -f $binary ]] || binary=$work/unpacked/usr/bin/busybox
  mkdir -p "$tree"/{bin,dev,etc/udhcpc,home,mnt,proc,root,run,sys,tmp,usr/bin,var/{log,tmp}}
  chmod 700 "$tree/root"
  chmod 1777 "$tree/tmp" "$tree/var/tmp"
  install -m 755 "$binary" "$tree/bin/busybox"
  install -m 755 "$guest_images/initrd/init" "$tree/init"
  install -m 755 "$guest_images/initrd/console" "$tree/etc/console"
  install -m 644 "$guest_images/initrd/fstab" "$tree/etc/fstab"
  install -m 644 "$guest_images"/initrd/{passwd,group,hosts} "$tree/etc/"
  ln -s /proc/mounts "$tree/etc/mtab"
  ln -s ../run "$tree/var/run"
  # Scripts name their interpreter by it.
  ln -s ../../bin/busybox "$tree/usr/bin/env"
  install -m 755 "$guest_images/initrd/udhcpc.script" "$tree/etc/udhcpc/default.script"
  install -m 755 "${built[agent]}" "$tree/bin/snug-agent"
  compile_freestanding "$guest_images/initrd/snug-exit.c" "$tree/bin/snug-exit"
  compile_freestanding "$guest_images/initrd/snug-setup.c" "$tree/bin/snug-setup"
  # Busybox's own shell finds its applets without links; scripts that begin with #!/bin/sh, and exec, need some.
  local applet
  for applet in $("$binary" --list); do
    [[ $applet == busybox ]] || ln -s busybox "$tree/bin/$applet"
  done
  write_initrd "$tree" "$1/initrd"
  cp "$binary" "$1/busybox"
}
