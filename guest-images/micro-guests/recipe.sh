# shellcheck shell=bash disable=SC2034,SC2154
about="the freestanding test guests: micro-guests/NAME.S and micro-guests/NAME/*.c, each as NAME.elf"
needs=(image)

# Prints the folder. Guests in assembly are one file, guests in C a folder and what lies in lib/. Sources may include
# headers (*.inc, *.h) of micro-guests/ and lib/.
make_image() {
  local sources=$guest_images/micro-guests source part name object
  local sizes=(-DPADDING_BYTES=$((13 << 20)) -DFILLER_BYTES=$((5 << 20)))
  local includes=(-I "$sources" -I "$sources/lib")
  # No vector registers: nobody has switched them on. No red zone: interrupts come at any moment.
  local flags=(-std=gnu11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables
    -fno-pie -fcf-protection=none -mgeneral-regs-only -mno-red-zone -fno-tree-loop-distribute-patterns)
  local -a library=() objects
  for source in "$sources"/*.S; do
    name=$(basename "$source" .S)
    gcc -c -Wa,--fatal-warnings "${sizes[@]}" "${includes[@]}" -o "$work/$name.o" "$source"
    link_guest "$1/$name.elf" "$work/$name.o"
  done
  for source in "$sources"/lib/*.S "$sources"/lib/*.c; do
    object=$work/lib-$(basename "$source").o
    gcc -c "${flags[@]}" "${includes[@]}" -o "$object" "$source"
    library+=("$object")
  done
  for source in "$sources"/*/main.c; do
    name=$(basename "$(dirname "$source")")
    objects=()
    for part in "$sources/$name"/*.c; do
      object=$work/$name-$(basename "$part").o
      gcc -c "${flags[@]}" "${includes[@]}" -o "$object" "$part"
      objects+=("$object")
    done
    link_guest "$1/$name.elf" "${library[@]}" "${objects[@]}"
  done
}

# link_guest PROGRAM OBJECT...
link_guest() {
  local program=$1
  shift
  ld -nostdlib -static --fatal-warnings --build-id=none -z noexecstack -z max-page-size=4096 \
    -T "$guest_images/micro-guests/link.ld" -o "$program" "$@"
}
