# shellcheck shell=bash disable=SC2034,SC2154
about="the freestanding test guests: every micro-guests/NAME.S as NAME.elf"
needs=(image)

# Prints the folder. Sources may include headers (*.inc, *.h) of micro-guests/; they pass through the C preprocessor.
make_image() {
  local source name
  local sizes=(-DPADDING_BYTES=$((13 << 20)) -DFILLER_BYTES=$((5 << 20)))
  for source in "$guest_images"/micro-guests/*.S; do
    name=$(basename "$source" .S)
    gcc -c -Wa,--fatal-warnings "${sizes[@]}" -I "$guest_images/micro-guests" -o "$work/$name.o" "$source"
    ld -nostdlib -static --fatal-warnings --build-id=none -z noexecstack -z max-page-size=4096 -T "$guest_images/micro-guests/link.ld" \
      -o "$1/$name.elf" "$work/$name.o"
  done
}
