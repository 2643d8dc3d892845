# shellcheck shell=bash disable=SC2034,SC2154
about="an init that only powers off, or resets (word 'reset' after -- on the command line): for counting exits"
needs=(image)
shared=(lib/initrd.sh)
result=initrd

make_image() {
  mkdir "$work/tree"
  compile_freestanding "$guest_images/initrd-lean/init.c" "$work/tree/init"
  write_initrd "$work/tree" "$1/initrd"
}
