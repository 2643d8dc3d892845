# shellcheck shell=bash disable=SC2034,SC2154
about="Debian's cloud kernel, its modules and the initrd: snug run -k stock"
depends=(stock-kernel stock-modules initrd)

make_image() {
  ln -s "../${built[stock-kernel]#"$images/"}" "$1/kernel"
  ln -s "../${built[stock-modules]#"$images/"}" "$1/modules"
  ln -s "../${built[initrd]#"$images/"}" "$1/initrd"
}
