#include "vmm/cli/sent_machine.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <span>

#include "vmm/base/socket_io.h"
#include "vmm/base/sparse_file.h"
#include "vmm/cli/machines.h"
#include "vmm/cli/snapshot_store.h"
#include "vmm/control/control_client.h"

namespace snug::cli {
namespace {

using nlohmann::json;

// What a machine is started for goes in one packet; the kernel may give less.
constexpr int kPacketMax = 1 << 20;
// A machine that is told that nobody is there any more goes on within this, in milliseconds.
constexpr int kGoesOnWithin = 10'000;

Result<UniqueFd> memory_file(const char* name) {
  UniqueFd file(::memfd_create(name, MFD_CLOEXEC));
  if (!file) return fail_errno(errno, "memfd_create");
  return file;
}

}  // namespace

Result<SentMachine> SentMachine::begin(const FoundVm& vm) {
  SentMachine machine;
  machine.name_ = vm.name;
  machine.state_ = SNUG_TRY(memory_file("state"));
  machine.pages_ = SNUG_TRY(memory_file("pages"));
  machine.memory_ = SNUG_TRY(passing_file());
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return fail_errno(errno, "socketpair");
  machine.talk_ = UniqueFd(ends[0]);
  const UniqueFd theirs(ends[1]);
  (void)::setsockopt(theirs.get(), SOL_SOCKET, SO_SNDBUF, &kPacketMax, sizeof kPacketMax);
  const std::array descriptors{machine.state_.get(), machine.memory_.get(), machine.pages_.get(),
                               theirs.get()};
  const auto response = SNUG_TRY(ask_machine(vm, "POST", "/v1/send", {}, std::nullopt, descriptors));
  if (response.status == 200) return machine;
  const json body = json::parse(response.body, nullptr, false);
  return fail("{}", body.is_object() ? body.value("error", "it was refused") : "it was refused");
}

Result<json> SentMachine::ask(std::string_view word) {
  if (send_some(talk_.get(), word.data(), word.size()) < 0) {
    if (errno != EPIPE) return fail_errno(errno, "{}", name_);
    // It may have said why.
  }
  std::string answer(kPacketMax, '\0');
  ssize_t count = -1;
  do count = receive_some(talk_.get(), answer.data(), answer.size());
  while (count < 0 && errno == EINTR);
  if (count <= 0) return fail("{} has ended", name_);
  json said = json::parse(answer.substr(0, static_cast<size_t>(count)), nullptr, false);
  if (!said.is_object()) return fail("{} says what cannot be read", name_);
  if (const auto error = said.find("error"); error != said.end() && error->is_string())
    return fail("{}", error->get<std::string>());
  return said;
}

Result<SentMachine::Round> SentMachine::ask_round(std::string_view word) {
  const json said = SNUG_TRY(ask(word));
  Round round;
  const auto tells = said.find("tells");
  round.tells = tells != said.end() && *tells == true;
  round.pages = static_cast<uint64_t>(number_in(said, "pages"));
  if (const auto commands = said.find("commands"); commands != said.end())
    round.commands = commands->dump(-1, ' ', false, json::error_handler_t::replace);
  return round;
}

Result<SentMachine::Round> SentMachine::round() { return ask_round("round"); }
Result<SentMachine::Round> SentMachine::stand_still() { return ask_round("stand still"); }

Result<void> SentMachine::stay() {
  SNUG_TRY(ask("stay"));
  return {};
}

void SentMachine::give_up() {
  ::shutdown(talk_.get(), SHUT_WR);
  for (std::array<char, 4096> last{};;) {
    pollfd end{.fd = talk_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&end, 1, kGoesOnWithin) <= 0 || receive_some(talk_.get(), last.data(), last.size()) <= 0)
      return;
  }
}

Result<void> SentMachine::add_pages(std::vector<uint64_t>& bits) const {
  struct stat status {};
  if (::fstat(pages_.get(), &status) != 0) return fail_errno(errno, "the list of what has changed");
  std::vector<uint64_t> written(static_cast<size_t>(status.st_size) / sizeof(uint64_t));
  SNUG_TRY(read_at(pages_.get(), std::as_writable_bytes(std::span(written)), 0));
  bits.resize(std::max(bits.size(), written.size()));
  for (size_t i = 0; i < written.size(); ++i) bits[i] |= written[i];
  return {};
}

}  // namespace snug::cli
