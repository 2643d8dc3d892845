# shellcheck shell=bash
# Fresh Debian systems to try things in. Sourced after common.sh and packages.sh.

# shellcheck disable=SC2016 # apt's own variable
# debian_mirror: where this machine's apt gets Debian from; another release is beside it.
debian_mirror() {
  local mirror
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Identifier: Packages' 'Component: main' \
    2>/dev/null | grep -v -- '-security' | head -n 1) || true
  [[ -n $mirror ]] || die "apt knows no archive of Debian; run: sudo apt-get update"
  printf '%s\n' "$mirror"
}

# debian_root SUITE [PACKAGE...]: prints the path of a tar with that release's smallest system that has apt, and these
# packages. Made once, without root; a tar, since it keeps the owners of its files whoever unpacks it.
debian_root() {
  local suite=$1 folder file key list work
  shift
  folder=$(snug_cache)/roots
  key=$(printf '%s\n' "$suite" "$@" | sha256sum | cut -c1-12)
  file=$folder/$suite-$key.tar
  if [[ ! -f $file ]]; then
    command -v mmdebstrap >/dev/null || ensure_packages rootfs
    mkdir -p "$folder"
    (
      exec {lock}>"$folder/.$suite-$key.lock"
      flock "$lock"
      [[ ! -f $file ]] || exit 0
      rm -rf "$folder/.$suite-$key".??????
      work=$(mktemp -d "$folder/.$suite-$key.XXXXXX")
      trap 'rm -rf "$work"' EXIT
      trap 'exit 130' INT
      trap 'exit 143' TERM HUP
      list=$(IFS=, && printf '%s' "$*")
      # Proxies and the like, but nothing of what apt is to do after it.
      apt-config dump | grep -E '^Acquire::(http|https|ftp)::.*"[^"]' >"$work/apt.conf" || true
      note "installing Debian $suite into a tar (a minute, once)"
      TMPDIR=$work mmdebstrap --quiet --variant=apt --format=tar ${list:+"--include=$list"} --aptopt="$work/apt.conf" \
        --aptopt='Acquire::Retries "3"' --dpkgopt=force-unsafe-io "$suite" "$work/root.tar" "$(debian_mirror)" \
        >"$work/log" 2>&1 </dev/null {lock}>&- || {
        tail -n 20 "$work/log" >&2
        die "mmdebstrap could not install Debian $suite (the end of its output is above)"
      }
      mv "$work/root.tar" "$file"
    ) || return
  fi
  printf '%s\n' "$file"
}
