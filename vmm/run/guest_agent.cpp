#include "vmm/run/guest_agent.h"

#include "vmm/base/log.h"
#include "vmm/base/random.h"

namespace snug {
namespace {

constexpr std::chrono::seconds kRequestPatience{5};
// A guest that is given up for it boots.
constexpr std::chrono::seconds kGoOnPatience{30};
// To be reached at all, when it is known to be there: on a host with much else to do it takes longer than one
// attempt may.
constexpr std::chrono::seconds kReachPatience{60};
// Whoever gives addresses may be slow, and so may a root whose volumes are copied: as long as a boot may
// take.
constexpr std::chrono::minutes kBeginPatience = GuestAgent::kPatience;

}  // namespace

GuestAgent::GuestAgent(EventLoop& loop, VsockHub& hub, Wishes wishes, Events events)
    : loop_(loop),
      hub_(hub),
      events_(std::move(events)),
      begin_(std::move(wishes.begin)),
      addresses_(std::move(wishes.addresses)),
      hands_over_(wishes.hands_over),
      shares_(loop, std::move(wishes.mounts),
              [this](VsockHub::Connected connected) { connect(std::move(connected)); },
              {.failed = events_.share_failed, .done = [this] { on_ready(); }}) {
  hub_.listen(protocol::kCallPort, [this](UniqueFd) { on_call(); });
  hub_.listen(protocol::kWaitingPort, [this](UniqueFd) { on_waiting_call(); });
}

void GuestAgent::guest_boots() {
  called_ = handed_over_ = ready_ = goes_on_ = false;
  round_ = std::make_shared<int>(0);
  go_on_.reset();
  shares_.forget();
  boot_began_ = std::chrono::steady_clock::now();
}

void GuestAgent::on_call() {
  log_debug("the guest's agent has called");
  called_ = true;
  events_.called();
  when_saved(false, [this] { shares_.mount(); });
}

void GuestAgent::on_waiting_call() {
  log_debug("the guest waits to begin");
  events_.called();
  when_saved(true, [this] { begin(); });
}

// One that goes on has been saved already.
void GuestAgent::when_saved(bool waits, std::function<void()> go_on) {
  if (goes_on_ || !events_.untouched) return go_on();
  events_.untouched(waits, [round = std::weak_ptr<int>(round_), go_on = std::move(go_on)] {
    if (!round.expired()) go_on();
  });
}

uint16_t GuestAgent::begin_version() const {
  return begin_.words.empty() ? protocol::kBeginVersion : protocol::kWordsVersion;
}

void GuestAgent::begin() {
  reach(protocol::kWaitingPort, [this](UniqueFd stream, int error) {
    if (error != 0) return on_begun(fail_errno(error, "reach the guest's agent"));
    std::string frame;
    put_begin(frame, begin_);
    auto asked = AgentRequest::start(loop_, std::move(stream), frame, kBeginPatience,
                                     [this](const Result<void>& done) { on_begun(done); },
                                     {.version = begin_version()});
    if (!asked) return on_begun(tl::unexpected(std::move(asked.error())));
    go_on_ = std::move(*asked);
  });
}

void GuestAgent::on_begun(const Result<void>& done) {
  if (done && hands_over_) return on_handed_over();
  if (done) return on_call();
  const std::string why = fmt::format("the guest does not begin: {}", done.error().text());
  if (!events_.lost || !events_.lost(why, false)) log_warn("{}", why);
}

// Its device holds this back until the guest knows that its connections of before are gone.
void GuestAgent::go_on(const std::string& host_name, bool waits, bool with_more) {
  goes_on_ = true;
  const uint32_t port = waits ? protocol::kWaitingPort : protocol::kAgentPort;
  reach(port, [this, host_name, waits, with_more](UniqueFd stream, int error) {
    if (error == 0) return ask_to_go_on(std::move(stream), host_name, waits, with_more);
    if (events_.lost && events_.lost(fmt::format("reach the guest's agent: {}", errno_text(error)), false))
      return;
    log_debug("no agent has gone on: {}", errno_text(error));
  });
}

void GuestAgent::ask_to_go_on(UniqueFd stream, const std::string& host_name, bool waits, bool with_more) {
  using std::chrono::nanoseconds;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  protocol::GoOn request{
      .nanoseconds = static_cast<uint64_t>(std::chrono::duration_cast<nanoseconds>(now).count()),
      .seed = std::string(protocol::GoOn::kSeed, '\0'),
      .host_name = host_name};
  (void)get_random(std::as_writable_bytes(std::span(request.seed)));
  std::string frames;
  put_go_on(frames, request);
  if (with_more) return ask_with_more(std::move(stream), std::move(frames), host_name);
  if (waits) put_begin(frames, begin_);
  auto asked = AgentRequest::start(
      loop_, std::move(stream), frames, waits ? kBeginPatience : kGoOnPatience,
      [this, waits](const Result<void>& done) { on_gone_on(done, waits && go_on_->refused_last()); },
      {.version = waits ? begin_version() : protocol::kGoOnVersion, .answers = waits ? 2U : 1U});
  if (asked) go_on_ = std::move(*asked);
}

// What is refused is asked for again, one by one, to be told what it is.
void GuestAgent::ask_with_more(UniqueFd stream, std::string frames, const std::string& host_name) {
  const size_t mounts = shares_.put_all(frames);
  ExecBefore before{std::move(frames), 1 + mounts, protocol::kGoOnVersion,
                    [this, host_name, round = std::weak_ptr<int>(round_)](const Result<void>& done) {
                      if (round.expired()) return;
                      if (!done && shares_.any()) return go_on(host_name, false, false);
                      if (done) shares_.are_mounted();
                      on_gone_on(done);
                    }};
  if (!going_on_(std::move(stream), std::move(before))) go_on(host_name, false, false);
}

// What it goes on with is on its way up by itself.
void GuestAgent::on_handed_over() {
  log_debug("the guest has begun");
  handed_over_ = true;
}

void GuestAgent::on_gone_on(const Result<void>& done, bool own) {
  if (!done && events_.lost && events_.lost(done.error().text(), own)) return;
  if (done && hands_over_) return on_handed_over();
  if (!done)
    log_warn("the guest goes on with what it had (random numbers, clock, name): {}", done.error().text());
  if (done && !addresses_.empty() && !called_) return ask_for_addresses();
  if (!called_) on_call();
}

void GuestAgent::ask_for_addresses() {
  reach(protocol::kAgentPort, [this](UniqueFd stream, int error) {
    if (error != 0) return on_addresses(fail("{}", errno_text(error)));
    std::string frame;
    put_readdress(frame, addresses_);
    auto asked = AgentRequest::start(loop_, std::move(stream), frame, kRequestPatience,
                                     [this](const Result<void>& done) { on_addresses(done); },
                                     {.version = protocol::kKeepVersion});
    if (!asked) return on_addresses(tl::unexpected(std::move(asked.error())));
    go_on_ = std::move(*asked);
  });
}

void GuestAgent::on_addresses(const Result<void>& done) {
  if (!done)
    log_warn("the guest's interfaces have the addresses of the machine that was saved: {}",
             done.error().text());
  if (events_.readdressed) events_.readdressed();
  if (!called_) on_call();
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

void GuestAgent::connect(VsockHub::Connected connected, uint32_t port) {
  hub_.connect(port, std::move(connected));
}

void GuestAgent::reach(uint32_t port, VsockHub::Connected reached,
                       std::optional<std::chrono::steady_clock::time_point> until) {
  if (!until) until = std::chrono::steady_clock::now() + kReachPatience;
  connect_now(port, [this, port, reached = std::move(reached), until](UniqueFd stream, int error) {
    if (error == ETIMEDOUT && std::chrono::steady_clock::now() < *until) return reach(port, reached, until);
    reached(std::move(stream), error);
  });
}

// What comes of it is for this boot.
void GuestAgent::connect_now(uint32_t port, VsockHub::Connected connected) {
  hub_.connect(port, [round = std::weak_ptr<int>(round_), connected = std::move(connected)](UniqueFd stream,
                                                                                            int error) {
    if (!round.expired()) connected(std::move(stream), error);
  });
}

void GuestAgent::power_off(std::function<void(const std::string&)> failed) {
  connect([this, failed = std::move(failed)](UniqueFd stream, int error) {
    if (error != 0) return failed(errno_text(error));
    std::string frame;
    put_power(frame, protocol::PowerAction::kOff);
    auto request = AgentRequest::start(loop_, std::move(stream), frame, kRequestPatience,
                                       [failed](const Result<void>& done) {
                                         if (!done) failed(done.error().message);
                                       },
                                       {.end_is_answer = true});
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
