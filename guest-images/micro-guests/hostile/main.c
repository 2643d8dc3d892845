// Takes commands on the serial port, a line each:
//   list        prints "case NAME" for each case, then "end"
//   run NAME    runs a case and prints "ran: ok", or what was not as specified; then waits for an empty line,
//   resets
//               the device, and prints "back: ok", or what does not work
//   round       every fourth case, one behind the other; prints "round: ok", or the first that failed
//   deliver N   lets the first device interrupt with delivery mode N, which may be the last thing that this
//   guest does quit        powers off
#include "hostile.h"

static Device devices[9];
static size_t device_count;

static const CaseSet* const sets[] = {
    &ring_cases,       &indirect_cases, &packed_cases,  &layout_cases,  &queue_reset_cases,
    &status_cases,     &register_cases, &msix_cases,    &bar_cases,     &loop_cases,
    &config_cases,     &block_cases,    &net_cases,     &rng_cases,     &vsock_cases,
    &connection_cases, &balloon_cases,  &console_cases, &channel_cases,
    &fs_cases,         &pmem_cases,
};

static void find(DeviceType type, const char* name) {
  if (virtio_find(type, name, &devices[device_count])) ++device_count;
}

// Calls visit() for each case; stops when that says so.
static bool each_case(bool (*visit)(Device*, const CaseSet*, const Case*, const void*),
                      const void* argument) {
  for (size_t d = 0; d < device_count; ++d)
    for (size_t s = 0; s < sizeof sets / sizeof *sets; ++s)
      for (size_t c = 0; c < sets[s]->count; ++c)
        if ((sets[s]->device == EVERY_DEVICE || sets[s]->device == devices[d].type) &&
            (devices[d].offered & sets[s]->needs) == sets[s]->needs)
          if (visit(&devices[d], sets[s], &sets[s]->cases[c], argument)) return true;
  return false;
}

static void print_name(const Device* device, const CaseSet* set, const Case* one) {
  print(device->name);
  print(".");
  print(set->name);
  print(".");
  print(one->name);
}

static bool list(Device* device, const CaseSet* set, const Case* one, const void* argument) {
  (void)argument;
  print("case ");
  print_name(device, set, one);
  print("\r\n");
  return false;
}

static bool is_named(const Device* device, const CaseSet* set, const Case* one, const char* name) {
  const char* const parts[] = {device->name, ".", set->name, ".", one->name};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i) {
    if (!starts_with(name, parts[i])) return false;
    for (const char* at = parts[i]; *at != 0; ++at) ++name;
  }
  return *name == 0;
}

static void print_outcome(const char* what, Outcome outcome) {
  print(what);
  print(outcome == NULL ? "ok" : outcome);
  print("\r\n");
}

// A case finds a device that works.
static Outcome run(Device* device, const Case* one) {
  pool_release(0);
  TRY(start(device, DEFAULT_FEATURES));
  return one->run(device);
}

static bool run_named(Device* device, const CaseSet* set, const Case* one, const void* name) {
  if (!is_named(device, set, one, name)) return false;
  print_outcome("ran: ", run(device, one));
  char line[8];
  read_line(line, sizeof line);
  pool_release(0);
  print_outcome("back: ", recover(device));
  return true;
}

static bool run_quickly(Device* device, const CaseSet* set, const Case* one, const void* argument) {
  (void)argument;
  static unsigned count = 0;
  if (device == devices && set == sets[0] && one == set->cases) count = 0;
  // Those that go on for long are for themselves.
  if (set == &loop_cases || count++ % 4 != 0) return false;
  Outcome outcome = run(device, one);
  pool_release(0);
  if (outcome == NULL) outcome = recover(device);
  if (outcome == NULL) return false;
  print("round: ");
  print_name(device, set, one);
  print_outcome(": ", outcome);
  return true;
}

// PCI Local Bus 3.0, 6.8.2; Intel SDM vol. 3, 11.11.2: bits 8 to 10 of the data, such as 4 for NMI and 5 for
// INIT.
static void deliver(u32 mode) {
  Device* device = &devices[0];
  pool_release(0);
  Outcome outcome = start(device, DEFAULT_FEATURES);
  write32(device->table + 16 * (requests_of(device)->index + 1u) + 8, mode << 8 | kFirstVector);
  if (outcome == NULL) outcome = good_request(device);
  print_outcome("delivered: ", outcome);
}

void guest_main(void) {
  find(kRng, "rng");
  find(kBlock, "blk");
  find(kNet, "net");
  find(kVsock, "vsock");
  find(kBalloon, "balloon");
  find(kConsole, "console");
  find(kChannels, "channels");
  find(kFs, "fs");
  find(kPmem, "pmem");
  print("hostile: ready\r\n");
  for (;;) {
    char line[80];
    read_line(line, sizeof line);
    if (equal(line, "quit")) return;
    if (equal(line, "list")) {
      each_case(list, NULL);
      print("end\r\n");
    } else if (equal(line, "round")) {
      if (!each_case(run_quickly, NULL)) print("round: ok\r\n");
    } else if (starts_with(line, "deliver ")) {
      deliver((u32)(line[8] - '0'));
    } else if (!starts_with(line, "run ") || !each_case(run_named, line + 4)) {
      print("hostile: unknown command\r\n");
    }
  }
}
