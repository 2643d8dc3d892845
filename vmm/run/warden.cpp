#include "vmm/run/warden.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/base/log.h"
#include "vmm/base/setup_memory.h"
#include "vmm/host/terminal.h"

namespace snug {

using warden::CallKind;
using warden::NewsKind;

namespace {

// To put the terminal back before both processes stop.
constexpr std::chrono::seconds kSuspendPatience{1};
// To end after a second wish to end, or after its last words.
constexpr std::chrono::seconds kEndPatience{10};
// What serves a machine that has been killed can be gone before the machine is.
constexpr std::chrono::seconds kMachinePatience{5};
// Sockets of a process that is killed close before its end shows.
constexpr std::chrono::milliseconds kGoing{100};
// To build the machine anew, while its guest stands still. Less than whoever stands there waits for an
// answer.
constexpr std::chrono::seconds kTakeOverPatience{30};
// A machine that ends before has no use for what the warden gives back: it touches that again at its end.
constexpr std::chrono::seconds kSettled{1};
// Calls answered before the loop looks at something else.
constexpr int kCallsAtOnce = 16;

uint64_t own_cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Words of the machine's process, for a person: one line that does nothing to a terminal.
std::string one_line(std::string text) {
  constexpr char kDelete = 0x7f;
  std::ranges::replace_if(
      text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == kDelete; }, ' ');
  return text;
}

// Of a process that has left no last words.
MachineEnd end_without_words(const siginfo_t& info, const std::function<bool()>& killed_for_memory) {
  if (info.si_code == CLD_KILLED && info.si_status == SIGKILL && killed_for_memory && killed_for_memory())
    return {128 + SIGKILL,
            "the machine's process was killed: the machine had used all that limits.memory gives it; give it "
            "more, or the "
            "guest less"};
  if (info.si_code == CLD_EXITED)
    return {kStatusFailure, fmt::format("the machine's process ended with status {}", info.si_status)};
  const char* name = ::sigabbrev_np(info.si_status);
  return {128 + info.si_status,
          fmt::format("the machine's process was killed by SIG{}", name != nullptr ? name : "?")};
}

void end_process(const MachineEnds& machine) {
  // By its pidfd, which is nobody else's when it has ended.
  ::syscall(SYS_pidfd_send_signal, machine.process.get(), SIGKILL, nullptr, 0);
  while (::waitpid(machine.pid, nullptr, 0) < 0 && errno == EINTR) continue;
}

}  // namespace

Result<std::unique_ptr<Warden>> Warden::create(Machine machine, Duties duties) {
  std::unique_ptr<Warden> warden(new Warden(std::move(machine), std::move(duties)));
  Warden* self = warden.get();
  self->loop_ = SNUG_TRY(EventLoop::create());
  termios settings{};
  if (is_own_terminal(STDIN_FILENO) && ::tcgetattr(STDIN_FILENO, &settings) == 0) self->terminal_ = settings;
  SNUG_TRY(self->watch_machine());
  if (ShareServer* server = self->duties_.share_server)
    self->share_server_watch_ =
        SNUG_TRY(self->loop_->watch(server->process(), EPOLLIN, [self, server](uint32_t) {
          self->share_server_watch_.reset();
          const std::string why = server->end();
          // A guest whose files are gone would hang sooner or later.
          if (!why.empty()) return self->end_machine(why);
          // Its machine is gone: the end of that says more, and comes now.
          self->machine_late_.arm(kMachinePatience);
        }));
  self->machine_late_ =
      SNUG_TRY(self->loop_->timer([self] { self->end_machine("the process that serves shares has ended"); }));
  self->next_late_ = SNUG_TRY(
      self->loop_->timer([self] { self->end_update("the new process does not take the machine over"); }));
  self->settled_ = SNUG_TRY(self->loop_->timer(drop_setup_memory));
  self->suspend_late_ = SNUG_TRY(self->loop_->timer([self] { self->stop_both(); }));
  self->end_late_ =
      SNUG_TRY(self->loop_->timer([self] { self->end_machine("the machine's process does not end"); }));
  self->signals_ = SNUG_TRY(SignalWatch::create(*self->loop_, SignalWatch::of_a_run(self->duties_.commands),
                                                [self](int number) { self->on_signal(number); }));
  return warden;
}

