#include "vmm/cli/machine_socket.h"

#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "vmm/agent/dial.h"
#include "vmm/base/socket_address.h"
#include "vmm/control/control_client.h"
#include "vmm/control/vm_directory.h"
#include "vmm/protocol/frames.h"

namespace snug::cli {
namespace {

constexpr std::chrono::seconds kStatePatience{1};
// A guest that refuses may still boot.
constexpr std::chrono::seconds kAgentPatience{10};
constexpr std::chrono::milliseconds kPause{100};
// Longer than the machine waits for its guest.
constexpr std::chrono::seconds kAnswerPatience{30};

Result<UniqueFd> connect_to_path(const std::string& path) {
  const sockaddr_un address = SNUG_TRY(socket_address(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "{}", path);
  return fd;
}

// Whoever starts a machine in the background may ask for a command at once.
Result<UniqueFd> connect_to_machine(const std::string& name) {
  const FoundVm vm = SNUG_TRY(find_machine(name));
  if (!vm.alive)
    return fail("{} has ended{}{}", vm.name,
                vm.exit_status ? fmt::format(" (status {})", *vm.exit_status) : "",
                vm.end_message.empty() ? "" : ": " + vm.end_message);
  if (::access((vm.path + "/vsock.sock").c_str(), F_OK) != 0)
    return fail_with_hint(fmt::format("{} has no socket device that leads to its guest", vm.name),
                          "start it with --vsock auto");
  // Nobody in it would answer.
  const auto info = ask_machine(vm, "GET", "/v1/vm", {}, kStatePatience);
  const auto state = info ? nlohmann::json::parse(info->body, nullptr, false) : nlohmann::json();
  if (state.is_object() && state.value("state", nlohmann::json()) == "paused")
    return fail_with_hint(vm.name + " is paused", "snug resume " + vm.name);
  return connect_to(vm, "vsock.sock");
}

}  // namespace

Result<UniqueFd> connect_to_agent(const std::string& machine) {
  const auto deadline = std::chrono::steady_clock::now() + kAgentPatience;
  const bool is_path = machine.find('/') != std::string::npos;
  for (;;) {
    UniqueFd socket = SNUG_TRY(is_path ? connect_to_path(machine) : connect_to_machine(machine));
    if (SNUG_TRY(dial(socket.get(), protocol::kAgentPort, kAnswerPatience))) return socket;
    if (std::chrono::steady_clock::now() >= deadline)
      return fail_with_hint(
          fmt::format("nobody answers in the guest of {}", machine),
          "it may still boot, or its image has no snug-agent, or no driver for virtio-vsock "
          "(guest-images/README.md, \"The agent\")");
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace snug::cli
