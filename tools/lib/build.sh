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

# build_tree FOLDER [MESON-OPTION...]: configures FOLDER once and brings it up to date.
build_tree() {
  local folder=$1
  shift
  mkdir -p "$folder"
  if [[ ! -f $folder/build.ninja ]]; then
    quietly "$folder/setup.log" meson setup "$folder" "$@"
  fi
  quietly "$folder/build.log" ninja -C "$folder"
}

# build_snug FOLDER: the program alone, without tests.
build_snug() {
  local folder=$1
  mkdir -p "$folder"
  if [[ ! -f $folder/build.ninja ]]; then
    quietly "$folder/setup.log" meson setup "$folder"
  fi
  quietly "$folder/build.log" ninja -C "$folder" vmm/cli/snug
}
