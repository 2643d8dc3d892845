# shellcheck shell=bash disable=SC2034,SC2154
about="container images of Debian's busybox, nginx, redis and postgresql, in an OCI layout: for the tests of snug run --image"
needs=(image)
# One release's packages, whatever this machine is: what needs what is listed here, and checked.
from_release=bookworm

# The layer that all but the first have in common, and what each adds.
base_packages=(
  busybox-static libc6 libssl3 zlib1g libcrypt1 libsystemd0 libcap2 libgcrypt20 libgpg-error0 liblz4-1 liblzma5 libzstd1
  libgcc-s1 libstdc++6 libuuid1 libpcre2-8-0
)
nginx_packages=(nginx nginx-common)
redis_packages=(redis-server redis-tools libatomic1 libjemalloc2 liblzf1)
postgres_packages=(
  postgresql-15 postgresql-client-15 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1
  libicu72 libldap-2.5-0 libsasl2-2 libgnutls30 libnettle8 libhogweed6 libgmp10 libp11-kit0 libffi8 libidn2-0
  libunistring2 libtasn1-6 libpam0g libaudit1 libcap-ng0 libpq5 libselinux1 libxml2 libxslt1.1 libreadline8 libtinfo6
  libedit2 libbsd0 libmd0 tzdata
)
packages=("${base_packages[@]}" "${nginx_packages[@]}" "${redis_packages[@]}" "${postgres_packages[@]}")

# In the folder: layout, with the tags busybox, nginx, redis, postgres and layered.
make_image() {
  command -v python3 >/dev/null || die "images are put together by python3; run: sudo apt-get install python3"
  local package
  for package in "${base_packages[@]}"; do unpack_package "$package" "$work/base"; done
  for package in "${nginx_packages[@]}"; do unpack_package "$package" "$work/nginx"; done
  for package in "${redis_packages[@]}"; do unpack_package "$package" "$work/redis"; done
  for package in "${postgres_packages[@]}"; do unpack_package "$package" "$work/postgres"; done
  # Compiled code of queries wants LLVM, which is larger than all else.
  rm -rf "$work"/postgres/usr/lib/postgresql/*/lib/{llvmjit*,bitcode}
  for package in nginx redis postgres; do check_libraries "$package"; done
  python3 -B "$guest_images/app-images/layers.py" "$work" "$1/layout" || die "could not put the images together"
}

# check_libraries APP: every library that its programs and libraries want is in its tree or the common one.
check_libraries() {
  local library missing=
  while read -r library; do
    [[ -n $(find "$work/$1" "$work/base" -name "$library" -print -quit) ]] || missing+=" $library"
  done < <(find "$work/$1" "$work/base" -type f \( -path '*bin/*' -o -name 'lib*.so.*' \) -exec readelf -dW {} + 2>/dev/null |
    sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | LC_ALL=C sort -u)
  [[ -z $missing ]] || die "$1 lacks libraries; add their packages to the recipe:$missing"
}
