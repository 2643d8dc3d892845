#include "vmm/host/systemd_scope.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <vector>

#include "vmm/base/unique_fd.h"
#include "vmm/host/passt.h"
#include "vmm/host/spawn.h"

namespace snug {
namespace {

// It takes some milliseconds; on a host that is just starting, seconds.
constexpr std::chrono::seconds kPatience{15};

// Reads until the program closes its output, or time is up and it is killed.
SystemdManager::Answer wait_for(pid_t pid, int output) {
  SystemdManager::Answer answer;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd wait{output, POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      ::kill(pid, SIGKILL);
      break;
    }
    std::array<char, 1024> buffer;
    const ssize_t count = ::read(output, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    answer.in_time = count <= 0;
    if (answer.in_time) break;
    answer.said.append(buffer.data(), static_cast<size_t>(count));
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  answer.refused = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  return answer;
}

// One line, for a message.
std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::ranges::replace(text, '\n', ' ');
  return text;
}

bool is_socket(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nothing sets it
  return value != nullptr ? value : "";
}

// Of the bus on which this user's systemd is. The session's own folder last: XDG_RUNTIME_DIR may lead
// elsewhere.
std::string user_bus(const std::string& run) {
  if (std::string address = variable("DBUS_SESSION_BUS_ADDRESS"); !address.empty()) return address;
  for (const std::string& folder : {variable("XDG_RUNTIME_DIR"), fmt::format("{}/user/{}", run, ::geteuid())})
    if (folder.starts_with('/') && is_socket(folder + "/bus")) return fmt::format("unix:path={}/bus", folder);
  return {};
}

}  // namespace

Result<SystemdManager> SystemdManager::find(const std::string& run) {
  SystemdManager manager;
  // As sd_booted(3) has it.
  struct stat status {};
  if (::lstat((run + "/systemd/system").c_str(), &status) != 0 || !S_ISDIR(status.st_mode))
    return fail("no systemd runs here");
  const bool root = ::geteuid() == 0;
  manager.called_ = root ? "the system's systemd" : "this user's systemd";
  if (!root) {
    manager.address_ = user_bus(run);
    if (manager.address_.empty())
      return fail_with_hint(
          "this user has no systemd to be asked (no session's bus)",
          "log in as the user rather than by su or sudo, or have one started without a login: "
          "sudo loginctl enable-linger USER (on Debian with the package dbus-user-session)");
  }
  manager.busctl_ = find_program("busctl");
  if (manager.busctl_.empty())
    return fail_with_hint("busctl, by which systemd is asked, is not on PATH",
                          "install it: it is a part of systemd's package");
  return manager;
}

Result<SystemdManager::Answer> SystemdManager::call(const std::vector<std::string>& words) const {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  const UniqueFd output(pipe[0]);
  UniqueFd theirs(pipe[1]);
  SpawnRequest request{.program = busctl_, .arguments = {"busctl"}, .output = theirs.get()};
  request.arguments.push_back(address_.empty() ? "--system" : "--address=" + address_);
  request.arguments.insert(request.arguments.end(), words.begin(), words.end());
  const auto pid = spawn(request);
  if (!pid) return tl::unexpected(pid.error().error);
  theirs.reset();
  Answer answer = wait_for(*pid, output.get());
  if (answer.in_time && answer.refused)
    return fail("{} refuses: {}", called_, answer.said.empty() ? "busctl failed" : one_line(answer.said));
  return answer;
}

// What is printed: s "/user.slice/user-1000.slice/user@1000.service"
Result<std::string> SystemdManager::control_group() const {
  const Answer answer =
      SNUG_TRY(call({"get-property", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                     "org.freedesktop.systemd1.Manager", "ControlGroup"}));
  if (!answer.in_time) return fail("{} does not answer within {} s", called_, kPatience.count());
  const size_t begin = answer.said.find('"');
  const size_t end = answer.said.rfind('"');
  if (begin == std::string::npos || end == begin)
    return fail("{} answers {}", called_, one_line(answer.said));
  std::string group = answer.said.substr(begin + 1, end - begin - 1);
  return group == "/" ? std::string() : group;
}

// org.freedesktop.systemd1(5): StartTransientUnit(name, mode, properties, auxiliary units). Delegate: what is
// below is nobody else's, and when the kernel kills for want of memory systemd leaves the rest alone, so that
// the warden can say what has happened.
Result<void> SystemdManager::start_scope(const std::string& unit, const CgroupLimits& limits,
                                         pid_t process) const {
  std::vector<std::string> properties{"Description",
                                      "s",
                                      "A machine of snug",
                                      "PIDs",
                                      "au",
                                      "1",
                                      std::to_string(process),
                                      "Delegate",
                                      "b",
                                      "true",
                                      "CollectMode",
                                      "s",
                                      "inactive-or-failed"};
  size_t count = 4;
  for (const CgroupLimit& limit : list_limits(limits)) {
    const std::array<std::string, 3> property{std::string(limit.property), "t",
                                              std::to_string(limit.property_value)};
    properties.insert(properties.end(), property.begin(), property.end());
    ++count;
  }
  std::vector<std::string> words{"call",
                                 "org.freedesktop.systemd1",
                                 "/org/freedesktop/systemd1",
                                 "org.freedesktop.systemd1.Manager",
                                 "StartTransientUnit",
                                 "ssa(sv)a(sa(sv))",
                                 unit,
                                 "fail",
                                 std::to_string(count)};
  words.insert(words.end(), properties.begin(), properties.end());
  words.push_back("0");
  // No answer is no refusal: the scope may come all the same.
  SNUG_TRY(call(words));
  return {};
}

}  // namespace snug
