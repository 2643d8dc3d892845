# shellcheck shell=bash disable=SC2154
# For recipes of a program of Debian's that is linked with more libraries than any test of ours ever calls.

# program_tree PROGRAM TREE: PROGRAM (a path below the unpacked packages) with the libraries of those packages, in TREE. One
# library of a few KiB stands for all others: it has their names and versions, and every function in it fails.
program_tree() {
  local from=$work/unpacked program=$1 tree=$2 library found
  mkdir -p "$tree"/{bin,lib,lib64}
  cp "$from/$program" "$tree/bin/"
  cp "$(find "$from" -name ld-linux-x86-64.so.2 | head -n 1)" "$tree/lib64/ld-linux-x86-64.so.2"
  local -a wanted=("$tree/bin/$(basename "$program")") known=()
  # Libraries want libraries.
  while [[ ${#wanted[@]} -gt 0 ]]; do
    while read -r library; do
      [[ ! -e $tree/lib/$library && ! -L $tree/lib/$library && $library != ld-linux-x86-64.so.2 ]] || continue
      found=$(find "$from" -name "$library" | head -n 1)
      if [[ -n $found ]]; then
        cp -L "$found" "$tree/lib/$library"
        wanted+=("$tree/lib/$library")
        known+=("$tree/lib/$library")
      else
        ln -s stand-in.so "$tree/lib/$library"
      fi
    done < <(readelf -dW "${wanted[0]}" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    wanted=("${wanted[@]:1}")
  done
  make_stand_in "$tree/bin/$(basename "$program")" "$tree/lib/stand-in.so" "${known[@]}"
}

# make_stand_in PROGRAM LIBRARY KNOWN...: every function that PROGRAM wants and the libraries KNOWN lack.
make_stand_in() {
  local program=$1 library=$2 symbols=$work/symbols
  shift 2
  nm -D --undefined-only "$program" | awk '$1 == "U" { print $2 }' |
    awk -F@ 'NR == FNR { have[$1]; next } !($1 in have)' \
      <(nm -D --defined-only --without-symbol-versions "$@" | awk 'NF == 3 { print $3 }' | LC_ALL=C sort -u) - |
    LC_ALL=C sort -u >"$symbols"
  [[ -s $symbols ]] || die "nothing stands in for anything: has $(basename "$program") changed?"
  awk -F@ '{ printf "long %s(void) { return -1; }\n", $1 }' "$symbols" >"$work/stand-in.c"
  awk -F@ 'NF > 1 { names[$2] = names[$2] " " $1 ";" }
    END { for (version in names) printf "%s { global:%s };\n", version, names[version] }' "$symbols" >"$work/versions"
  gcc -shared -fPIC -O1 -w -fno-builtin -nostdlib -Wl,--version-script="$work/versions" -o "$library" "$work/stand-in.c"
}
