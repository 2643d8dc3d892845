#include "vmm/run/warden_link.h"

#include <poll.h>
#include <sys/epoll.h>

#include "vmm/base/log.h"
#include "vmm/host/passt.h"

namespace snug {

using warden::CallKind;

namespace {

// The longest wait that the warden has itself is for a passt.
constexpr std::chrono::milliseconds kPatience = Passt::kReadyPatience + std::chrono::seconds(30);

int wait_readable(int socket) {
  pollfd wait{.fd = socket, .events = POLLIN, .revents = 0};
  for (;;) {
    const int count = ::poll(&wait, 1, static_cast<int>(kPatience.count()));
    if (count > 0) return 0;
    if (count == 0) return ETIMEDOUT;
    if (errno != EINTR) return errno;
  }
}

}  // namespace

Result<std::unique_ptr<WardenLink>> WardenLink::create(EventLoop& loop, UniqueFd calls, UniqueFd news) {
  std::unique_ptr<WardenLink> link(new WardenLink(std::move(calls), std::move(news)));
  link->watch_ = SNUG_TRY(
      loop.watch(link->news_socket_.get(), EPOLLIN, [l = link.get()](uint32_t) { l->on_news_event(); }));
  return link;
}

WardenLink::Answered WardenLink::call(CallKind kind, uint64_t argument, std::string_view text) {
  const std::lock_guard lock(mutex_);
  Answered answer;
  const warden::Call head{static_cast<uint32_t>(kind), next_id_++, argument};
  int error = warden::send(calls_.get(), head, text);
  if (error == 0) error = wait_for_answer(head.id, answer);
  if (error != 0) answer.head.error = error;
  return answer;
}

// One that was given up may still be answered: passed over.
int WardenLink::wait_for_answer(uint32_t id, Answered& answer) {
  for (;;) {
    if (const int error = wait_readable(calls_.get())) return error;
    const int error = warden::receive(calls_.get(), answer);
    if (error == EAGAIN) continue;
    if (error != 0 || answer.head.id == id) return error;
  }
}

Result<UniqueFd> WardenLink::ask(CallKind kind, uint64_t argument) {
  Answered answer = call(kind, argument);
  if (answer.head.error == 0 && answer.descriptor) return std::move(answer.descriptor);
  return tl::unexpected(error_of(answer));
}

Error WardenLink::error_of(const Answered& answer) {
  if (!answer.text.empty()) return warden::error_of(answer.text);
  return Error{"ask the warden: " + errno_text(answer.head.error != 0 ? answer.head.error : EBADF), {}};
}

tl::expected<UniqueFd, int> WardenLink::connect_vsock(uint32_t port) {
  Answered answer = call(CallKind::kConnectVsock, port);
  if (answer.head.error == 0 && answer.descriptor) return std::move(answer.descriptor);
  return tl::unexpected(answer.head.error != 0 ? answer.head.error : EBADF);
}

Result<UniqueFd> WardenLink::start_network(size_t interface) {
  return ask(CallKind::kStartNetwork, interface);
}
void WardenLink::stop_networks() { call(CallKind::kStopNetworks); }
void WardenLink::give_up_network(size_t interface) { call(CallKind::kGiveUpNetwork, interface); }

Result<UniqueFd> WardenLink::next_log(warden::LogKind kind) {
  return ask(CallKind::kNextLog, static_cast<uint64_t>(kind));
}
Result<UniqueFd> WardenLink::begin_kernel() { return ask(CallKind::kBeginKernel); }
Result<UniqueFd> WardenLink::keep_kernel() { return ask(CallKind::kKeepKernel); }

// The guest need not wait for the answer, which the next call passes over.
void WardenLink::seal_kernels() {
  const std::lock_guard lock(mutex_);
  (void)warden::send(calls_.get(),
                     warden::Call{static_cast<uint32_t>(CallKind::kSealKernels), next_id_++, 0});
}

uint64_t WardenLink::started() { return call(CallKind::kStarted).head.value; }

void WardenLink::ending(const TimeLimit& grace) {
  call(CallKind::kEnding, grace ? static_cast<uint64_t>(grace->count()) : warden::kForever);
}
void WardenLink::suspended() { call(CallKind::kSuspended); }

void WardenLink::keep_template() { call(CallKind::kKeepTemplate); }
void WardenLink::drop_template() { call(CallKind::kDropTemplate); }
Result<void> WardenLink::begin_update(bool ram_is_given) {
  const Answered answer = call(CallKind::kBeginUpdate, ram_is_given ? 1 : 0);
  if (answer.head.error != 0) return tl::unexpected(error_of(answer));
  return {};
}
Result<UniqueFd> WardenLink::update_file(warden::UpdateFile file) {
  return ask(CallKind::kUpdateFile, static_cast<uint64_t>(file));
}
void WardenLink::launch_update() { call(CallKind::kLaunchUpdate); }
Error WardenLink::hand_over() { return error_of(call(CallKind::kHandOver)); }
void WardenLink::end_update() { call(CallKind::kEndUpdate); }
Result<void> WardenLink::take_state() {
  const Answered answer = call(CallKind::kTakeState);
  if (answer.head.error != 0) return tl::unexpected(error_of(answer));
  return {};
}
Result<uint64_t> WardenLink::take_over() {
  const Answered answer = call(CallKind::kTakeOver);
  if (answer.head.error != 0) return tl::unexpected(error_of(answer));
  return answer.head.value;
}
void WardenLink::forget_ram() { call(CallKind::kForgetRam); }

Result<UniqueFd> WardenLink::kept_template(warden::TemplateFile file) {
  return ask(CallKind::kKeptTemplate, static_cast<uint64_t>(file));
}
void WardenLink::keep_touched(const std::string& touched) { call(CallKind::kKeepTouched, 0, touched); }

void WardenLink::ended(int exit_status, const std::string& message) {
  call(CallKind::kEnded, static_cast<uint32_t>(exit_status), message);
}
void WardenLink::failed(const Error& error) { call(CallKind::kFailed, 0, warden::error_text(error)); }

void WardenLink::on_news_event() {
  for (;;) {
    warden::Packet<warden::News> packet;
    const int error = warden::receive(news_socket_.get(), packet);
    if (error == EAGAIN) return;
    if (error != 0) {
      watch_.reset();
      return news_.gone();
    }
    const uint32_t number = packet.head.number;
    switch (static_cast<warden::NewsKind>(packet.head.kind)) {
      case warden::NewsKind::kSignal:
        news_.signal(static_cast<int>(number), packet.head.flag != 0);
        break;
      case warden::NewsKind::kNetworkConnected:
        news_.network_connected(number, std::move(packet.descriptor));
        break;
      case warden::NewsKind::kNetworkLost:
        news_.network_lost(number);
        break;
      case warden::NewsKind::kUpdateReady:
        news_.update_ready();
        break;
      case warden::NewsKind::kUpdateFailed:
        news_.update_failed(packet.text);
        break;
    }
  }
}

}  // namespace snug
