# shellcheck shell=bash
# Packages that snug's scripts rely on, by the names that Debian 12 and 13 and Ubuntu 24.04 have for them, and how they
# get installed. Sourced after common.sh. This is the only list: documentation and scripts refer to the groups by name.

# shellcheck disable=SC2034 # for the scripts that source this
package_groups=(build image rootfs kernel lab lab-intel test)

# release_codename: of the distribution that this is: bookworm, trixie, noble, ...; empty where nothing says it.
release_codename() { sed -nE 's/^VERSION_CODENAME="?([a-z]*)"?$/\1/p' /etc/os-release 2>/dev/null || true; }

# debian_archives RELEASE: Debian's archives of that release, as lines of a sources.list. They are where this machine's
# apt finds those of its own release, since all releases lie side by side in an archive.
debian_archives() {
  local known
  # shellcheck disable=SC2016 # for apt
  known=$(apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) main' 'Origin: Debian' 'Identifier: Packages' \
    'Component: main' | sed -nE "s/ [a-z]+(|-updates|-security) main\$/ $1\1 main/p" | LC_ALL=C sort -u) || true
  [[ -n $known ]] || die "apt knows no archive of Debian; run: sudo apt-get update"
  printf '%s\n' "$known"
}

# packages_of GROUP: its packages, one a line. Compilers are those that the release has by default.
packages_of() {
  case $1 in
    # Compiling snug and its unit tests.
    build)
      printf '%s\n' g++ meson ninja-build pkg-config libfmt-dev libcli11-dev libspdlog-dev libyaml-cpp-dev \
        libexpected-dev zlib1g-dev libdeflate-dev liblz4-dev libzstd-dev liblzma-dev libbz2-dev libarchive-dev liburing-dev nlohmann-json3-dev libgtest-dev libgmock-dev
      ;;
    # Assembling initrds and micro-guests, unpacking Debian's kernels.
    image) printf '%s\n' cpio kmod gcc g++ binutils gzip xz-utils zstd ;;
    # Installing Debian into a disk image (mmdebstrap without root uses fakechroot or uidmap).
    rootfs) printf '%s\n' mmdebstrap fakeroot fakechroot uidmap e2fsprogs erofs-utils ;;
    # Compiling the tiny kernel, in every payload format.
    kernel) printf '%s\n' make flex bison bc libc6-dev libelf-dev libssl-dev lz4 bzip2 ;;
    # Running the lab (tools/lab).
    lab) printf '%s\n' qemu-system-x86 cpio kmod ;;
    # The same with --host intel.
    lab-intel) printf '%s\n' bochs bochs-term bochsbios vgabios grub-pc-bin grub-common xorriso mtools lz4 cpio kmod python3 ;;
    # The checks and the Linux tier of the test suite.
    test)
      printf '%s\n' clang libclang-rt-dev acpica-tools python3 tmux shellcheck passt skopeo umoci docker-registry iproute2 procps iperf3 ethtool \
        mmdebstrap uidmap erofs-utils e2fsprogs zsh fish groff-base mandoc stress-ng
      # The formatting is that of one version, which other releases do not have (tools/checks/formatting).
      case $(release_codename) in bookworm | noble) printf '%s\n' clang-format-14 ;; esac
      ;;
    *) return 1 ;;
  esac
}

# missing_packages GROUP...: packages of these groups that are not installed, one a line. Never calls apt.
missing_packages() {
  local group
  command -v dpkg-query >/dev/null ||
    die "this is not a Debian-like system; install the equivalents of: $(for group; do packages_of "$group"; done | xargs)"
  local -A installed=()
  local name status package
  while read -r status name; do
    [[ $status != installed ]] || installed[$name]=1
  done < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n')
  for group; do
    for package in $(packages_of "$group"); do
      [[ -n ${installed[$package]:-} ]] || printf '%s\n' "$package"
    done
  done | sort -u
}

# as_root: sets the array `root_prefix` to what makes a command run as root; false when nothing does.
# Nothing does where nothing is to be installed (SNUG_INSTALL=no): `snug image build` says what is missing.
as_root() {
  root_prefix=()
  [[ ${SNUG_INSTALL:-yes} != no ]] || return 1
  [[ $EUID != 0 ]] || return 0
  command -v sudo >/dev/null || return 1
  if sudo -n true 2>/dev/null; then
    root_prefix=(sudo -n)
  elif [[ -t 0 && -t 2 ]]; then
    root_prefix=(sudo)
  else
    return 1
  fi
}

# apt_get ARGS...: apt-get as root, unattended, waiting for another apt to finish, its output on stderr.
# Call as_root first.
apt_get() {
  "${root_prefix[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -y -q -o DPkg::Lock::Timeout=600 --no-install-recommends "$@" >&2 </dev/null
}

# ensure_packages GROUP...: installs what is missing. Costs one dpkg-query when nothing is.
ensure_packages() {
  local -a missing
  mapfile -t missing < <(missing_packages "$@")
  [[ ${#missing[@]} -gt 0 ]] || return 0
  as_root || die "missing packages; run: sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}"
  note "installing ${missing[*]}"
  # The package lists may be absent or too old: only then are they fetched.
  apt_get install "${missing[@]}" || {
    note "trying again with fresh package lists"
    apt_get update && apt_get install "${missing[@]}"
  } || die "could not install: ${missing[*]} (apt's own message is above)"
}
