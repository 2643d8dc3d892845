#include "vmm/cli/machine_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "vmm/agent/dial.h"
#include "vmm/base/socket_address.h"
#include "vmm/cli/put.h"
#include "vmm/control/control_client.h"
#include "vmm/control/vm_directory.h"
#include "vmm/protocol/frames.h"
#include "vmm/spec/units.h"

namespace snug::cli {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kStatePatience{1};
constexpr milliseconds kPause{100};
// Until a person wonders what it is that takes so long.
constexpr seconds kQuiet{3};
// One that cannot be asked, or whose agent has had all the time it needs.
constexpr seconds kShort{10};
// One whose agent has called in this boot and does not take connections: it goes down, or comes up again.
constexpr seconds kGoingDown{30};
// Longer than the machine waits for its guest.
constexpr seconds kAnswerPatience{30};

// Of a machine whose spec names no other.
constexpr const char* kSocketFile = "vsock.sock";

std::string own_socket(const FoundVm& vm) { return vm.path + "/" + kSocketFile; }

Result<UniqueFd> connect_to_path(const std::string& path) {
  const sockaddr_un address = SNUG_TRY(socket_address(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "{}", path);
  return fd;
}

// What a machine says of its guest's agent (control_api.h); kUnknown: it does not answer.
enum class Agent { kUnknown, kReady, kAwaited, kSilent };

std::string text_in(const nlohmann::json& object, const char* member) {
  const auto found = object.is_object() ? object.find(member) : object.end();
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

tl::unexpected<NoAgent> give_up(Error error, std::optional<int> exit_status = {}) {
  return tl::unexpected(NoAgent{std::move(error), exit_status});
}

tl::unexpected<NoAgent> give_up_ended(const std::string& name, std::optional<int> status,
                                      const std::string& message) {
  return give_up(
      Error{fmt::format("{} has ended{}{}", name, status ? fmt::format(" (status {})", *status) : "",
                        message.empty() ? "" : ": " + message),
            {}},
      status);
}

// The machine whose guest's sockets a unix socket leads to: it knows whether there is something to wait for.
// "": none that says so.
std::string machine_of_socket(const std::string& path) {
  struct stat wanted {};
  const auto machines = list_machines();
  if (!machines || ::stat(path.c_str(), &wanted) != 0) return {};
  for (const FoundVm& vm : *machines) {
    if (!vm.alive) continue;
    const auto answer = ask_machine(vm, "GET", "/v1/vm", {}, kStatePatience);
    const auto info = answer ? nlohmann::json::parse(answer->body, nullptr, false) : nlohmann::json();
    struct stat status {};
    if (::stat(text_in(info, "vsock").c_str(), &status) == 0 && status.st_dev == wanted.st_dev &&
        status.st_ino == wanted.st_ino)
      return vm.name;
  }
  return {};
}

class Waiter {
 public:
  Waiter(const std::string& machine, const AgentPatience& patience)
      : machine_(machine), patience_(patience), is_path_(machine.find('/') != std::string::npos) {
    if (is_path_) {
      socket_ = machine;
    } else {
      name_ = machine;
    }
  }
  tl::expected<UniqueFd, NoAgent> run();

 private:
  tl::expected<Agent, NoAgent> look();
  tl::expected<void, NoAgent> pause();
  tl::expected<UniqueFd, NoAgent> dial_once();
  bool is_over(Agent agent);
  void say_so(Agent agent);
  tl::unexpected<NoAgent> nobody() const;

  const std::string& machine_;
  const AgentPatience patience_;
  const bool is_path_;
  std::string name_;  // of the machine; "": not known
  std::string socket_;
  const Clock::time_point began_ = Clock::now();
  std::optional<FoundVm> vm_;
  // Since when nobody has answered of whom an answer could be expected.
  std::optional<Clock::time_point> refused_since_;
  bool said_ = false;
};

// Finds the machine anew: it may have ended, and another have its name.
tl::expected<Agent, NoAgent> Waiter::look() {
  if (name_.empty()) return Agent::kUnknown;
  auto found = find_machine(name_);
  if (!found && vm_) return give_up_ended(machine_, {}, "");
  if (!found) return give_up(std::move(found.error()));
  vm_ = std::move(*found);
  if (!vm_->alive) return give_up_ended(vm_->name, vm_->exit_status, vm_->end_message);
  const auto answer = ask_machine(*vm_, "GET", "/v1/vm", {}, kStatePatience);
  // One that has just begun does not serve yet.
  if (!answer) {
    if (socket_.empty()) socket_ = own_socket(*vm_);
    return Agent::kUnknown;
  }
  const auto info = nlohmann::json::parse(answer->body, nullptr, false);
  if (!is_path_) socket_ = text_in(info, "vsock");
  if (socket_.empty())
    return give_up(
        Error{vm_->name + " has no socket device that leads to its guest", "start it with --vsock auto"});
  // Nobody in it would answer.
  if (text_in(info, "state") == "paused")
    return give_up(Error{vm_->name + " is paused", "snug resume " + vm_->name});
  const std::string agent = text_in(info, "agent");
  return agent == "ready"     ? Agent::kReady
         : agent == "awaited" ? Agent::kAwaited
         : agent == "silent"  ? Agent::kSilent
                              : Agent::kUnknown;
}

// A little while; less when the machine ends in it, which then says how.
tl::expected<void, NoAgent> Waiter::pause() {
  const auto until = Clock::now() + kPause;
  Result<HttpResponse> answer = fail("not asked");
  if (vm_) answer = ask_machine(*vm_, "GET", "/v1/wait", {}, kPause);
  const auto end = answer ? nlohmann::json::parse(answer->body, nullptr, false) : nlohmann::json();
  if (answer && answer->status == 200 && end.is_object() && end.contains("exit_status") &&
      end["exit_status"].is_number_integer())
    return give_up_ended(vm_->name, end["exit_status"].get<int>(), text_in(end, "message"));
  std::this_thread::sleep_until(until);
  return {};
}

// No stream: the guest refuses.
tl::expected<UniqueFd, NoAgent> Waiter::dial_once() {
  auto socket = vm_ && socket_ == own_socket(*vm_) ? connect_to(*vm_, kSocketFile) : connect_to_path(socket_);
  if (!socket) {
    // Its end, or its beginning, seen halfway.
    if (vm_) return UniqueFd();
    return give_up(std::move(socket.error()));
  }
  const auto answered = dial(socket->get(), protocol::kAgentPort, kAnswerPatience);
  if (!answered) return give_up(answered.error());
  return *answered ? std::move(*socket) : UniqueFd();
}

bool Waiter::is_over(Agent agent) {
  const auto now = Clock::now();
  if (patience_.limit) return *patience_.limit != milliseconds::max() && now - began_ >= *patience_.limit;
  if (agent == Agent::kAwaited) {
    refused_since_.reset();
    return false;
  }
  if (!refused_since_) refused_since_ = now;
  return now - *refused_since_ >= (agent == Agent::kReady ? kGoingDown : kShort);
}

void Waiter::say_so(Agent agent) {
  if (said_ || Clock::now() - began_ < kQuiet) return;
  said_ = true;
  put(stderr, "snug: waiting for the agent in the guest of {}{}\n", machine_,
      agent == Agent::kAwaited ? ", which boots" : "");
}

tl::unexpected<NoAgent> Waiter::nobody() const {
  return give_up(
      Error{fmt::format("nobody answers in the guest of {}", machine_),
            "it may still boot (--wait TIME gives it longer), or its image has no snug-agent, or no driver "
            "for virtio-vsock (guest-images/README.md, \"The agent\")"});
}

tl::expected<UniqueFd, NoAgent> Waiter::run() {
  for (;;) {
    const auto agent = look();
    if (!agent) return tl::unexpected(agent.error());
    // Who has not called cannot answer: a guest without a driver yet would be waited for in vain.
    if (*agent != Agent::kAwaited) {
      auto stream = dial_once();
      if (!stream || *stream) return stream;
      if (name_.empty()) name_ = machine_of_socket(socket_);
    }
    if (is_over(*agent)) return nobody();
    say_so(*agent);
    if (auto paused = pause(); !paused) return tl::unexpected(paused.error());
  }
}

}  // namespace

Result<AgentPatience> parse_patience(const std::string& text) {
  if (text == "none") return AgentPatience{milliseconds::max()};
  return AgentPatience{SNUG_TRY(with_context(parse_duration(text), "--wait"))};
}

tl::expected<UniqueFd, NoAgent> reach_agent(const std::string& machine, const AgentPatience& patience) {
  return Waiter(machine, patience).run();
}

Result<UniqueFd> connect_to_agent(const std::string& machine, const AgentPatience& patience) {
  auto stream = reach_agent(machine, patience);
  if (!stream) return tl::unexpected(std::move(stream.error().error));
  return std::move(*stream);
}

}  // namespace snug::cli
