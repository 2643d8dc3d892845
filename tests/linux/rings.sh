# shellcheck shell=dash
# For the tests of virtio queues, sourced in the guest.

# Feature bits 34 (packed rings) and 40 (queues reset alone) of each virtio device.
features() {
  for device in /sys/bus/virtio/devices/*; do
    echo "$(cut -c 35 "$device/features")$(cut -c 41 "$device/features")"
  done
}

# What each device gives: the disk's sum, entropy, an address by DHCP.
works() {
  dd if=/dev/vda bs=256k iflag=direct 2>/dev/null | md5sum | cut -c 1-32
  dd if=/dev/hwrng bs=512 count=4 2>/dev/null | wc -c
  udhcpc -i eth0 -n -q -t 20 -T 1 >/dev/null 2>&1 && echo address
}

# rebind DRIVER: takes the driver off its devices and puts it back.
rebind() {
  for device in /sys/bus/virtio/drivers/"$1"/virtio*; do
    echo "${device##*/}" >/sys/bus/virtio/drivers/"$1"/unbind
    echo "${device##*/}" >/sys/bus/virtio/drivers/"$1"/bind
  done
}

# rebind_under_load TIMES: of each device, while requests are under way.
rebind_under_load() {
  for round in $(seq "$1"); do
    for _ in 1 2 3 4; do dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2>/dev/null & done
    usleep $((round * 20000))
    rebind virtio_blk
    wait
    dd if=/dev/hwrng of=/dev/null bs=4k 2>/dev/null &
    usleep 50000
    rebind virtio_rng
    wait
    gateway=$(ip route | sed -n 's/^default via \([^ ]*\).*/\1/p')
    ping -A -c 100000 -s 1400 "$gateway" >/dev/null 2>&1 &
    usleep 100000
    rebind virtio_net
    kill $! 2>/dev/null
    wait
    ip link set eth0 up
    udhcpc -i eth0 -n -q -t 20 -T 1 >/dev/null 2>&1
  done
}

# The same of consoles and the balloon, while the guest prints and its memory comes and goes; round number $1.
rebind_small_under_load() {
  seq 1000000 >/dev/hvc0 2>/dev/null &
  usleep $(($1 * 30000))
  rebind virtio_console
  kill $! 2>/dev/null
  wait
  dd if=/dev/zero of=/tmp/load bs=1M count=16 2>/dev/null &
  usleep $(($1 * 10000))
  rebind virtio_balloon
  wait
  rm -f /tmp/load
  until [ -e /dev/hvc0 ]; do usleep 10000; done
  echo "round $1" >/dev/hvc0
  echo "round $1"
}

# answer NAME LINE: when that line comes through a channel it goes back with "heard" before it.
answer() {
  port=
  until [ -n "$port" ]; do
    for p in /sys/class/virtio-ports/*; do
      [ "$(cat "$p/name" 2>/dev/null)" = "$1" ] && port=/dev/${p##*/}
    done
  done
  line=
  until [ "$line" = "$2" ]; do read -r line <"$port" || usleep 10000; done
  echo "heard $line" >"$port"
}

# What the kernel has to say of it. Requests of a disk that is taken away fail.
complaints() {
  dmesg -r | grep -E '^<[0-4]>.*(virtio|vd[ab]|eth0|rng)' | grep -v 'I/O error, dev vda'
  true
}
