# shellcheck shell=bash disable=SC2034,SC2154
# The lab on AMD-V: QEMU's software CPU. Sourced by tools/lab.

lab_image=lab
lab_packages=(lab)
lab_program=qemu-system-x86_64
default_memory=6G
boot_seconds=600 # many times what it takes on a busy development machine (--icount: three times that)

# check_options: usage errors that are this lab's own.
check_options() {
  [[ -z $model ]] || usage_error "--model is for --host intel"
  [[ $memory =~ ^[1-9][0-9]*[MG]$ ]] || usage_error "--memory takes a size such as 512M or 6G"
  [[ -z $terminal || -t 0 ]] || usage_error "--tty needs a terminal"
}

# escaped PATH: PATH as QEMU wants it inside an option.
escaped() { printf '%s\n' "${1//,/,,}"; }

# start_machine: in the background; sets `machine`, its process. The kernel's log goes to $work/console, what the emulator
# says to $work/emulator.
start_machine() {
  # TCG can lose an interrupt that comes while a nested guest exits (two threads change one word without a lock). With
  # a periodic tick the next one brings it; a tickless kernel that waits for just that one would sleep for ever. Under
  # --icount one thread does it all.
  local clock="nohz=off highres=off" stream number
  [[ -z $icount ]] || clock=''

  # No XSAVE: TCG runs a guest's XSETBV itself where KVM has asked to be told, so that guest and KVM disagree about the
  # size of the state, and signals in the guest end in a segmentation fault.
  # no_timer_check: on a busy host the kernel's own trial of the timer can fail, and it panics. tsc=reliable: the same host
  # makes it doubt its clock in the middle of a run; KVM then mends the guests' clocks at every turn, on a path that few use.
  local options=(
    -M q35 -cpu "max,+svm,+npt,-xsave" -smp "$cpus" -m "$memory" -nodefaults -no-user-config -display none -no-reboot
    -kernel "$image/vmlinuz" -initrd "$image/initrd"
    -append "console=ttyS0 quiet panic=-1 nowatchdog no_timer_check tsc=reliable $clock"
    -serial "file:$work/console"
    -device virtio-serial-pci
  )
  if [[ -n $icount ]]; then
    options+=(-accel "tcg,thread=single" -icount "shift=0,sleep=off")
  else
    options+=(-accel "tcg,thread=multi")
  fi
  for stream in stdout stderr status; do
    options+=(
      -chardev "file,id=$stream,path=$(escaped "$work/$stream")"
      -device "virtserialport,chardev=$stream,name=$stream"
    )
  done
  options+=(
    -virtfs "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"
    -virtfs "local,path=$(escaped "$work/job"),mount_tag=job,security_model=none,readonly=on"
  )
  for number in "${!shares[@]}"; do
    options+=(-virtfs
      "local,path=$(escaped "${shares[number]}"),mount_tag=share$number,security_model=none,multidevs=remap")
  done
  if [[ -n $terminal ]]; then
    options+=(-chardev "stdio,id=tty,signal=off" -serial chardev:tty)
    exec 3<&0
  else
    exec 3</dev/null
  fi
  qemu-system-x86_64 "${options[@]}" <&3 2>"$work/emulator" >&"$([[ -n $terminal ]] && echo 1 || echo 2)" &
  machine=$!
}
