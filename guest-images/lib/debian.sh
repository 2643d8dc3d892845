# shellcheck shell=bash disable=SC2034,SC2154
# Debian packages as raw material: downloaded and unpacked, never installed, so no root is needed.
# Sourced by guest-images/build after common.sh, packages.sh and cache.sh.

# refresh_lists WHY: fetches apt's package lists if this user may, once, and starts the build again.
refresh_lists() {
  if [[ -n ${SNUG_LISTS_REFRESHED:-} ]] || ! as_root; then
    die "$1; run: sudo apt-get update"
  fi
  note "$1; fetching fresh package lists"
  apt_get update || die "apt-get update failed (apt's own message is above)"
  # Exec closes nothing and runs no traps, so the lock and the work folder are let go of first.
  [[ -z ${work:-} ]] || rm -rf "$work"
  [[ -z ${lock:-} ]] || exec {lock}>&-
  SNUG_LISTS_REFRESHED=1 exec "$guest_images/build" "$target" >&"$stdout"
}

# debian_version PACKAGE: prints "NAME VERSION" of what apt would install for PACKAGE. A kernel metapackage stands
# for the package it depends on. The answer is remembered until apt's lists change, because asking takes 0.5 s.
debian_version() {
  local package=$1 memory answer name version
  memory=$(snug_cache)/versions/$package
  if [[ -s $memory && $memory -nt /var/lib/apt/lists ]]; then
    cat "$memory"
    return
  fi
  command -v apt-cache >/dev/null || die "images are made from Debian packages, and this system has no apt"
  version=$(LC_ALL=C apt-cache policy "$package" | awk '$1 == "Candidate:" { print $2 }')
  if [[ -z $version || $version == "(none)" ]]; then
    if [[ -s $memory ]]; then
      note "apt knows no package $package at the moment; using the version seen last"
      cat "$memory"
      return
    fi
    refresh_lists "apt knows no package $package"
  fi
  name=$package
  if [[ $package == linux-image-* ]]; then
    answer=$(apt-cache show "$package=$version" |
      sed -n 's/^Depends: \(.*, \)\{0,1\}\(linux-image-[^ ,]*\) (= \([^)]*\)).*/\2 \3/p')
    [[ -z $answer ]] || read -r name version <<<"${answer%%$'\n'*}"
  fi
  mkdir -p "$(snug_cache)/versions"
  printf '%s %s\n' "$name" "$version" >"$memory.$$"
  mv "$memory.$$" "$memory"
  cat "$memory"
}

# unpack_package PACKAGE DIR: downloads it (apt checks its signature chain) and unpacks it into DIR.
unpack_package() {
  local name version download=$work/download
  read -r name version < <(debian_version "$1")
  note "downloading $name $version"
  mkdir -p "$download" "$2"
  # As root apt would drop to a user that cannot write here, and warn about it.
  if ! (cd "$download" && apt-get -q -o APT::Sandbox::User=root download "$name=$version" </dev/null) \
    >"$work/apt.log" 2>&1; then
    grep '^E:' "$work/apt.log" | tail -n 3 >&2 || true
    if grep -q 'No space left' "$work/apt.log"; then
      die "the disk is full: no room for $name in $images"
    elif grep -qE "404|Hash Sum|Unable to locate|Can't find a source" "$work/apt.log"; then
      refresh_lists "$name $version cannot be downloaded: the package lists are missing or out of date"
    fi
    die "could not download $name $version (apt's own message is above)"
  fi
  dpkg-deb -x "$download/$name"_*.deb "$2" || die "could not unpack $name $version"
  rm -rf "$download"
}

# unpack_kernel METAPACKAGE DIR: unpacks the kernel package behind METAPACKAGE and sets `release`.
unpack_kernel() {
  unpack_package "$1" "$2"
  local -a found
  found=("$2"/boot/vmlinuz-*)
  [[ -f ${found[0]} ]] || die "$1 holds no kernel"
  release=${found[0]##*/vmlinuz-}
}
