# shellcheck shell=bash disable=SC2154
# Linux guests where they need labs. Sourced by tools/test after counting.sh.

# An emulated machine on a busy host has stalls that no real one has, and some leave it unfit for guests. So the lab is
# left at a failed test, and a fresh one goes on with that test and those behind it: a test that fails twice has failed;
# one that passes then is named as unsteady at the end, with its first report. No more than $fresh_labs times, so that a
# broken snug does not take all day, and none begins when the time for a run is over.

# lab_limit: for tools/lab --timeout. The tests look at the time that is left themselves; a lab in which none goes on ends.
lab_limit() {
  set_time_left
  echo "$((${SNUG_TESTS_SECONDS:-8 * 3600} + 360))s"
}

# reported OUTCOME: names of the tests with that outcome (a pattern of sed -E) in $lab_log, once for each report.
reported() { sed -nE "s/^  ($1) +([a-z0-9-]+\\.[a-z0-9_A-Z.]+).*/\\2/p" "$lab_log" | sort; }

# lab_boot LAB-OPTION... -- COMMAND...: one lab boot for the tests that are not done yet; adds to $lab_log, sets
# $lab_status. Done is what passed, was skipped, or has failed twice.
lab_boot() {
  local part=$logs/$tier-part.log under_way
  set_time_left
  set +e
  SNUG_TESTS_DONE=$({ reported 'ok|skipped' && reported FAILED | uniq -d; } | xargs) \
    tools/lab --timeout "$(lab_limit)" "$@" 2>&1 | tee "$part" | grep --line-buffered -v '^  start '
  lab_status=${PIPESTATUS[0]}
  set -e
  cat "$part" >>"$lab_log"
  if [[ $lab_status == 124 || $lab_status == 125 ]]; then
    under_way=$(sed -n 's/^  start  *//p' "$part" | tail -n 1)
    printf '  FAILED  %s: the lab itself failed (status %s)\n' "${under_way:-$tier.lab}" "$lab_status" | tee -a "$lab_log"
  fi
}

# run_in_labs LAB-OPTION... -- COMMAND...: the tests of COMMAND, in as many labs as it takes.
run_in_labs() {
  local lab_log=$logs/$tier.log lab_status=75 fresh_labs=8 bad out unsteady
  : >"$lab_log"
  while [[ $lab_status == 75 || $lab_status == 124 || $lab_status == 125 ]] &&
    ((fresh_labs-- > 0 && ${SNUG_TESTS_SECONDS:-1} > 0)); do
    SNUG_TESTS_STOP=$((fresh_labs > 0)) lab_boot "$@"
    set_time_left
    [[ $lab_status != 75 ]] || note "going on in a fresh lab"
  done
  keep_failures "$lab_log"
  bad=$(comm -23 <(reported FAILED | uniq) <(reported ok | uniq) | wc -l)
  unsteady=$(comm -12 <(reported FAILED | uniq) <(reported ok | uniq) | xargs)
  [[ -z $unsteady ]] || said unsteady "$unsteady"
  out=$(reported skipped | uniq | wc -l)
  # Something died that no test speaks of.
  if [[ $lab_status == 75 ]]; then
    skip "$tier" "the tests behind the last failure: the time for a run is over"
  elif [[ $lab_status -gt 1 || ($lab_status == 1 && $bad == 0) ]]; then
    bad=$((bad + 1))
    printf '  FAILED  the lab ended with status %s; its last lines:\n' "$lab_status" >>"$failures"
    tail -n 15 "$lab_log" | sed 's/^/    | /' >>"$failures"
  fi
  passed=$((passed + $(reported ok | uniq | wc -l))) failed=$((failed + bad)) skipped=$((skipped + out))
}
