#include "guest-images/agent/renewal.h"

#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>

#include "guest-images/agent/interface.h"
#include "guest-images/agent/new_root.h"
#include "guest-images/agent/small_files.h"

namespace snug::agent {
namespace {

using Clock = std::chrono::steady_clock;

// As the monitor has it: it pulls the cable out before the guest goes on, and plugs it in after some seconds
// at the latest.
constexpr std::chrono::seconds kPulledOutWithin{2};
constexpr std::chrono::seconds kPluggedInWithin{30};
constexpr int kLookEachMs = 50;
constexpr const char* kConfigured = "eth0";  // by whoever has made the guest ready

std::string of_interface(const std::string& name, const char* file) {
  return read_file("/sys/class/net/" + name + "/" + file);
}

bool has_carrier(const std::string& name) { return of_interface(name, "carrier") == "1\n"; }

int times_pulled_out(const std::string& name) {
  return std::atoi(of_interface(name, "carrier_down_count").c_str());
}

bool wait_until(const std::function<bool()>& come, std::chrono::seconds patience) {
  for (const auto deadline = Clock::now() + patience; !come();) {
    if (Clock::now() > deadline) return false;
    (void)::poll(nullptr, 0, kLookEachMs);
  }
  return true;
}

// Those that are made of the hardware address would stay as they were.
void make_ipv6_addresses_anew(const std::string& name) {
  const std::string off = "/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6";
  if (read_file(off) != "0\n") return;
  write_file(off, "1", Write::kReplace);
  write_file(off, "0", Write::kReplace);
}

// Whether it is we who have asked for its address.
bool asks_by_itself(const std::string& name) {
  return name == kConfigured && ::access("/run/systemd/system", F_OK) != 0;
}

void ask_anew(const std::string& name) {
  NameServers servers;
  if (!configure_by_dhcp(name.c_str(), servers))
    return tell_kernel_log("no address by DHCP in the new network");
  write_name_servers("", servers);
}

}  // namespace

void renew_when_plugged_in(const std::string& name) {
  if (!is_up(name)) return;
  const int pulled_before = times_pulled_out(name);
  if (::fork() != 0) return;
  // No stream of ours is to stay open as long as this takes.
  ::close_range(3, ~0U, 0);
  ::setsid();
  if (wait_until([&] { return !has_carrier(name) || times_pulled_out(name) != pulled_before; },
                 kPulledOutWithin)) {
    if (!has_carrier(name)) make_ipv6_addresses_anew(name);
    if (wait_until([&] { return has_carrier(name); }, kPluggedInWithin) && asks_by_itself(name))
      ask_anew(name);
  }
  ::_exit(0);
}

}  // namespace snug::agent
