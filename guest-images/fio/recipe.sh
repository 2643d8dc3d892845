# shellcheck shell=bash disable=SC2034,SC2154
about="fio with its libraries, an initrd to be loaded behind the first (4 MB)"
needs=(image)
# One release's, whatever this machine is: later ones call libraries otherwise.
from_release=bookworm
packages=(fio libaio1 libc6 zlib1g)
shared=(lib/initrd.sh)
result=initrd

# Debian's fio is linked with the client libraries of network storage, 60 MB that no test of a disk ever calls. Here
# one library of a few KiB stands for them: it has their names and versions, and every function in it fails.
make_image() {
  local tree=$work/tree from=$work/unpacked package library
  for package in "${packages[@]}"; do unpack_package "$package" "$from"; done
  mkdir -p "$tree"/{bin,lib,lib64}
  cp "$from/usr/bin/fio" "$tree/bin/fio"
  cp "$(find "$from" -name ld-linux-x86-64.so.2 | head -n 1)" "$tree/lib64/ld-linux-x86-64.so.2"
  make_stand_in "$tree/bin/fio" "$tree/lib/stand-in.so"
  while read -r library; do
    if [[ -n $(find "$from" -name "$library") ]]; then
      cp -L "$(find "$from" -name "$library" | head -n 1)" "$tree/lib/$library"
    else
      ln -s stand-in.so "$tree/lib/$library"
    fi
  done < <(readelf -dW "$tree/bin/fio" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
  write_initrd "$tree" "$1/initrd"
}

# make_stand_in PROGRAM LIBRARY: every function that PROGRAM wants and the libraries of the packages above lack.
make_stand_in() {
  local symbols=$work/symbols known
  known=$(find "$work/unpacked" \( -name 'libc.so.6' -o -name 'libm.so.6' -o -name 'libz.so.1' \
    -o -name 'libaio.so.1' \) -print0 | xargs -0 nm -D --defined-only --without-symbol-versions |
    awk 'NF == 3 { print $3 }' | LC_ALL=C sort -u)
  nm -D --undefined-only "$1" | awk '$1 == "U" { print $2 }' |
    awk -F@ 'NR == FNR { have[$1]; next } !($1 in have)' <(printf '%s\n' "$known") - | LC_ALL=C sort -u >"$symbols"
  [[ -s $symbols ]] || die "nothing stands in for anything: has fio changed?"
  awk -F@ '{ printf "long %s(void) { return -1; }\n", $1 }' "$symbols" >"$work/stand-in.c"
  awk -F@ 'NF > 1 { names[$2] = names[$2] " " $1 ";" }
    END { for (version in names) printf "%s { global:%s };\n", version, names[version] }' "$symbols" >"$work/versions"
  gcc -shared -fPIC -O1 -w -fno-builtin -nostdlib -Wl,--version-script="$work/versions" -o "$2" "$work/stand-in.c"
}