Result<void> Warden::watch_machine() {
  calls_watch_ = SNUG_TRY(loop_->watch(machine_.calls.get(), EPOLLIN, [this](uint32_t) { on_calls(); }));
  process_watch_ = SNUG_TRY(loop_->watch(machine_.process.get(), EPOLLIN, [this](uint32_t) { on_end(); }));
  return {};
}

Warden::~Warden() {
  drop_next();
  if (machine_.pid >= 0) end_process(machine_);
}

Result<MachineEnd> Warden::run() {
  SNUG_TRY(loop_->run());
  networks_.clear();
  if (failure_) return tl::unexpected(std::move(*failure_));
  return end_.value_or(MachineEnd{kStatusFailure, "the machine's process is lost"});
}

// --- the machine's process ---------------------------------------------------------------------------------

void Warden::on_calls() {
  for (int i = 0; i < kCallsAtOnce; ++i) {
    warden::Call call;
    std::string text;
    const int error = warden::receive_packet(machine_.calls.get(), &call, sizeof call, text, nullptr);
    if (error == EAGAIN) return;
    // It has ended, or is about to.
    if (error == EPIPE) return calls_watch_.reset();
    if (error != 0) return end_machine("the machine's process sends what makes no sense");
    if (!answer(call, text))
      return end_machine(
          fmt::format("the machine's process asks for what there is not ({}, {})", call.kind, call.argument));
    // There was no room for the answer.
    if (!calls_watch_) return;
  }
}

bool Warden::answer(const warden::Call& call, const std::string& text) {
  switch (static_cast<CallKind>(call.kind)) {
    case CallKind::kConnectVsock: {
      if (!duties_.ends.vsock || call.argument > UINT32_MAX) return false;
      auto stream = duties_.ends.vsock->connect_by_name(static_cast<uint32_t>(call.argument));
      if (!stream) return reply(call, stream.error());
      return reply(call, std::move(*stream));
    }
    case CallKind::kStartNetwork:
      if (call.argument >= duties_.ends.nics.size() || duties_.ends.taps.contains(call.argument))
        return false;
      return reply(call, start_network(call.argument));
    case CallKind::kStopNetworks:
      networks_.clear();
      sockets_.clear();
      return reply(call, 0);
    case CallKind::kGiveUpNetwork: {
      const auto network = networks_.find(call.argument);
      if (network == networks_.end()) return false;
      network->second->give_up();
      return reply(call, 0);
    }
    case CallKind::kNextLog:
      if (duties_.directory == nullptr || call.argument > static_cast<uint64_t>(warden::LogKind::kOutput))
        return false;
      return reply(call, next_log(call.argument));
    case CallKind::kBeginKernel:
    case CallKind::kKeepKernel:
      if (kernels_sealed_) return false;
      return reply(call, kernel_file(static_cast<CallKind>(call.kind)));
    case CallKind::kSealKernels:
      kernels_sealed_ = true;
      return reply(call, 0);
    case CallKind::kStarted: {
      if (started_) return false;
      started_ = kernels_sealed_ = true;
      const bool replied = reply(call, 0, own_cpu_ns());
      if (duties_.started) duties_.started();
      settled_.arm(kSettled);
      return replied;
    }
    case CallKind::kEnding:
      if (duties_.ending)
        duties_.ending(call.argument >= warden::kLongest
                           ? TimeLimit()
                           : TimeLimit(std::chrono::milliseconds(static_cast<int64_t>(call.argument))));
      return reply(call, 0);
    case CallKind::kSuspended: {
      const bool replied = reply(call, 0);
      stop_both();
      return replied;
    }
    case CallKind::kKeepTemplate:
      if (!duties_.ends.templates || !duties_.ends.templates->keep_for_machine()) return false;
      return reply(call, 0);
    case CallKind::kKeepTouched:
      if (!duties_.ends.templates || !duties_.ends.templates->keep_touched_for_machine(text)) return false;
      return reply(call, 0);
    case CallKind::kDropTemplate:
      if (!duties_.ends.templates) return false;
      duties_.ends.templates->drop_for_machine();
      return reply(call, 0);
    case CallKind::kBeginUpdate:
      if (auto begun = begin_update(call.argument != 0); !begun) return reply(call, begun.error());
      return reply(call, 0);
    case CallKind::kUpdateFile:
      if (!update_ || call.argument > static_cast<uint64_t>(warden::UpdateFile::kEnds)) return false;
      return reply(call, update_->file(static_cast<warden::UpdateFile>(call.argument)));
    case CallKind::kLaunchUpdate: {
      if (!update_ || update_->launched()) return false;
      const bool replied = reply(call, 0);
      launch_update();
      return replied;
    }
    case CallKind::kHandOver:
      return hand_over(call);
    case CallKind::kEndUpdate:
      handed_over_.reset();
      next_late_.disarm();
      drop_next();
      update_.reset();
      return reply(call, 0);
    case CallKind::kTakeState:
    case CallKind::kTakeOver:
      return false;
    case CallKind::kForgetRam:
      ram_.reset();
      return reply(call, 0);
    case CallKind::kKeptTemplate:
      if (!duties_.ends.templates || call.argument > static_cast<uint64_t>(warden::TemplateFile::kMemory))
        return false;
      return reply(
          call, duties_.ends.templates->kept_for_machine(static_cast<warden::TemplateFile>(call.argument)));
    case CallKind::kEnded:
      remember_end({static_cast<int>(call.argument & 0xff), one_line(text)});
      return reply(call, 0);
    case CallKind::kFailed:
      if (started_) return false;
      failure_ = warden::error_of(text);
      failure_->message = one_line(std::move(failure_->message));
      failure_->hint = one_line(std::move(failure_->hint));
      if (const std::string why = share_server_end(); !why.empty()) failure_ = Error{why, {}};
      end_late_.arm(kEndPatience);
      return reply(call, 0);
  }
  return false;
}

