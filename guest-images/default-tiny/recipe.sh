# shellcheck shell=bash disable=SC2034,SC2154
about="the same with the tiny kernel, also as CACHE/default"
depends=(tiny-kernel initrd)
published_as=default

make_image() {
  ln -s "../${built[tiny-kernel]#"$images/"}" "$1/kernel"
  ln -s "../${built[initrd]#"$images/"}" "$1/initrd"
}
