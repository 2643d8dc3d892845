# shellcheck shell=bash disable=SC2154
# What tools/package needs to know of Debian packages. Sourced by it; uses its $top and $work, and SOURCE_DATE_EPOCH.

# Libraries that are in the static program, by the Debian package they come from.
linked_packages=(libc6-dev "libstdc++-$(gcc -dumpversion)-dev" libfmt-dev libspdlog-dev libcli11-dev libyaml-cpp-dev libexpected-dev zlib1g-dev
  libdeflate-dev liblz4-dev libzstd-dev liblzma-dev libbz2-dev libarchive-dev liburing-dev nlohmann-json3-dev)

maintainer() { printf '%s <%s>\n' "${DEBFULLNAME:-The snug authors}" "${DEBEMAIL:-snug@packages.invalid}"; }

# version_of PACKAGE: what the default image was made from.
version_of() { sed -n 's/^[^ ]* //p' "$(snug_cache)/versions/$1"; }

# source_of PACKAGE VERSION: "SOURCE (= VERSION)", as Built-Using has it.
source_of() {
  local source
  source=$(apt-cache show "$1=$2" 2>/dev/null | sed -n 's/^Source: //p' | head -n 1)
  source=${source:-$1}
  if [[ $source == *'('* ]]; then
    printf '%s (= %s\n' "${source%% *}" "${source##*(}"
  else
    printf '%s (= %s)\n' "$source" "$2"
  fi
}

# built_using: the sources of the programs in the default image, whose licences ask for them.
built_using() {
  printf '%s, %s\n' "$(source_of busybox-static "$(version_of busybox-static)")" \
    "$(source_of "$kernel_source" "$(version_of "$kernel_source")")"
}
kernel_source=$(cd "$top/guest-images" && bash -c 'source tiny-kernel/recipe.sh; printf "%s\n" "${packages[0]}"')

# write_copyright: DEP-5, on stdout. The texts of the libraries' own licences follow word for word, from the packages that
# this program was linked with.
write_copyright() {
  cat <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: snug

Files: *
Copyright: The snug authors
License: Apache-2.0
 On Debian systems the whole text is in /usr/share/common-licenses/Apache-2.0.

Files: usr/share/snug/images/default/kernel
Copyright: Linus Torvalds and others
License: GPL-2
 Linux, compiled from Debian's package $kernel_source $(version_of "$kernel_source")
 by the recipe guest-images/tiny-kernel, which comes along.
 On Debian systems the whole text is in /usr/share/common-licenses/GPL-2.

Files: usr/share/snug/images/default/initrd
Copyright: Erik Andersen, Rob Landley, Denys Vlasenko and others
License: GPL-2
 An archive of busybox, as it is in Debian's package busybox-static
 $(version_of busybox-static), and of files of snug's own.
 On Debian systems the whole text is in /usr/share/common-licenses/GPL-2.

Comment: The program is linked with the following libraries; what their Debian
 packages say of copyright and licence follows.
END
  local package file
  for package in "${linked_packages[@]}"; do
    file=/usr/share/doc/$package/copyright
    [[ -f $file ]] || continue
    printf '\n%s\n%s\n\n' "--- $package $(dpkg-query -W -f '${Version}' "$package")" "---"
    cat "$file"
  done
}

# add_documentation TREE PACKAGE VERSION: what policy wants in /usr/share/doc, and manuals compressed.
add_documentation() {
  local folder=$1/usr/share/doc/$2
  install -d "$folder"
  write_copyright >"$folder/copyright"
  {
    printf '%s (%s) unstable; urgency=medium\n\n  * See NEWS.gz.\n\n -- %s  %s\n' "$2" "$3" "$(maintainer)" \
      "$(date -R -d "@$SOURCE_DATE_EPOCH")"
  } | gzip -9n >"$folder/changelog.gz"
  local news=$top/CHANGELOG.md
  [[ ! -f $news ]] || gzip -9nc "$news" >"$folder/NEWS.gz"
  [[ ! -d $1/usr/share/man ]] || find "$1/usr/share/man" -type f ! -name '*.gz' -exec gzip -9n {} +
}

# add_overrides TREE: what lintian is told, with the reason.
add_overrides() {
  install -d "$1/usr/share/lintian/overrides"
  cat >"$1/usr/share/lintian/overrides/snug" <<'END'
# A short-lived monitor spends a good part of its time in the dynamic loader otherwise.
snug: statically-linked-binary [usr/bin/snug]
# It is at a random address all the same, as only libraries used to be.
snug: shared-library-lacks-prerequisites [usr/bin/snug]
# A library that is part of the program for the same reason.
snug: embedded-library *
END
}

# make_deb TREE FILE COMPRESSION...: the package, of TREE and of the control file on stdin, which gets its Installed-Size here.
make_deb() {
  local tree=$1 size
  size=$(find "$tree" -type f -printf '%s\n' | awk '{ kib += int(($1 + 1023) / 1024) } END { print kib }')
  (cd "$tree" && find . -type f -printf '%P\0' | sort -z | xargs -0 md5sum) >"$work/md5sums"
  install -d "$tree/DEBIAN"
  sed "s/^Description:/Installed-Size: $size\n&/" >"$tree/DEBIAN/control"
  install -m 644 "$work/md5sums" "$tree/DEBIAN/md5sums"
  find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  # One thread: with more, how the data is cut depends on their number.
  quietly "$work/dpkg-deb.log" dpkg-deb --root-owner-group --threads-max=1 "${@:3}" --build "$tree" "$2"
}