bool Warden::reply(const warden::Call& call, int error, uint64_t value) {
  return replied(warden::send(machine_.calls.get(), warden::Answer{call.id, error, value}));
}

bool Warden::reply(const warden::Call& call, Result<UniqueFd> asked) {
  if (asked)
    return replied(warden::send(machine_.calls.get(), warden::Answer{call.id, 0, 0}, {}, asked->get()));
  return replied(
      warden::send(machine_.calls.get(), warden::Answer{call.id, EIO, 0}, warden::error_text(asked.error())));
}

bool Warden::reply(const warden::Call& call, const Error& error) {
  return replied(
      warden::send(machine_.calls.get(), warden::Answer{call.id, EIO, 0}, warden::error_text(error)));
}

// True: the call was one, whatever became of its answer. A process that has ended needs none; one that does
// not take its answers has not waited for them.
bool Warden::replied(int error) {
  if (error != 0 && error != EPIPE && error != ECONNRESET)
    end_machine(fmt::format("the machine's process does not take its answers ({})", errno_text(error)));
  return true;
}

Result<UniqueFd> Warden::start_network(uint64_t index) {
  const auto number = static_cast<uint32_t>(index);
  networks_.erase(index);
  sockets_.erase(index);
  UserNetwork::Events events;
  events.connected = [this, number](UniqueFd socket) {
    if (auto same = duplicate(socket.get())) sockets_[number] = std::move(*same);
    tell({static_cast<uint32_t>(NewsKind::kNetworkConnected), number, 0}, socket.get());
  };
  events.lost = [this, number] {
    sockets_.erase(number);
    tell({static_cast<uint32_t>(NewsKind::kNetworkLost), number, 0});
  };
  auto network = SNUG_TRY(UserNetwork::start(*loop_, duties_.ends.nics[index], std::move(events)));
  UniqueFd socket = network->take_socket();
  sockets_[index] = SNUG_TRY(duplicate(socket.get()));
  networks_[index] = std::move(network);
  return socket;
}

Result<UniqueFd> Warden::next_log(uint64_t kind) const {
  const bool console = kind == static_cast<uint64_t>(warden::LogKind::kConsole);
  return BoundedLog::next_file(duties_.directory->fd(),
                               console ? ConsoleServer::kLogFile : HostEnds::kOutputLog);
}

