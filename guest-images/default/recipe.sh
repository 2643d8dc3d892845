# shellcheck shell=bash disable=SC2034,SC2154
about="what snug boots when no kernel is given: stock-kernel, its modules and initrd, as CACHE/default"
depends=(stock-kernel stock-modules initrd)
published_as=default

make_image() {
  ln -s "../${built[stock-kernel]#"$images/"}" "$1/kernel"
  ln -s "../${built[stock-modules]#"$images/"}" "$1/modules"
  ln -s "../${built[initrd]#"$images/"}" "$1/initrd"
}
