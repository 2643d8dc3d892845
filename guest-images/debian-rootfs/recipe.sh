# shellcheck shell=bash disable=SC2016,SC2034,SC2154
about="Debian, this machine's release of it, with stock cloud kernel and systemd on a disk of 1 GiB: disk, root, kernel, initrd"
needs=(image rootfs)
depends=(agent)
packages=(base-files busybox dbus initramfs-tools iperf3 libc6 linux-image-cloud-amd64 systemd systemd-resolved udev)
published_as=debian-rootfs

included=(
  linux-image-cloud-amd64 initramfs-tools busybox zstd kmod
  systemd systemd-sysv systemd-resolved udev dbus
  iproute2 iputils-ping netcat-openbsd wget iperf3 procps less
)
# Needless in a machine that is thrown away, or waiting for what it does not have.
masked=(
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer e2scrub_reap.service
  getty@tty1.service getty-static.service systemd-networkd-wait-online.service systemd-pstore.service
  systemd-journal-flush.service systemd-random-seed.service systemd-update-utmp.service
  systemd-update-utmp-runlevel.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount
  dev-hugepages.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount
  sys-fs-fuse-connections.mount modprobe@{configfs,dm_mod,drm,efi_pstore,fuse,loop}.service
)
masked_generators=(bless-boot cryptsetup gpt-auto hibernate-resume integritysetup rc-local system-update sysv veritysetup)
# Dates of files, and all else that would differ from build to build: Debian 12's first day, made-up ids.
epoch=1686355200
disk_id=5b2b4c5e-7c1d-4a53-9f0e-64656269616e

# In the folder: disk (ext4, no partitions), root (EROFS of the same files, to be read by many at once), kernel and initrd (both
# also on the disk, under /boot), checksum (of disk and root, for b2sum -c), packages.
make_image() {
  need_space 2000
  make_tree "$work/tree.tar"
  note "making the disk"
  # Files of a tree unpacked here belong to whoever builds; fakeroot remembers who they should belong to.
  SOURCE_DATE_EPOCH=$epoch E2FSPROGS_FAKE_TIME=$epoch PATH=$PATH:/usr/sbin:/sbin \
    fakeroot -- bash -c 'set -euo pipefail; source "$1/debian-rootfs/tree.sh"; source "$1/debian-rootfs/recipe.sh"
      finish_tree "$2" "$3" "$1/debian-rootfs/files" "$5" && make_disk "$3" "$4/disk" &&
        make_root "$3" "$4/root"' \
    - "$guest_images" "$work/tree.tar" "$work/tree" "$1" "${built[agent]}" >"$work/disk.log" 2>&1 || {
    tail -n 20 "$work/disk.log" >&2
    die "could not make the disk (the end of the output is above)"
  }
  local -a kernel=("$work"/tree/boot/vmlinuz-*) initrd=("$work"/tree/boot/initrd.img-*)
  [[ ${#kernel[@]} == 1 && -f ${kernel[0]} && ${#initrd[@]} == 1 && -f ${initrd[0]} ]] ||
    die "not one kernel and one initramfs on the disk"
  cp "${kernel[0]}" "$1/kernel"
  cp "${initrd[0]}" "$1/initrd"
  (cd "$1" && b2sum disk root >checksum)
  dpkg-query --admindir "$work/tree/var/lib/dpkg" -W >"$1/packages"
  chmod -R u+rwX "$work/tree"
}

# debian_release: which one is installed.
debian_release() {
  case $(release_codename) in
    trixie) echo trixie ;;
    *) echo bookworm ;;
  esac
}

# make_tree TAR: the packages, installed. As root by chroot, else in a user namespace, else by fakechroot:
# whichever mmdebstrap finds possible.
make_tree() {
  local list release
  release=$(debian_release)
  list=$(IFS=, && printf '%s' "${included[*]}")
  debian_archives "$release" >"$work/sources.list"
  # Proxies and the like, but nothing of what apt is to do after it.
  apt-config dump | grep -E '^Acquire::(http|https|ftp)::.*"[^"]' >"$work/apt.conf" || true
  note "installing Debian ($release) into a tree (some minutes)"
  SOURCE_DATE_EPOCH=$epoch TMPDIR=$work mmdebstrap --quiet --variant=minbase --format=tar --include="$list" \
    --essential-hook="copy-in '$guest_images/debian-rootfs/initramfs-tools' /etc" \
    --essential-hook="upload '${built[agent]}' /usr/local/sbin/snug-agent" \
    --essential-hook='chmod 755 "$1/usr/local/sbin/snug-agent"' \
    --aptopt="$work/apt.conf" --aptopt='Acquire::Retries "3"' --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    "$release" "$1" "$work/sources.list" >"$work/mmdebstrap.log" 2>&1 </dev/null || {
    tail -n 30 "$work/mmdebstrap.log" >&2
    if grep -qE "404|Hash Sum|File has unexpected size" "$work/mmdebstrap.log"; then
      refresh_lists "a package cannot be downloaded: the package lists are out of date"
    fi
    die "mmdebstrap failed (the end of its output is above)"
  }
}
