# shellcheck shell=bash disable=SC2034,SC2154
about="what tools/lab --host intel boots: a CD with stock-kernel-full and such an initrd"
needs=(image lab-intel)
depends=(stock-kernel-full initrd)
shared=(lib/initrd.sh lib/lab.sh lab/init)

# In the folder: lab.iso, modules.
make_image() {
  local kernel=${built[stock-kernel-full]%/*}
  ln -s "../${kernel#"$images/"}/modules" "$1/modules"
  lab_tree "$work/tree" "$guest_images/lab-intel/files" e1000 9pnet_fd "${lab_modules[@]}" kvm_intel
  mkdir -p "$work/cd/boot/grub"
  write_initrd "$work/tree" "$work/cd/boot/initrd"
  # Without what is for debuggers, and in a form that is unpacked quickly: loader.c says why.
  kernel_elf "$kernel/vmlinuz" >"$work/vmlinux"
  strip -o "$work/stripped" "$work/vmlinux"
  lz4 -q -l -9 "$work/stripped" "$work/cd/boot/vmlinux.lz4"
  gcc -m32 -std=gnu11 -Os -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie \
    -fcf-protection=none -mgeneral-regs-only -fno-tree-loop-distribute-patterns -static -nostdlib -no-pie \
    -Wl,--build-id=none,-z,noseparate-code,-z,norelro,-Ttext-segment=0x200000 -s \
    -o "$work/cd/boot/loader" "$guest_images/lab-intel/loader.c"
  cp "$guest_images/lab-intel/grub.cfg" "$work/cd/boot/grub/"
  grub-mkrescue -d /usr/lib/grub/i386-pc -o "$1/lab.iso" "$work/cd" >"$work/grub.log" 2>&1 || {
    tail -n 5 "$work/grub.log" >&2
    die "grub-mkrescue made no CD"
  }
}

# kernel_elf BZIMAGE: the ELF in it (Linux boot protocol, 1.12 payload_offset and on). Debian 12's general kernel has it as xz,
# Debian 13's as zstd, and its size behind it.
kernel_elf() {
  local sectors offset length magic unpack
  read -r sectors < <(od -An -tu1 -j $((0x1f1)) -N 1 "$1")
  read -r offset length < <(od -An -tu4 -j $((0x248)) -N 8 "$1")
  offset=$(((sectors + 1) * 512 + offset))
  magic=$(od -An -tx1 -j "$offset" -N 4 "$1")
  case $magic in
    ' fd 37 7a 58') unpack=(xz --single-stream -dc) ;;
    ' 28 b5 2f fd') unpack=(zstd -q -dc) ;;
    ' 02 21 4c 18') unpack=(lz4 -q -dc) ;;
    ' 1f 8b '*) unpack=(gzip -q -dc) ;;
    *) die "the kernel's payload is none that is known here:$magic" ;;
  esac
  dd if="$1" iflag=skip_bytes,count_bytes skip="$offset" count="$((length - 4))" bs=1M status=none | "${unpack[@]}" ||
    die "the kernel's payload cannot be unpacked"
}
