#include "vmm/run/guest_agent.h"

#include "vmm/base/log.h"
#include "vmm/base/random.h"

namespace snug {
namespace {

constexpr std::chrono::seconds kRequestPatience{5};

}  // namespace

GuestAgent::GuestAgent(EventLoop& loop, VsockHub& hub, std::vector<protocol::MountRequest> mounts,
                       Events events)
    : loop_(loop),
      hub_(hub),
      events_(std::move(events)),
      shares_(loop, std::move(mounts),
              [this](VsockHub::Connected connected) { connect(std::move(connected)); },
              {.failed = events_.share_failed, .done = [this] { on_ready(); }}) {
  hub_.listen(protocol::kCallPort, [this](UniqueFd) { on_call(); });
}

void GuestAgent::guest_boots() {
  called_ = ready_ = false;
  shares_.forget();
  boot_began_ = std::chrono::steady_clock::now();
}

void GuestAgent::on_call() {
  log_debug("the guest's agent has called");
  called_ = true;
  events_.called();
  shares_.mount();
}

// Its device holds this back until the guest knows that its connections of before are gone.
void GuestAgent::guest_goes_on(const std::string& host_name) {
  connect([this, host_name](UniqueFd stream, int error) {
    if (error != 0) return log_debug("no agent has gone on: {}", errno_text(error));
    using std::chrono::nanoseconds;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    protocol::GoOn request{
        .nanoseconds = static_cast<uint64_t>(std::chrono::duration_cast<nanoseconds>(now).count()),
        .seed = std::string(protocol::GoOn::kSeed, '\0'),
        .host_name = host_name};
    (void)get_random(std::as_writable_bytes(std::span(request.seed)));
    std::string frame;
    put_go_on(frame, request);
    auto asked = AgentRequest::start(
        loop_, std::move(stream), frame, kRequestPatience,
        [this](const Result<void>& done) {
          if (!done)
            log_warn("the guest goes on with what it had (random numbers, clock, name): {}",
                     done.error().text());
          if (!called_) on_call();
        },
        protocol::kGoOnVersion);
    if (asked) go_on_ = std::move(*asked);
  });
}

void GuestAgent::on_ready() {
  log_debug("the guest's agent is ready");
  ready_ = true;
  events_.ready();
}

const char* GuestAgent::state(std::chrono::milliseconds patience) const {
  if (ready_) return "ready";
  return std::chrono::steady_clock::now() - boot_began_ < patience ? "awaited" : "silent";
}

void GuestAgent::connect(VsockHub::Connected connected) {
  hub_.connect(protocol::kAgentPort, std::move(connected));
}

void GuestAgent::power_off(std::function<void(const std::string&)> failed) {
  connect([this, failed = std::move(failed)](UniqueFd stream, int error) {
    if (error != 0) return failed(errno_text(error));
    std::string frame;
    put_power(frame, protocol::PowerAction::kOff);
    auto request = AgentRequest::start(loop_, std::move(stream), frame, kRequestPatience,
                                       [failed](const Result<void>& done) {
                                         if (!done) failed(done.error().message);
                                       });
    if (!request) return failed(request.error().message);
    power_off_ = std::move(*request);
  });
}

void GuestAgent::set_clock() {
  connect([this](UniqueFd stream, int error) {
    if (error != 0) return log_debug("the guest's clock is not set: {}", errno_text(error));
    using std::chrono::nanoseconds;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    std::string frame;
    protocol::put_set_time(frame,
                           static_cast<uint64_t>(std::chrono::duration_cast<nanoseconds>(now).count()));
    auto request =
        AgentRequest::start(loop_, std::move(stream), frame, kRequestPatience, [](const Result<void>& done) {
          if (!done) log_info("set the guest's clock: {}", done.error().message);
        });
    if (request) set_time_ = std::move(*request);
  });
}

}  // namespace snug
