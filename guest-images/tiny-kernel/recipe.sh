# shellcheck shell=bash disable=SC2034,SC2154
about="a small Linux (Debian's source of it) with all of snug's devices: vmlinux and a bzImage for each payload format (8 minutes)"
needs=(image kernel)
packages=(linux-source)
result=vmlinux

# Beside vmlinux: bzImage (gzip), bzImage.{lz4,zstd,xz,lzma,bzip2}, config.
make_image() {
  need_space 3000
  local tree=$work/tree payload
  unpack_package linux-source "$work/unpacked"
  note "unpacking the kernel's source"
  mkdir "$tree"
  local -a source=("$work"/unpacked/usr/src/linux-source-*.tar.*)
  tar -xf "${source[0]}" -C "$tree" --strip-components=1
  rm -rf "$work/unpacked"
  configure "$tree"

  note "compiling the kernel (about 8 minutes on two cores)"
  kernel_make "$tree" bzImage
  cp "$tree/.config" "$1/config"
  strip -s -o "$1/vmlinux" "$tree/vmlinux"
  cp "$tree/arch/x86/boot/bzImage" "$1/bzImage"

  # The kernel proper stays as it is: only its wrapping changes.
  local before after
  before=$(sha256sum <"$tree/vmlinux")
  for payload in lz4 zstd xz lzma bzip2; do
    note "wrapping it with $payload"
    "$tree/scripts/config" --file "$tree/.config" --disable KERNEL_GZIP --disable KERNEL_LZ4 --disable KERNEL_ZSTD \
      --disable KERNEL_XZ --disable KERNEL_LZMA --disable KERNEL_BZIP2 --enable "KERNEL_${payload^^}"
    kernel_make "$tree" olddefconfig
    kernel_make "$tree" bzImage
    after=$(sha256sum <"$tree/vmlinux")
    [[ $before == "$after" ]] || die "changing the payload to $payload changed the kernel"
    cp "$tree/arch/x86/boot/bzImage" "$1/bzImage.$payload"
  done
}

# Choices that newer kernels do not leave any more (they decide as our fragment does, but for microcode), and the
# release that took them away.
declare -gA gone_since=([MICROCODE]=6.6 [RANDOM_TRUST_CPU]=6.2 [BASE_FULL]=6.10)

# has_choice TREE SYMBOL
has_choice() {
  local since=${gone_since[$2]-} release
  [[ -n $since ]] || return 0
  release=$(sed -n 's/^VERSION = //p; s/^PATCHLEVEL = //p' "$1/Makefile" | paste -sd.)
  [[ $(printf '%s\n' "$since" "$release" | sort -V | head -n 1) != "$since" ]]
}

# configure TREE: tinyconfig plus our fragment; fails naming every line of the fragment that did not hold.
configure() {
  local line symbol dropped=()
  kernel_make "$1" tinyconfig
  cat "$guest_images/tiny-kernel/config" >>"$1/.config"
  kernel_make "$1" olddefconfig
  while read -r line; do
    case $line in
      CONFIG_*=*)
        symbol=${line%%=*}
        grep -qxF -- "$line" "$1/.config" || ! has_choice "$1" "${symbol#CONFIG_}" || dropped+=("${line#CONFIG_}")
        ;;
      '# CONFIG_'*' is not set')
        symbol=${line#\# }
        symbol=${symbol%% *}
        ! grep -q "^$symbol=" "$1/.config" || ! has_choice "$1" "${symbol#CONFIG_}" ||
          dropped+=("${symbol#CONFIG_}=n")
        ;;
    esac
  done <"$guest_images/tiny-kernel/config"
  [[ ${#dropped[@]} == 0 ]] ||
    die "the kernel's configuration did not take: ${dropped[*]} (a dependency is missing from tiny-kernel/config)"
}

# kernel_make TREE GOAL: runs the kernel's make with everything fixed that would make two builds differ, says now
# and then how far it is, and shows the end of its log if it fails.
kernel_make() {
  local log=$work/make.log
  nice -n 10 make -C "$1" -j"$(nproc)" LOCALVERSION= KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' \
    KBUILD_BUILD_USER=snug KBUILD_BUILD_HOST=snug KBUILD_BUILD_VERSION=1 "$2" >"$log" 2>&1 </dev/null &
  local make=$! said=$SECONDS
  while kill -0 "$make" 2>/dev/null; do
    sleep 0.2
    if [[ $((SECONDS - said)) -ge 60 ]]; then
      note "  $(grep -c '^  CC' "$log") files compiled"
      said=$SECONDS
    fi
  done
  wait "$make" || {
    tail -n 30 "$log" >&2
    die "make $2 failed (the end of its output is above)"
  }
}
