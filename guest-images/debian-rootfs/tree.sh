# shellcheck shell=bash disable=SC2154
# From the tree of packages to the disk. Run under fakeroot by recipe.sh, which sets masked, masked_generators, epoch and disk_id.

# link_unit TREE UNIT WANTED-BY: what `systemctl enable` does.
link_unit() {
  mkdir -p "$1/etc/systemd/system/$3.wants"
  ln -sf "/lib/systemd/system/$2" "$1/etc/systemd/system/$3.wants/$2"
}

# finish_tree TAR TREE FILES AGENT: unpacks TAR, adds FILES and AGENT, makes it a machine that one can log in to.
finish_tree() {
  local tree=$2 unit
  mkdir -p "$tree"
  tar -C "$tree" -xpf "$1" --exclude='./dev/*' --exclude='./var/cache/apt/*.bin' --exclude='./var/log/*.log' \
    --exclude='./var/log/apt/*' --exclude='./var/log/journal'
  chown -R 0:0 "$tree/etc/initramfs-tools"
  cp -r --no-preserve=all "$3/." "$tree/"
  install -m 755 "$4" "$tree/usr/local/sbin/snug-agent"

  # root has no password: the serial console is the only way in, and whoever has that owns the machine anyway.
  sed -i 's/^root:[^:]*:/root::/' "$tree/etc/shadow"
  rm -f "$tree"/etc/{hostname,resolv.conf,shadow-,passwd-,group-,gshadow-} "$tree"/{initrd.img,vmlinuz}{,.old} \
    "$tree"/etc/apt/apt.conf.d/99mmdebstrap
  sed -i '/force-unsafe-io/d' "$tree/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
  printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$tree/etc/hosts"
  # Each machine makes an id of its own when it boots.
  : >"$tree/etc/machine-id"
  rm -f "$tree/var/lib/dbus/machine-id" "$tree/var/lib/systemd/random-seed"

  link_unit "$tree" systemd-networkd.service multi-user.target
  link_unit "$tree" systemd-networkd.socket sockets.target
  link_unit "$tree" systemd-resolved.service sysinit.target
  ln -s ../snug-give-back.service "$tree/etc/systemd/system/multi-user.target.wants/snug-give-back.service"
  ln -s ../run/systemd/resolve/stub-resolv.conf "$tree/etc/resolv.conf"
  for unit in "${masked[@]}"; do ln -sf /dev/null "$tree/etc/systemd/system/$unit"; done
  mkdir -p "$tree/etc/systemd/system-generators"
  for unit in "${masked_generators[@]}"; do
    ln -sf /dev/null "$tree/etc/systemd/system-generators/systemd-$unit-generator"
  done

  # Says that /etc and /var are as new as /usr: nothing is rebuilt when it boots (systemd-update-done.service(8)).
  touch "$tree/etc/.updated" "$tree/var/.updated"
  find "$tree" -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +
  touch -d "@$((epoch + 1))" "$tree/etc/.updated" "$tree/var/.updated"
}

# make_disk TREE FILE: an ext4 of 1 GiB, sparse. The journal is small, since all that passes through it is new data in
# the overlay of an ephemeral machine; for the same reason the kernel finds no table left to clear.
make_disk() {
  truncate -s 1G "$2"
  mke2fs -q -t ext4 -L debian -U "$disk_id" -J size=16 -m 0 -M / -I 256 -N 65536 \
    -E "hash_seed=$disk_id,lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1,root_owner=0:0" \
    -d "$1" "$2"
}

# make_root TREE FILE: for machines that have the file as memory, and what they write in their own (snug.overlay). Files are
# whole pages, as DAX wants them; no table has entries for what is not there, since each page of the file costs a guest a
# sixty-fourth of one. Without the kernel, which is not read from here. It changes the tree, so it comes last.
make_root() {
  printf '# The root is mounted by the initramfs.\n' >"$1/etc/fstab"
  mkfs.erofs -E noinline_data -T "$epoch" -U "$disk_id" --exclude-regex='^boot/.' --quiet "$2" "$1"
}
