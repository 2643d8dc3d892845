# shellcheck shell=bash
# Building snug. Sourced after common.sh.

# quietly LOG COMMAND...: runs COMMAND with its output in LOG, which is shown only when it fails.
quietly() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 || {
    tail -n 60 "$log" >&2
    die "failed: $* (whole output: $log)"
  }
}

# For those who have ccache: our precompiled headers have no __TIME__ in them.
export CCACHE_SLOPPINESS=pch_defines,time_macros

# Line numbers, but no variables, for debuggers and sanitizers: a third less to compile.
light=(-Dcpp_args=-g1)

# configure_tree FOLDER [MESON-OPTION...]: once.
configure_tree() {
  local folder=$1
  shift
  mkdir -p "$folder"
  [[ -f $folder/build.ninja ]] || quietly "$folder/setup.log" meson setup "$folder" "$@"
}

# build_targets FOLDER [TARGET...]: brings these up to date in a configured tree; without any, everything.
build_targets() {
  local folder=$1
  shift
  quietly "$folder/build.log" ninja -C "$folder" "$@"
}

# build_tree FOLDER [MESON-OPTION...]: configures FOLDER once and brings all of it up to date.
build_tree() {
  configure_tree "$@"
  build_targets "$1"
}

# build_snug FOLDER: the program alone, without tests.
build_snug() {
  configure_tree "$1" "${light[@]}"
  build_targets "$1" vmm/cli/snug
}
