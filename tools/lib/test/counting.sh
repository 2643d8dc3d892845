# shellcheck shell=bash disable=SC2154
# Counting what tests say. Sourced by tools/test; a tier is a function tier_NAME, which runs in a shell of its own and
# leaves its counts, its time and its words in files of $logs.

logs=$top/build/test-logs
run_seconds=$((72 * 60))     # a slow machine leaves out what does not fit into it, and says so
failures=$logs/failures.log  # what failed, said once more at the end

# counts of the tier that runs in this shell
passed=0 failed=0 skipped=0

# said WORD TEXT...: what the summary says of this tier; WORD is where or unsteady.
said() { printf '%s\n' "${*:2}" >>"$logs/$tier.$1"; }

# set_time_left: SNUG_TESTS_SECONDS, after which the tests begin no more, but with --all.
set_time_left() { [[ ${SNUG_TESTS_ALL:-0} != 0 ]] || export SNUG_TESTS_SECONDS=$((run_seconds - SECONDS)); }

# in_tier NAME: runs tier_NAME and keeps what came of it. Whatever it does, the others go on.
in_tier() {
  local began=$SECONDS status
  rm -f "$logs/$1".{counts,where,unsteady,seconds}
  # Not behind "||": there nothing that fails would end it.
  set +e
  (
    set -e
    tier=$1
    trap 'printf "%s %s %s\n" "$passed" "$failed" "$skipped" >"$logs/$tier.counts"' EXIT
    set_time_left
    if [[ ${SNUG_TESTS_SECONDS:-1} -gt 0 ]]; then
      "tier_$tier"
    else
      skip "$tier" "the $((run_seconds / 60)) minutes for a run are over (--all has no end)"
    fi
  )
  status=$?
  set -e
  [[ $status == 0 ]] || fell "$1"
  echo $((SECONDS - began)) >"$logs/$1.seconds"
}

# fell TIER: it ended before its end.
fell() {
  local counts
  printf '  FAILED  %s: the tier stopped before its end\n' "$1" | tee -a "$failures"
  counts=$(cat "$logs/$1.counts" 2>/dev/null || echo '0 0 0')
  awk '{ print $1, $2 + 1, $3 }' <<<"$counts" >"$logs/$1.counts"
}

# keep_failures LOG: the failures that a log of the black-box tests reports, each with the start of its report.
keep_failures() {
  awk '/^  FAILED / { left = 25 } /^  (ok|start|skipped) / { left = 0 } left-- > 0' "$1" >>"$failures"
}

# skip WHAT WHY
skip() {
  printf '  skipped %s: %s\n' "$1" "$2"
  skipped=$((skipped + 1))
}

# count_line LOG: adds up its last line "... N passed, N failed, N skipped"; false when there is none.
count_line() {
  local line
  line=$(grep -E '[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$1" | tail -n 1) || return 1
  [[ $line =~ ([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]] || return 1
  passed=$((passed + BASH_REMATCH[1]))
  failed=$((failed + BASH_REMATCH[2]))
  skipped=$((skipped + BASH_REMATCH[3]))
}

# run_script NAME COMMAND...: a test program that ends with such a line.
run_script() {
  local status=0
  "${@:2}" 2>&1 | tee "$logs/$1.log" || status=$?
  count_script "$1" "$status"
}

# run_scripts NAME COMMAND... -- NAME COMMAND...: two of them at a time; what the second says is shown behind.
run_scripts() {
  local first=() second other status=0
  while [[ $1 != -- ]]; do
    first+=("$1")
    shift
  done
  second=("${@:2}")
  "${second[@]:1}" >"$logs/${second[0]}.log" 2>&1 &
  other=$!
  run_script "${first[@]}"
  wait "$other" || status=$?
  cat "$logs/${second[0]}.log"
  count_script "${second[0]}" "$status"
}

# count_script NAME STATUS: what such a program has left in its log.
count_script() {
  local name=$1 log=$logs/$1.log status=$2 before=$failed
  keep_failures "$log"
  if ! count_line "$log" || [[ $status != 0 && $failed == "$before" ]]; then
    printf '  FAILED  %s: ended with status %s\n' "$name" "$status" | tee -a "$failures"
    failed=$((failed + 1))
  fi
}

# run_check NAME COMMAND...: one check, by its exit status; 77: it was skipped, for the reason that it printed last.
run_check() {
  local name=$1 log=$logs/$1.log status=0
  shift
  "$@" >"$log" 2>&1 || status=$?
  case $status in
    0)
      printf '  ok      %s\n' "$name"
      passed=$((passed + 1))
      ;;
    77) skip "$name" "$(tail -n 1 "$log")" ;;
    *)
      {
        printf '  FAILED  %s\n' "$name"
        tail -n 40 "$log" | sed 's/^/    | /'
      } | tee -a "$failures"
      failed=$((failed + 1))
      ;;
  esac
}

# run_gtest NAME COMMAND...: a GoogleTest program; prints its failures and skips.
run_gtest() {
  gtest_into_log "$@"
  count_gtest "$1"
}

# run_gtests: those on stdin, a line "NAME PROGRAM" each, as many at a time as there are processors.
run_gtests() {
  local name program names=()
  while read -r name program; do
    while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n || true; done
    gtest_into_log "$name" "$program" &
    names+=("$name")
  done
  wait
  for name in "${names[@]}"; do count_gtest "$name"; done
}

# gtest_into_log NAME COMMAND...: its output in $logs/NAME.log, its status in $logs/NAME.status.
gtest_into_log() {
  local name=$1 status=0
  shift
  "$@" --gtest_color=no >"$logs/$name.log" 2>&1 </dev/null || status=$?
  echo "$status" >"$logs/$name.status"
}

# count_gtest NAME: what such a program has left.
count_gtest() {
  local name=$1 log=$logs/$1.log status ok bad out
  status=$(cat "$logs/$1.status")
  ok=$(grep -cE '^\[       OK \]' "$log" || true)
  bad=$(grep -cE '^\[  FAILED  \] [^ ]+ \(' "$log" || true)
  out=$(grep -cE '^\[  SKIPPED \] [^ ]+ \(' "$log" || true)
  # A program that dies in the middle has failed, whatever it counted; so has one that ran nothing.
  if [[ $status != 0 && $bad == 0 ]] || [[ $((ok + bad + out)) == 0 ]]; then
    bad=$((bad + 1))
    {
      printf '  FAILED  %s: ended with status %s\n' "$name" "$status"
      tail -n 40 "$log" | sed 's/^/    | /'
    } | tee -a "$failures"
  elif [[ $bad != 0 ]]; then
    {
      printf '  FAILED  %s\n' "$name"
      grep -vE '^\[ (RUN|      OK) ' "$log" | tail -n 60 | sed 's/^/    | /'
    } | tee -a "$failures"
  elif [[ $out != 0 ]]; then
    grep -B2 -E '^\[  SKIPPED \] [^ ]+ \(' "$log" | grep -vE '^(--|\[ RUN)' | sort | uniq -c | head -n 8
  fi
  printf '  %-28s %s passed, %s failed, %s skipped\n' "$name" "$ok" "$bad" "$out"
  passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + out))
}
