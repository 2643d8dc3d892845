# shellcheck shell=bash disable=SC2034,SC2154
# Debian packages as raw material: downloaded and unpacked, never installed, so no root is needed.
# Sourced by guest-images/build after common.sh, packages.sh and cache.sh.

# What apt and apt-cache are told beside; empty for this machine's own release.
apt_options=()
versions=$(snug_cache)/versions

# use_release RELEASE: packages are Debian's of RELEASE (trixie) from here on, whatever this machine is. Its lists are
# kept in the cache for a month.
use_release() {
  [[ $1 != "$(release_codename)" ]] || return 0
  local state
  state=$(snug_cache)/versions/$1
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
  # As root apt would drop to a user that cannot write here.
  apt_options=(
    -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$state/lists"
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null -o Dir::Cache="$state/cache"
    -o Dir::State::Status=/dev/null -o APT::Sandbox::User=root
  )
  versions=$state
  exec {lists_lock}>"$state/.lock"
  flock "$lists_lock"
  if [[ -z $(find "$state/lists.fetched" -mtime -30 2>/dev/null) ]]; then
    note "fetching the package lists of $1"
    debian_archives "$1" | sed 's|^deb |deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] |' >"$state/sources.list"
    if apt-get -q "${apt_options[@]}" update >"$state/log" 2>&1 </dev/null; then
      rm -f "$state"/linux-*
      touch "$state/lists.fetched"
    else
      note "could not fetch them: $(grep '^[EW]:' "$state/log" | tail -n 1)"
    fi
  fi
  exec {lists_lock}>&-
}

# refresh_lists WHY: fetches apt's package lists if this user may, once, and starts the build again.
refresh_lists() {
  if [[ ${#apt_options[@]} -gt 0 ]]; then
    rm -f "$versions/lists.fetched"
    die "$1; try again"
  fi
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

# debian_version PACKAGE: prints "NAME VERSION" of what apt would install for PACKAGE. A metapackage of kernels or of
# their source stands for the package it depends on. The answer is remembered until apt's lists change, because asking takes 0.5 s.
debian_version() {
  local package=$1 memory answer name version
  memory=$versions/$package
  if [[ -s $memory && (${#apt_options[@]} -gt 0 || $memory -nt /var/lib/apt/lists) ]]; then
    cat "$memory"
    return
  fi
  command -v apt-cache >/dev/null || die "images are made from Debian packages, and this system has no apt"
  version=$(LC_ALL=C apt-cache "${apt_options[@]}" policy "$package" | awk '$1 == "Candidate:" { print $2 }')
  if [[ -z $version || $version == "(none)" ]]; then
    if [[ -s $memory ]]; then
      note "apt knows no package $package at the moment; using the version seen last"
      cat "$memory"
      return
    fi
    refresh_lists "apt knows no package $package"
  fi
  name=$package
  if [[ $package == linux-image-* || $package == linux-source ]]; then
    answer=$(apt-cache "${apt_options[@]}" show "$package=$version" |
      sed -n 's/^Depends: \(.*, \)\{0,1\}\(linux-\(image\|source\)-[^ ,]*\) (= \([^)]*\)).*/\2 \4/p')
    [[ -z $answer ]] || read -r name version <<<"${answer%%$'\n'*}"
  fi
  mkdir -p "$versions"
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
  if ! (cd "$download" && apt-get -q -o APT::Sandbox::User=root "${apt_options[@]}" download "$name=$version" </dev/null) \
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
