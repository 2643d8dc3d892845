// A machine that does what it is told and remembers it.
#pragma once

#include <string>
#include <vector>

#include "vmm/control/control_api.h"

namespace snug {

class FakeTarget : public ControlTarget {
 public:
  VmInfo info() const override {
    VmInfo info;
    info.name = "fake";
    info.state = state;
    info.agent = "ready";
    info.health = VmHealth{"unhealthy", 3, 1, "it is not well"};
    info.vsock = "/tmp/vm/vsock.sock";
    info.program = "snug 1";
    info.updates = 1;
    info.update_seconds = 0.004;
    info.ports = {"127.0.0.1:80:80"};
    info.shares = {{"share0", "/src", "/work", true, "failed", "no such device"}};
    info.limits = limits;
    return info;
  }
  VmUsage usage() const override {
    VmUsage usage{.cpu_seconds = 1.5,
                  .memory_bytes = 3,
                  .guest_memory_bytes = 2,
                  .guest_shared_bytes = 1,
                  .guest_total_bytes = 10,
                  .guest_free_bytes = guest_free,
                  .guest_available_bytes = 6,
                  .balloon_bytes = 0};
    usage.limits = limits;
    if (!limits.cpu) return usage;
    usage.limited_cpu_seconds = usage.throttled_seconds = 0.5;
    usage.cpu_periods = usage.throttled_periods = 1;
    usage.limited_memory_bytes = usage.memory_hits = usage.memory_kills = 0;
    return usage;
  }
  bool ask_guest() override {
    ++guest_asked;
    return guest_answers_after >= 0;
  }
  // After having been looked at so often.
  bool guest_has_answered() const override {
    if (guest_answers_after-- > 0) return false;
    guest_free = 5;
    return true;
  }
  Result<void> pause() override { return move("running", "paused"); }
  Result<void> resume() override { return move("paused", "running"); }
  Result<void> press_power_button() override {
    calls.push_back("power button");
    return {};
  }
  Result<void> stop(std::optional<std::chrono::milliseconds> grace) override {
    calls.push_back(grace ? fmt::format("stop {}", grace->count()) : "stop");
    return {};
  }
  void kill() override { calls.push_back("kill"); }
  void snapshot(SnapshotFiles files, std::function<void(Result<SnapshotTaken>)> done) override {
    calls.push_back(fmt::format("snapshot of {} disks", files.disks.size()));
    if (snapshot_fails) return done(fail("fake cannot"));
    // As vmm/run/saved_commands.h makes them.
    done(SnapshotTaken{
        .state_bytes = 7,
        .paused_seconds = 0.5,
        .commands = R"({"commands": [{"words": ["true"], "title": "true"}], "running": true, "status": 0,
                        "variables": [], "folder": "", "user": "", "stop_signal": 15, "tty": false,
                        "health": {"command": [], "variables": [], "folder": "", "user": "", "interval_ms": 1,
                                   "timeout_ms": 1, "start_period_ms": 0, "retries": 3}})"});
  }
  Result<void> send(SnapshotFiles, SendingEnds) override {
    calls.push_back("send");
    if (snapshot_fails) return fail("fake cannot");
    return {};
  }

  void update(std::function<void(Error)> failed) override {
    calls.push_back("update");
    if (snapshot_fails) failed(Error{"fake cannot", {}});
  }

  std::string state = "running";
  bool snapshot_fails = false;
  VmLimits limits{.cpu = 1.5, .memory_bytes = 4096, .io_weight = 100};
  std::vector<std::string> calls;
  int guest_asked = 0;
  mutable int guest_answers_after = -1;  // -1: there is nobody to ask
  mutable uint64_t guest_free = 4;

 private:
  Result<void> move(const char* from, const char* to) {
    if (state != from) return fail("fake is {}, not {}", state, from);
    state = to;
    return {};
  }
};

}  // namespace snug
