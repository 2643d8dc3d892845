# shellcheck shell=bash
# Releases of Debian in a folder, and programs in them. Sourced after common.sh and packages.sh.
#
# A root is unpacked as whoever runs this, and entered with that user as its root (user_namespaces(7)): that is enough to
# build in it, nothing in it belongs to anybody else, and rm -rf removes it.

releases=$(snug_cache)/releases

# The options of unshare(1) that make a place to mount in.
place=(--mount)
[[ $EUID == 0 ]] || place=(--user --map-root-user --mount)

# can_enter: false, with the reason on stdout, where no root can be made or entered.
can_enter() {
  command -v mmdebstrap apt-get >/dev/null || {
    echo "mmdebstrap and apt are not installed"
    return 1
  }
  unshare "${place[@]}" -- mount -t tmpfs tmpfs /mnt 2>/dev/null || {
    echo "this user may not make user and mount namespaces"
    return 1
  }
}

# in_root ROOT TOP COMMAND...: runs it in ROOT as its root, in TOP, which is /snug there. CC and CXX are passed on.
in_root() {
  local root=$1 top=$2
  shift 2
  mkdir -p "$releases/ccache"
  # shellcheck disable=SC2016 # for the inner shell
  unshare "${place[@]}" -- bash -euc '
    root=$1 top=$2 ccache=$3
    shift 3
    mkdir -p "$root/snug" "$root/ccache"
    for folder in dev proc sys; do mount --rbind "/$folder" "$root/$folder"; done
    for folder in tmp run; do mount -t tmpfs tmpfs "$root/$folder"; done
    mount --rbind "$top" "$root/snug"
    mount --rbind "$ccache" "$root/ccache"
    cd "$root"
    exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 CCACHE_DIR=/ccache \
      CC="$CC" CXX="$CXX" sh -c "cd /snug && exec \"\$@\"" - "$@"
  ' - "$root" "$top" "$releases/ccache" "$@" </dev/null
}

# packages_in RELEASE COMPILER: that building takes there.
packages_in() {
  packages_of build
  echo ccache
  [[ $2 == gcc ]] || echo clang
}

# root_of RELEASE COMPILER: prints the folder of a root that can build snug, and installs it if there is none of this
# month. Its name ends in a key: of the packages and the month.
root_of() {
  local key root work
  key=$({
    packages_in "$@"
    date -u +%Y-%m
  } | sha256sum | cut -c1-12)
  root=$releases/$1-$2-$key
  mkdir -p "$releases"
  (
    flock 9
    if [[ ! -d $root ]]; then
      work=$releases/.$1-$2.new
      rm -rf --one-file-system "$work" "$releases/$1-$2"-*
      mkdir -p "$work/root"
      install_release "$1" "$(packages_in "$@" | paste -sd,)" "$work" || exit 1
      mv -T "$work/root" "$root"
      rm -rf "$work"
    fi
  ) 9>"$releases/.$1-$2.lock" || return 1
  printf '%s\n' "$root"
}

# install_release RELEASE PACKAGES WORK: into WORK/root.
install_release() {
  debian_archives "$1" >"$3/sources.list"
  # Proxies and the like, but nothing of what apt is to do after it.
  apt-config dump | grep -E '^Acquire::(http|https|ftp)::.*"[^"]' >"$3/apt.conf" || true
  note "installing $1 (some minutes)"
  # As root it mounts this machine's /proc, /sys and devices in the root: in a place of their own, so that none of it is
  # left there for an rm -rf when it is killed.
  local apart=()
  [[ $EUID != 0 ]] || apart=(unshare --mount)
  TMPDIR=$3 "${apart[@]}" mmdebstrap --variant=apt --format=tar --include="$2" --aptopt="$3/apt.conf" --aptopt='Acquire::Retries "3"' \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' "$1" - "$3/sources.list" 2>"$3/log" </dev/null |
    tar -x --exclude='./dev/*' -C "$3/root" || {
    tail -n 30 "$3/log" >&2
    return 1
  }
}
