# shellcheck shell=bash disable=SC2034,SC2154
# The lab on Intel VT-x: Bochs. Sourced by tools/lab.

lab_image=lab-intel
lab_packages=(lab-intel)
lab_program=bochs
default_memory=2G
boot_seconds=600 # many times what it takes on a busy development machine

# Those with VT-x and EPT that Bochs 2.7 knows; tools/README.md says what is known of them.
lab_models=(corei7_haswell_4770 broadwell_ult corei7_skylake_x corei3_cnl corei7_icelake_u tigerlake)

# check_options: usage errors that are this lab's own.
check_options() {
  [[ -z $icount ]] || usage_error "--icount is for --host amd: Bochs counts instructions anyway, and has no such clock"
  [[ -z $terminal ]] || usage_error "--tty is for --host amd: what Bochs runs has no terminal"
  model=${model:-${lab_models[0]}}
  [[ " ${lab_models[*]} " == *" $model "* ]] || usage_error "--model is one of: ${lab_models[*]}"
  [[ $cpus -le 8 ]] || usage_error "--cpus goes up to 8 with --host intel"
  [[ $memory =~ ^([1-9][0-9]*)([MG])$ ]] || usage_error "--memory takes a size such as 512M or 2G"
  mebibytes=${BASH_REMATCH[1]}
  [[ ${BASH_REMATCH[2]} == M ]] || mebibytes=$((mebibytes * 1024))
  [[ $mebibytes -ge 512 && $mebibytes -le 3072 ]] || usage_error "--memory goes from 512M to 3G with --host intel"
}

# start_machine: in the background; sets `machine`, its process. The kernel's log goes to $work/console, what the emulator
# says to $work/emulator.
start_machine() {
  local number exported=(root=/ -- "job=$work/job")
  for number in "${!shares[@]}"; do exported+=("share$number=${shares[number]}"); done

  # The streams are files beside the job, which the lab writes by way of its file server.
  for number in stdout stderr status; do mv "$work/$number" "$work/job/$number"; ln -s "job/$number" "$work/$number"; done

  # A clock that goes by instructions: bound to this machine's time, it would stand still where that is busy.
  mkdir "$work/tftp"
  printf '# slirp config\n' >"$work/slirp"
  cat >"$work/bochsrc" <<CONFIG
cpu: model=$model, count=$cpus, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest=$mebibytes, host=$mebibytes
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path="$image/lab.iso", status=inserted
boot: cdrom
pci: enabled=1, chipset=i440fx, slot1=e1000
e1000: enabled=1, mac=52:54:00:12:34:56, ethmod=slirp, ethdev="$work/tftp", script="$work/slirp"
com1: enabled=1, mode=file, dev="$work/console"
clock: sync=none, time0=utc
display_library: term
log: "$work/bochs.log"
panic: action=report
error: action=report
CONFIG
  "$tools/lib/lab/bochs.py" "$work" "${exported[@]}" </dev/null >&2 2>"$work/emulator" &
  machine=$!
}
