# shellcheck shell=bash disable=SC2154
# How a recipe becomes an artefact in the cache. Sourced by guest-images/build after common.sh.
#
#   CACHE/images/TARGET-KEY/     one finished artefact; it appears by rename, so it is complete or absent
#   CACHE/images/.TARGET.XXXXXX/ a build under way, or what is left of an interrupted one
#   CACHE/images/.TARGET.lock    held while TARGET is being built
#   CACHE/NAME                   symbolic link to the artefact last published under NAME (the default image)
#   CACHE/versions/PACKAGE       what apt last said about PACKAGE (debian.sh)

images=$(snug_cache)/images

# recipe_key: names the content of the loaded recipe's artefact. Everything that could change it goes in: the
# recipe's own folder, the shared pieces it names, package versions, and the artefacts it is built from.
recipe_key() {
  local file package dependency
  {
    cd "$guest_images" || exit
    find "$target" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    for file in "${shared[@]}"; do sha256sum "$file"; done
    for package in "${packages[@]}"; do debian_version "$package"; done
    for dependency in "${depends[@]}"; do printf '%s\n' "${built[$dependency]#"$images/"}"; done
  } | sha256sum | cut -c1-12
}

# lock_target: returns holding the lock of $target. The kernel lets go of it when this process and all it started
# have ended, however they ended.
lock_target() {
  exec {lock}>"$images/.$target.lock"
  flock -n "$lock" || {
    note "$target is being built by another process; waiting for it"
    flock "$lock"
  }
}

# begin_work: a fresh work folder in $work, on the same file system as the artefact. Call with the lock held: any
# work folder found then belongs to nobody.
begin_work() {
  rm -rf "$images/.$target".??????
  work=$(mktemp -d "$images/.$target.XXXXXX")
  trap 'end_work $?' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}

# end_work STATUS: runs on every way out of a build; leaves nothing behind and says so if there is no artefact.
end_work() {
  trap '' INT TERM HUP
  local running free
  running=$(jobs -p)
  # shellcheck disable=SC2086 # one word per process
  [[ -z $running ]] || kill $running 2>/dev/null || true
  wait
  free=$(df -Pm "$images" 2>/dev/null | awk 'NR == 2 { print $4 }') || true
  rm -rf "$work"
  [[ $1 != 0 ]] || return 0
  [[ ${free:-999999} -ge 64 ]] || note "only ${free} MiB were free in $images"
  note "error: $target was not built; nothing half-finished was left in the cache"
}

# need_space MIB: fails early, and clearly, when a build cannot fit.
need_space() {
  local free
  free=$(df -Pm "$images" | awk 'NR == 2 { print $4 }')
  [[ $free -ge $1 ]] || die "building $target takes about $1 MiB in $images, and only $free MiB are free"
}

# publish IMAGE NAME: makes CACHE/NAME lead to IMAGE, in one step.
publish() {
  local link new
  link=$(snug_cache)/$2
  [[ $(readlink "$link" || true) != "images/${1##*/}" ]] || return 0
  new=$(mktemp -u "$link.XXXXXX")
  ln -s "images/${1##*/}" "$new"
  mv -T "$new" "$link" || die "cannot replace $link; remove it and try again"
}
