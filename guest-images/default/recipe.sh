# shellcheck shell=bash disable=SC2034,SC2154
about="what snug boots when no kernel is given: the tiny kernel and the initrd (8 minutes)"
depends=(tiny-kernel initrd)

make_image() {
  ln -s "../${built[tiny-kernel]#"$images/"}" "$1/kernel"
  ln -s "../${built[initrd]#"$images/"}" "$1/initrd"
}
