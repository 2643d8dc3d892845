# shellcheck shell=bash
# Helpers every snug script shares. To be sourced, after `set -euo pipefail`.
#
# Progress and errors go to stderr: stdout belongs to whatever the script was asked to print.

# note TEXT...: one line of progress, in the name of this script or of the program that has called it.
note() { printf '%s: %s\n' "${SNUG_SPEAKS_AS:-${0##*/}}" "$*" >&2; }

# die TEXT...: one line saying what went wrong and what to do about it, then exit 1.
die() {
  note "error: $*"
  exit 1
}

# usage_error TEXT...: the caller asked for something that does not exist; exit 2.
usage_error() {
  note "error: $* (try --help)"
  exit 2
}

# show_help FILE: prints the comment block at the top of FILE, which is its manual.
show_help() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"; }

# snug_cache: where artefacts are kept; every one of them can be built again.
snug_cache() {
  if [[ -n ${XDG_CACHE_HOME:-} ]]; then
    printf '%s/snug\n' "$XDG_CACHE_HOME"
  elif [[ -n ${HOME:-} ]]; then
    printf '%s/.cache/snug\n' "$HOME"
  else
    die "neither XDG_CACHE_HOME nor HOME is set: nowhere to keep images"
  fi
}

# parse_seconds DURATION: "90", "90s", "30m" or "2h" as a number of seconds; false if it is none of these.
parse_seconds() {
  [[ $1 =~ ^([0-9]{1,7})([smh]?)$ ]] || return 1
  local -i number=$((10#${BASH_REMATCH[1]}))
  case ${BASH_REMATCH[2]} in
    m) number=$((number * 60)) ;;
    h) number=$((number * 3600)) ;;
  esac
  printf '%d\n' "$number"
}
