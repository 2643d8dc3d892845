#include "vmm/host/user_network.h"

#include <sys/epoll.h>

#include <algorithm>

#include "vmm/base/log.h"

namespace snug {
namespace {

using std::chrono::steady_clock;

// A process that ends sooner has not been able to do its work at all.
constexpr std::chrono::seconds kBeginning{3};
constexpr std::chrono::milliseconds kFirstPause{500};
constexpr std::chrono::milliseconds kLongestPause{30'000};

}  // namespace

Result<std::unique_ptr<UserNetwork>> UserNetwork::start(EventLoop& loop, const NetSpec& net, Events events) {
  std::unique_ptr<UserNetwork> network(new UserNetwork(loop, net, std::move(events)));
  network->restart_timer_ = SNUG_TRY(loop.timer([n = network.get()] { n->relaunch(); }));
  SNUG_TRY(network->launch(Wait::kUntilReady));
  return network;
}

Result<void> UserNetwork::launch(Wait wait) {
  passt_.emplace(SNUG_TRY(Passt::start(net_)));
  if (wait == Wait::kUntilReady) SNUG_TRY(passt_->wait_until_ready(*net_.mac));
  started_ = steady_clock::now();
  process_watch_ = SNUG_TRY(loop_.watch(passt_->process_fd(), EPOLLIN, [this](uint32_t) { on_end(); }));
  output_watch_ = SNUG_TRY(loop_.watch(passt_->output_fd(), EPOLLIN, [this](uint32_t) {
    if (!passt_->hear()) output_watch_.reset();
  }));
  return {};
}

void UserNetwork::on_end() {
  process_watch_.reset();
  output_watch_.reset();
  const std::string words = passt_->last_words();
  passt_.reset();
  const bool at_once = steady_clock::now() - started_ < kBeginning;
  pause_ = at_once ? std::min(std::max(2 * pause_, kFirstPause), kLongestPause) : kFirstPause;
  log_warn("{}; the guest is without network until it has been started again", words);
  events_.lost();
  restart_timer_.arm(pause_);
}

void UserNetwork::relaunch() {
  if (auto launched = launch(Wait::kNo); !launched) {
    process_watch_.reset();
    output_watch_.reset();
    passt_.reset();
    pause_ = std::min(std::max(2 * pause_, kFirstPause), kLongestPause);
    log_warn("network: {}", launched.error().text());
    return restart_timer_.arm(pause_);
  }
  events_.connected(take_socket());
}

}  // namespace snug
