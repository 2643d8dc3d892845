# shellcheck shell=bash
# Pieces that recipes making an initrd share (they name this file in `shared`).

# write_initrd TREE FILE: TREE as a newc archive, the same bytes for the same content. It is not compressed:
# unpacking it in the guest would cost more than reading it does on the host.
write_initrd() {
  find "$1" -exec touch -h -d @0 {} +
  (cd "$1" && find . -mindepth 1 -printf '%P\0' | LC_ALL=C sort -z |
    cpio --null --create --format=newc --owner=+0:+0 --reproducible --quiet) >"$2"
}

# compile_freestanding SOURCE PROGRAM: a static program of a few hundred bytes, without any C library.
compile_freestanding() {
  gcc -std=c11 -Os -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables \
    -fno-pie -fcf-protection=none -static -nostdlib -no-pie \
    -Wl,--build-id=none,-z,noseparate-code,-z,norelro -s -o "$2" "$1"
}
