# shellcheck shell=bash
# Releases of Debian in a folder, and programs in them. Sourced after common.sh, packages.sh and roots.sh.
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
  # What the tests run.
  printf '%s\n' ccache passt iproute2
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
      mapfile -t packages < <(packages_in "$@")
      debian_tar "$1" "$work" "${packages[@]}" | tar -x --exclude='./dev/*' -C "$work/root" || exit 1
      mv -T "$work/root" "$root"
      rm -rf "$work"
    fi
  ) 9>"$releases/.$1-$2.lock" || return 1
  printf '%s\n' "$root"
}
