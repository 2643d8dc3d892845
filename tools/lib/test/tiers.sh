# shellcheck shell=bash disable=SC2154
# The tiers of tools/test, one function each. Sourced by it after counting.sh and linux_lab.sh; each runs in a shell of
# its own, with the folder of the sources as its own.

called=$logs/calls  # a file for each tier whose machines note which system calls they make

tier_checks() {
  run_check formatting tools/checks/formatting
  run_check dependencies tools/checks/dependencies
  run_check documents tools/checks/documents
  if [[ ${SNUG_TESTS_ALL:-0} == 0 ]]; then
    skip headers "one of the exhaustive checks (tools/test --all)"
  else
    run_check headers tools/checks/headers
  fi
  run_check shell tools/checks/shell
}

threaded=(tests/unit/control/unit-control tests/unit/core/unit-core tests/unit/host/unit-host tests/unit/machine/unit-machine)

tier_unit() {
  note "building with TSan"
  configure_tree build/tsan "${light[@]}" -Db_sanitize=thread -Doptimization=1
  build_targets build/tsan "${threaded[@]}"
  run_gtests < <(unit_programs)
  said where "on this machine"
}

# unit_programs: a line "NAME PROGRAM" for each.
unit_programs() {
  local program
  for program in build/asan/tests/unit/*/unit-*; do
    [[ -x $program && ! -d $program ]] || continue
    printf '%s-asan %s\n' "$(basename "$program")" "$program"
    [[ ${SNUG_TESTS_ALL:-0} == 0 ]] || printf '%s %s\n' "$(basename "$program")" "build/${program#build/asan/}"
  done
  for program in "${threaded[@]}"; do printf '%s-tsan %s\n' "$(basename "$program")" "build/tsan/$program"; done
}

tier_fuzz() {
  local log=$logs/fuzz.log ok bad
  meson test -C build/asan --no-rebuild --suite fuzz --print-errorlogs >"$log" 2>&1 || true
  grep -E '^ *[0-9]+/[0-9]+ ' "$log" || true
  ok=$(sed -n 's/^Ok: *\([0-9]*\).*/\1/p' "$log")
  bad=$(grep -cE '^ *[0-9]+/[0-9]+ .*(FAIL|TIMEOUT|ERROR|INTERRUPT)' "$log" || true)
  if [[ ${ok:-0} == 0 && $bad == 0 ]]; then bad=1; fi
  [[ $bad == 0 ]] || tail -n 60 "$log" | sed 's/^/    | /' | tee -a "$failures"
  passed=$((passed + ${ok:-0})) failed=$((failed + bad))
  said where "corpora, on this machine"
}

tier_cli() {
  prepare_images micro-guests stock-kernel initrd
  run_script cli env SNUG_BIN="$snug" SNUG_BIN_ASAN="$top/build/asan/vmm/cli/snug" python3 tests/cli/run.py
  said where "on this machine"
}

tier_guest() {
  if [[ ! -r /dev/kvm || ! -w /dev/kvm ]]; then
    skip guest "no usable /dev/kvm on this machine (the sandbox tier runs them in the lab)"
    said where "in the lab"
    return
  fi
  prepare_images micro-guests
  run_gtest guest-tests build/tests/guest/guest-tests
  local note=()
  [[ -z $(wanted calls) ]] || note=(SNUG_JAIL_AUDIT="$called/guest")
  run_scripts guest-run env SNUG_BIN="$snug" "${note[@]}" python3 tests/guest/run.py -- \
    guest-run-asan env SNUG_BIN="$top/build/asan/vmm/cli/snug" python3 tests/guest/run.py hostile
  said where "on this machine's /dev/kvm"
}

tier_linux() { linux_guests machine; }
tier_sandbox() { linux_guests sandbox; }

# linux_guests PART: of tests/linux/run.py, where Linux guests can be booted.
linux_guests() {
  prepare_images micro-guests "${linux_images[@]}"
  export SNUG_BIN=$snug
  local share=()
  if [[ -n $(wanted calls) ]]; then
    export SNUG_JAIL_AUDIT=$called/$tier
    share=(--share "$called")
  fi
  if "$snug" doctor >"$logs/$tier-doctor.log"; then
    run_script "$tier" python3 tests/linux/run.py "$1"
    said where "on this machine's KVM"
  else
    note "Linux guests run in the lab: $(grep -m1 PROBLEM "$logs/$tier-doctor.log" | sed 's/ *PROBLEM *//')"
    tools/lab --prepare
    run_in_labs "${share[@]}" -- tests/linux/lab-suite "$1"
    said where "in the lab"
  fi
}

tier_bench() {
  prepare_images stock-kernel tiny-kernel initrd initrd-lean
  tools/lab --prepare
  run_script bench env SNUG_BIN="$snug" SNUG_BENCH_BOUND=1e9 tools/lab --icount --timeout "$(lab_limit)" --env SNUG_BENCH_BOUND -- \
    python3 tests/bench/run.py
  said where "in the lab, instructions counted"
}

tier_intel() {
  prepare_images micro-guests "${linux_images[@]}"
  export SNUG_BIN=$snug
  tools/lab --host intel --prepare
  run_script intel tools/lab --host intel --timeout "$(lab_limit)" -- tests/linux/intel-suite
  said where "in the Intel lab"
}

# The table of vmm/jail against what the machines of the tiers before have called, which note it when this tier is wanted.
tier_calls() {
  local judge=(build/tests/unit/jail/judge-calls)
  if ! cat "$called"/* >"$logs/called.txt" 2>/dev/null; then
    skip calls "no tier has noted which system calls machines make (guest, linux and sandbox do)"
    return
  fi
  [[ ! -s $called/linux || ! -s $called/sandbox ]] || judge+=(--linux)
  run_check calls "${judge[@]}" "$logs/called.txt"
  said where "over what the tiers before have noted"
}

tier_releases() {
  run_script releases tests/releases/run
  said where "in roots of other releases"
}

tier_package() {
  ensure_packages rootfs
  run_script package tests/package/run
  said where "in fresh roots, in the lab"
}

linux_images=(stock-kernel stock-modules stock-kernel-full trixie-kernels tiny-kernel initrd initrd-lean fio debian-rootfs app-images)

# The variables by which tests find images.
declare -A image_variables=(
  [micro-guests]=SNUG_IMAGE_MICRO [stock-kernel]=SNUG_IMAGE_STOCK [stock-modules]=SNUG_IMAGE_STOCK_MODULES
  [stock-kernel-full]=SNUG_IMAGE_STOCK_FULL [trixie-kernels]=SNUG_IMAGE_TRIXIE [tiny-kernel]=SNUG_IMAGE_TINY [initrd]=SNUG_IMAGE_INITRD
  [initrd-lean]=SNUG_IMAGE_INITRD_LEAN [fio]=SNUG_IMAGE_FIO [debian-rootfs]=SNUG_IMAGE_DEBIAN
  [app-images]=SNUG_IMAGE_APPS
)

# prepare_images TARGET...: makes those that are not there, and sets their variables.
prepare_images() {
  local image path
  for image; do
    path=$(guest-images/build "$image" | tail -n 1)
    export "${image_variables[$image]}=$path"
  done
}
