# shellcheck shell=bash
# Fresh Debian systems to try things in. Sourced after common.sh and packages.sh.

# debian_tar SUITE WORK [PACKAGE...]: writes that release's smallest system that has apt, and these packages, as a tar to
# stdout: it keeps the owners of its files whoever unpacks it. From the archives that this machine's apt uses, without
# root. WORK is an empty folder of the caller's.
debian_tar() {
  local suite=$1 work=$2 list apart=()
  shift 2
  list=$(IFS=, && printf '%s' "$*")
  debian_archives "$suite" >"$work/sources.list"
  # Proxies and the like, but nothing of what apt is to do after it.
  apt-config dump | grep -E '^Acquire::(http|https|ftp)::.*"[^"]' >"$work/apt.conf" || true
  note "installing Debian $suite (some minutes, once a month)"
  # As root it mounts this machine's /proc, /sys and devices in the root: in a place of their own, so that none of it is
  # left there for an rm -rf when it is killed.
  [[ $EUID != 0 ]] || apart=(unshare --mount)
  TMPDIR=$work "${apart[@]}" mmdebstrap --variant=apt --format=tar ${list:+"--include=$list"} --aptopt="$work/apt.conf" \
    --aptopt='Acquire::Retries "3"' --dpkgopt=force-unsafe-io "$suite" - "$work/sources.list" \
    2>"$work/log" </dev/null || {
    tail -n 30 "$work/log" >&2
    return 1
  }
}

# debian_root SUITE [PACKAGE...]: prints the path of such a tar in the cache, made when there is none of this month.
debian_root() {
  local suite=$1 folder file key
  shift
  folder=$(snug_cache)/roots
  key=$(printf '%s\n' "$suite" "$@" "$(date -u +%Y-%m)" | sha256sum | cut -c1-12)
  file=$folder/$suite-$key.tar
  if [[ ! -f $file ]]; then
    command -v mmdebstrap >/dev/null || ensure_packages rootfs
    mkdir -p "$folder"
    (
      exec {lock}>"$folder/.$suite-$key.lock"
      flock "$lock"
      [[ ! -f $file ]] || exit 0
      rm -rf "$folder/.$suite-$key".?????? "$folder/$suite"-*.tar
      work=$(mktemp -d "$folder/.$suite-$key.XXXXXX")
      trap 'rm -rf --one-file-system "$work"' EXIT
      trap 'exit 130' INT
      trap 'exit 143' TERM HUP
      debian_tar "$suite" "$work" "$@" >"$work/root.tar" {lock}>&- || exit 1
      mv "$work/root.tar" "$file"
    ) || return
  fi
  printf '%s\n' "$file"
}
