#include "vmm/host/cgroup_scope.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <sstream>
#include <thread>
#include <utility>

#include "vmm/base/log.h"
#include "vmm/host/cgroup_advice.h"
#include "vmm/host/systemd_scope.h"

namespace snug {
namespace {

// systemd answers before it has done what it was asked for.
constexpr std::chrono::seconds kScopePatience{30};
// Processes that were killed take a moment to go; the kernel counts them until then.
constexpr int kRemoveTries = 200;
constexpr std::chrono::milliseconds kPause{5};

std::string to_text(const std::vector<std::string>& controllers, char sign) {
  std::string text;
  for (const std::string& name : controllers)
    text += fmt::format("{}{}{}", text.empty() ? "" : " ", sign, name);
  return text;
}

// The BFQ scheduler has weights of its own.
int write_limit(CgroupFiles& files, const std::string& folder, const CgroupLimit& limit) {
  const int error = files.write(fmt::format("{}/{}", folder, limit.file), limit.value);
  if (error != ENOENT || limit.key != "io_weight") return error;
  return files.write(folder + "/io.bfq.weight", limit.value) == 0 ? 0 : error;
}

// Whether a group has it: systemd passes over a controller that it has not got.
bool is_limited(const CgroupFiles& files, const std::string& folder, const CgroupLimit& limit) {
  std::string text;
  if (limit.key == "io_weight")
    return files.read(fmt::format("{}/{}", folder, limit.file), text) == 0 ||
           files.read(folder + "/io.bfq.weight", text) == 0;
  return files.read(fmt::format("{}/{}", folder, limit.file), text) == 0 && !text.starts_with("max");
}

}  // namespace

Result<std::unique_ptr<CgroupScope>> CgroupScope::enter(const CgroupHost& host, const Request& request) {
  std::unique_ptr<CgroupScope> scope(new CgroupScope(host, request));
  auto entered = scope->enter_any();
  if (!entered)
    return tl::unexpected(
        std::move(entered.error()).with_context("limits: " + keys_of(list_limits(request.limits))));
  return scope;
}

Result<void> CgroupScope::enter_any() {
  const OwnCgroup own = SNUG_TRY(own_cgroup(host_.proc));
  const auto limits = list_limits(request_.limits);
  // What the host has not got nobody can give.
  if (const auto missing = without_controller(host_.files, own.mount, limits); !missing.empty())
    return tl::unexpected(no_controllers(host_.files, own, own.mount, missing));
  // One that systemd has left to us to divide: what is started there is to stay there.
  const bool ours = host_.files.is_marked_delegated(own.path);
  Result<void> below = fail("not tried");
  if (ours) below = enter_one_below(own);
  if (below) return {};
  const std::string unit = fmt::format("snug-{}-{}.scope", request_.name, ::getpid());
  const auto manager = SystemdManager::find(host_.run);
  auto started = manager ? manager->start_scope(unit, request_.limits, ::getpid())
                         : Result<void>(tl::unexpected(manager.error()));
  if (started) return enter_one_of_systemd(unit);
  if (!ours) below = enter_one_below(own);
  if (below) return {};
  const Error& first = started.error();
  const Error& second = below.error();
  return fail_with_hint(fmt::format("{}, and {}", first.message, second.message),
                        first.hint.empty() ? second.hint : first.hint);
}

CgroupScope::~CgroupScope() { leave(); }

uint64_t CgroupScope::killed_for_memory() const {
  std::string text;
  if (host_.files.read(path_ + "/memory.events", text) != 0) return 0;
  std::istringstream lines(text);
  uint64_t count = 0;
  for (std::string name; lines >> name >> count;)
    if (name == "oom_kill") return count;
  return 0;
}

// --- one of systemd's --------------------------------------------------------------------------------------

Result<void> CgroupScope::enter_one_of_systemd(const std::string& unit) {
  SNUG_TRY(wait_until_in(unit));
  const OwnCgroup own = SNUG_TRY(own_cgroup(host_.proc));
  path_ = own.path;
  for (const CgroupLimit& limit : list_limits(request_.limits)) {
    if (is_limited(host_.files, path_, limit)) continue;
    // systemd takes it, and the group above has nothing to give.
    if (const auto missing = without_controller(host_.files, path_, {limit}); !missing.empty())
      return tl::unexpected(no_controllers(host_.files, own, path_, missing));
    return fail("systemd has not set limits.{} of {}", limit.key, unit);
  }
  return {};
}

Result<void> CgroupScope::wait_until_in(const std::string& unit) {
  const auto deadline = std::chrono::steady_clock::now() + kScopePatience;
  for (;;) {
    const auto own = own_cgroup(host_.proc);
    if (own && own->path.ends_with("/" + unit)) return {};
    if (std::chrono::steady_clock::now() >= deadline)
      return fail_with_hint(
          fmt::format("systemd has not put snug into {} within {} s", unit, kScopePatience.count()),
          "its journal says why: journalctl -u " + unit +
              (::geteuid() == 0 ? "" : ", and journalctl --user -u " + unit));
    std::this_thread::sleep_for(kPause);
  }
}

// --- one of our own ----------------------------------------------------------------------------------------

Result<void> CgroupScope::enter_one_below(const OwnCgroup& own) {
  const auto missing = without_controller(host_.files, own.path, list_limits(request_.limits));
  if (!missing.empty()) return tl::unexpected(no_controllers(host_.files, own, own.path, missing));
  const std::string folder = fmt::format("{}/snug-{}-{}", own.path, request_.name, ::getpid());
  if (request_.about_to_make) SNUG_TRY(request_.about_to_make(folder));
  int error = host_.files.make(folder);
  // Of a machine with our number that was killed.
  if (error == EEXIST && host_.files.remove(folder) == 0) error = host_.files.make(folder);
  if (error != 0) return tl::unexpected(cannot_make(own.path, error));
  path_ = folder;
  parent_ = own.path;
  auto made = [&]() -> Result<void> {
    const UniqueFd alone = host_.files.lock(own.path);
    SNUG_TRY(join());
    SNUG_TRY(divide(own.path));
    return set_limits();
  }();
  if (!made) leave();
  return made;
}

// A group with processes of its own gives nothing on, but for the host's root; so we leave it first.
// (Processor time alone it would give on to threads, and then take no process in a group below it.)
Result<void> CgroupScope::divide(const std::string& parent) {
  const std::string file = parent + "/cgroup.subtree_control";
  const auto given = cgroup_words(host_.files, file);
  std::vector<std::string> needed, wanted;
  for (const CgroupLimit& limit : list_limits(request_.limits)) {
    needed.emplace_back(limit.controller);
    if (std::ranges::find(given, limit.controller) == given.end()) wanted.emplace_back(limit.controller);
  }
  if (wanted.empty()) {
    // One that another has asked for this moment is named before its files are there; who asks for it once
    // more waits for that.
    (void)host_.files.write(file, to_text(needed, '+'));
    return {};
  }
  const int error = host_.files.write(file, to_text(wanted, '+'));
  if (error == EBUSY) return tl::unexpected(is_shared(host_.files, parent));
  if (error != 0) return tl::unexpected(cannot_make(parent, error));
  enabled_ = std::move(wanted);
  return {};
}

Result<void> CgroupScope::set_limits() {
  for (const CgroupLimit& limit : list_limits(request_.limits))
    if (const int error = write_limit(host_.files, path_, limit); error != 0)
      return tl::unexpected(refuses(path_, limit, error));
  return {};
}

Result<void> CgroupScope::join() {
  const int error = host_.files.write(path_ + "/cgroup.procs", std::to_string(::getpid()));
  if (error != 0) return tl::unexpected(cannot_make(parent_, error));
  joined_ = true;
  return {};
}

void CgroupScope::leave() {
  if (parent_.empty()) return;
  int error = joined_ ? go_back() : 0;
  if (error == 0) error = remove_when_empty();
  // What has remembered it removes it later.
  if (error != 0 && error != ENOENT)
    log_info("limits: the control group {} is left for the next command to remove: {}", path_,
             errno_text(error));
  parent_.clear();
}

int CgroupScope::go_back() {
  const std::string procs = parent_ + "/cgroup.procs";
  const std::string self = std::to_string(::getpid());
  const int error = host_.files.write(procs, self);
  if (error != EBUSY || enabled_.empty()) return error;
  // It takes no processes while it gives controllers on. Other groups in it may be other machines' and need
  // them; none comes between the look and the change.
  const UniqueFd alone = host_.files.lock(parent_);
  if (groups_in(parent_) > 1) return error;
  if (host_.files.write(parent_ + "/cgroup.subtree_control", to_text(enabled_, '-')) != 0) return error;
  return host_.files.write(procs, self);
}

int CgroupScope::remove_when_empty() {
  int error = EBUSY;
  for (int attempt = 0; error == EBUSY && attempt < kRemoveTries; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(kPause);
    error = host_.files.remove(path_);
  }
  return error;
}

// --- what there is -----------------------------------------------------------------------------------------

LimitsSurvey survey_limits(const CgroupHost& host) {
  LimitsSurvey survey;
  const auto limits = all_limits();
  const auto add = [&survey](const std::vector<CgroupLimit>& missing, Error why) {
    if (!missing.empty()) survey.missing.push_back({keys_of(missing), std::move(why)});
  };
  const auto own = own_cgroup(host.proc);
  if (!own) {
    add(limits, own.error());
    return survey;
  }
  const auto manager = SystemdManager::find(host.run);
  const auto group =
      manager ? manager->control_group() : Result<std::string>(tl::unexpected(manager.error()));
  const std::string folder = group ? own->mount + *group : own->path;
  survey.by = group ? manager->called() : fmt::format("in {}", folder);
  const auto missing = without_controller(host.files, folder, limits);
  for (const CgroupLimit& limit : limits) {
    if (std::ranges::find(missing, limit.key, &CgroupLimit::key) != missing.end()) continue;
    survey.had.push_back(limit);
  }
  if (!missing.empty()) add(missing, no_controllers(host.files, *own, folder, missing));
  if (group || survey.had.empty()) return survey;
  const int error = may_make_in(folder);
  if (error == 0 && !has_other_processes(host.files, folder)) return survey;
  Error why = error != 0 ? cannot_make(folder, error) : is_shared(host.files, folder);
  why.message = fmt::format("{}, and {}", group.error().message, why.message);
  if (!group.error().hint.empty()) why.hint = group.error().hint;
  add(std::exchange(survey.had, {}), std::move(why));
  return survey;
}

}  // namespace snug
