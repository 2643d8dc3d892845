#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <sstream>

#include "vmm/jail/steps.h"

namespace snug::jail {
namespace {

constexpr Limits kTrialLimits{64, 8};

// One line a step, its parts between tabs: none of them has either.
std::string to_text(const Entry& entry) {
  std::string text;
  for (const std::string& name : entry.done) text += name + '\n';
  for (const MissingStep& step : entry.missing)
    text += fmt::format("{}\t{}\t{}\n", step.name, step.why, step.hint);
  return text;
}

Entry from_text(const std::string& text) {
  Entry entry;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream parts(line);
    MissingStep step;
    std::getline(parts, step.name, '\t');
    if (std::getline(parts, step.why, '\t')) {
      std::getline(parts, step.hint, '\t');
      entry.missing.push_back(std::move(step));
    } else {
      entry.done.push_back(std::move(step.name));
    }
  }
  return entry;
}

// Until nobody has the other end any more.
std::string read_all(int fd) {
  std::string text;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count > 0)
      text.append(buffer.data(), static_cast<size_t>(count));
    else if (count == 0 || errno != EINTR)
      return text;
  }
}

[[noreturn]] void tell_and_end(const Split& split, int to) {
  const std::string text = to_text(take_steps(split, kTrialLimits));
  (void)!::write(to, text.data(), text.size());
  ::_exit(0);
}

}  // namespace

Result<Entry> try_out() {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return fail_errno(errno, "pipe");
  const UniqueFd from(pipe[0]);
  UniqueFd to(pipe[1]);
  const Split trial = SNUG_TRY(split(Confinement::kNamespaces));
  if (trial.child == 0) tell_and_end(trial, to.get());
  to.reset();
  const std::string text = read_all(from.get());
  int status = 0;
  while (::waitpid(trial.child, &status, 0) < 0 && errno == EINTR) continue;
  if (status != 0) return fail("a process that tried to lock itself in has ended ({:#x})", status);
  return from_text(text);
}

}  // namespace snug::jail