Result<UniqueFd> Warden::kernel_file(CallKind kind) {
  KernelStore& store = duties_.ends.kernel_store;
  return kind == CallKind::kBeginKernel ? store.begin() : store.keep();
}

// Of one that is gone, or is just going, and was not to: the machine's process may notice it first, and knows
// less.
std::string Warden::share_server_end() {
  if (!share_server_watch_) return {};
  pollfd gone{duties_.share_server->process(), POLLIN, 0};
  if (::poll(&gone, 1, kGoing.count()) <= 0) return {};
  share_server_watch_.reset();
  return duties_.share_server->end();
}

void Warden::tell(const warden::News& news, int descriptor, std::string_view text) {
  if (handed_over_ && news.kind == static_cast<uint32_t>(NewsKind::kSignal)) unheard_.push_back(news);
  const int error = warden::send(machine_.news.get(), news, text, descriptor);
  if (error == EAGAIN) end_machine("the machine's process does not listen");
}

// --- another process in the machine's place ------------------------------------------------------------

Result<void> Warden::begin_update(bool ram_is_given) {
  if (update_) return fail("another update is under way");
  if (!started_ || duties_.updatable.spec == nullptr || duties_.directory == nullptr)
    return fail("this machine cannot be updated: it has no folder to be found in");
  if (duties_.share_server != nullptr) return fail("the server of its shares cannot be handed over yet");
  if (ram_is_given && !ram_) return fail("its memory is not where it is said to be");
  LiveUpdate::Given given{duties_.updatable, duties_.ends, *duties_.directory, duties_.commands, sockets_};
  LiveUpdate::Events events;
  events.arrived = [this](Machine machine) { next_arrived(std::move(machine)); };
  events.failed = [this](const std::string& why) { end_update(why); };
  UniqueFd ram;
  if (ram_is_given) ram = SNUG_TRY(duplicate(ram_.get()));
  update_ = SNUG_TRY(LiveUpdate::begin(*loop_, given, std::move(ram), std::move(events)));
  return {};
}

void Warden::launch_update() {
  if (auto launched = update_->launch(); !launched) end_update(launched.error().text());
}

void Warden::next_arrived(Machine machine) {
  next_.emplace();
  next_->machine = std::move(machine);
  auto calls = loop_->watch(next_->machine.calls.get(), EPOLLIN, [this](uint32_t) { on_next_calls(); });
  auto process = loop_->watch(next_->machine.process.get(), EPOLLIN,
                              [this](uint32_t) { end_update("the new process has ended"); });
  if (!calls || !process) return end_update((calls ? process : calls).error().text());
  next_->calls_watch = std::move(*calls);
  next_->process_watch = std::move(*process);
}

void Warden::on_next_calls() {
  warden::Call call;
  std::string text;
  const int error = warden::receive_packet(next_->machine.calls.get(), &call, sizeof call, text, nullptr);
  if (error == EAGAIN) return;
  // Its end is told by its process, which has a status.
  if (error == EPIPE) return next_->calls_watch.reset();
  if (error != 0) return end_update("the new process sends what makes no sense");
  answer_next(call, text);
}

// What it asks for before the machine is its own.
void Warden::answer_next(const warden::Call& call, const std::string& text) {
  switch (static_cast<CallKind>(call.kind)) {
    case CallKind::kTakeState:
      next_->ready = call;
      return tell({static_cast<uint32_t>(NewsKind::kUpdateReady), 0, 0});
    case CallKind::kSealKernels:
      (void)warden::send(next_->machine.calls.get(), warden::Answer{call.id, 0, 0});
      return;
    case CallKind::kTakeOver:
      if (!handed_over_) break;
      return next_takes_over(call);
    case CallKind::kFailed:
      return end_update(one_line(warden::error_of(text).text()));
    default:
      break;
  }
  end_update(fmt::format("the new process asks for what there is not ({})", call.kind));
}

bool Warden::hand_over(const warden::Call& call) {
  if (!next_ || !next_->ready) return reply(call, Error{"there is no other process any more", {}});
  handed_over_ = call;
  next_late_.arm(kTakeOverPatience);
  const warden::Call ready = *std::exchange(next_->ready, std::nullopt);
  if (warden::send(next_->machine.calls.get(), warden::Answer{ready.id, 0, 0}) != 0)
    end_update("the new process is gone");
  return true;
}

// The guest is about to run there: from here on there is no way back. The process before stands still, and
// does nothing any more; to wait for its end takes longer than the guest is to wait.
void Warden::next_takes_over(const warden::Call& call) {
  calls_watch_.reset();
  process_watch_.reset();
  next_late_.disarm();
  signal_machine(SIGKILL);
  const Machine before = std::exchange(machine_, std::move(next_->machine));
  next_.reset();
  handed_over_.reset();
  (void)reply(call, 0, own_cpu_ns());
  ram_ = update_->take_ram();
  update_.reset();
  end_process(before);
  if (auto watched = watch_machine(); !watched) return end_machine(watched.error().text());
  // What came while nobody listened.
  for (const warden::News& news : std::exchange(unheard_, {})) tell(news);
}

// The machine goes on as it was.
void Warden::end_update(const std::string& why) {
  next_late_.disarm();
  drop_next();
  unheard_.clear();
  if (handed_over_) {
    (void)reply(*std::exchange(handed_over_, std::nullopt), Error{why, {}});
    return;
  }
  tell({static_cast<uint32_t>(NewsKind::kUpdateFailed), 0, 0}, -1, why);
}

void Warden::drop_next() {
  if (!next_) return;
  end_process(next_->machine);
  next_.reset();
}

// --- ends --------------------------------------------------------------------------------------------------

void Warden::on_signal(int number) {
  if (number == SIGCONT) {
    suspending_ = false;
    signal_machine(SIGCONT);
  }
  if (number == SIGTSTP && !suspending_) {
    suspending_ = true;
    suspend_late_.arm(kSuspendPatience);
  }
  if ((number == SIGTERM || number == SIGINT || number == SIGHUP) && !wish_.is_the_same() && ++wishes_ > 1)
    end_late_.arm(kEndPatience);
  tell({static_cast<uint32_t>(NewsKind::kSignal), static_cast<uint32_t>(number),
        is_own_terminal(STDIN_FILENO) ? 1U : 0U});
}

// What follows is SIGCONT's.
void Warden::stop_both() {
  if (!suspending_) return;
  suspend_late_.disarm();
  signal_machine(SIGSTOP);
  ::raise(SIGSTOP);
}

void Warden::remember_end(MachineEnd end) {
  if (end_) return;
  end_ = std::move(end);
  if (duties_.directory != nullptr) duties_.directory->record_end(end_->exit_status, end_->message);
  end_late_.arm(kEndPatience);
}

// By its pidfd, which is nobody else's when it has ended and been waited for.
void Warden::signal_machine(int number) const {
  ::syscall(SYS_pidfd_send_signal, machine_.process.get(), number, nullptr, 0);
}

void Warden::end_machine(std::string why) {
  if (!end_ && !failure_) {
    log_error("{}", why);
    remember_end({kStatusFailure, std::move(why)});
  }
  calls_watch_.reset();
  signal_machine(SIGKILL);
}

void Warden::on_end() {
  // Its last words may still lie in the socket.
  if (calls_watch_) on_calls();
  siginfo_t info{};
  const bool waited = ::waitid(P_PID, static_cast<id_t>(machine_.pid), &info, WEXITED | WNOHANG) == 0;
  if (waited && info.si_pid == 0) return;
  machine_.pid = -1;
  // What an ephemeral disk holds may be all the memory there is, and the words that follow take some.
  duties_.ends.disks.clear();
  if (!end_ && !failure_) {
    MachineEnd end = waited ? end_without_words(info, duties_.killed_for_memory)
                            : MachineEnd{kStatusFailure, "the machine's process is lost"};
    log_error("{}", end.message);
    // What it had made of the terminal.
    if (terminal_ && is_own_terminal(STDIN_FILENO)) ::tcsetattr(STDIN_FILENO, TCSANOW, &*terminal_);
    remember_end(std::move(end));
  }
  calls_watch_.reset();
  process_watch_.reset();
  loop_->stop();
}

}  // namespace snug
