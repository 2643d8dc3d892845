#include "vmm/run/guest_shares.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

namespace snug {
namespace {

// Its driver may be a module that is loaded now.
constexpr std::chrono::seconds kPatience{30};

bool is_file(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

}  // namespace

std::vector<protocol::MountRequest> plan_mounts(const std::vector<ShareSpec>& shares) {
  std::vector<protocol::MountRequest> mounts;
  for (const ShareSpec& share : shares) {
    if (share.target.empty()) continue;
    protocol::MountRequest mount{
        .tag = share.tag, .target = share.target, .file = {}, .readonly = share.readonly};
    if (is_file(share.source)) mount.file = share.source.substr(share.source.rfind('/') + 1);
    mounts.push_back(std::move(mount));
  }
  const auto depth = [](const protocol::MountRequest& mount) {
    return std::count(mount.target.begin(), mount.target.end(), '/');
  };
  std::stable_sort(mounts.begin(), mounts.end(),
                   [&](const auto& a, const auto& b) { return depth(a) < depth(b); });
  return mounts;
}

size_t GuestShares::put_all(std::string& frames) const {
  for (const protocol::MountRequest& mount : mounts_) protocol::put_mount(frames, mount);
  return mounts_.size();
}

void GuestShares::are_mounted() {
  outcomes_.assign(mounts_.size(), "");
  are_mounted_ = true;
}

void GuestShares::mount() {
  if (std::exchange(are_mounted_, false)) return events_.done();
  forget();
  round_ = std::make_shared<int>(0);
  at_ = 0;
  next();
}

std::optional<std::string> GuestShares::outcome(const std::string& tag) const {
  const auto mount =
      std::ranges::find_if(mounts_, [&](const protocol::MountRequest& each) { return each.tag == tag; });
  const auto at = static_cast<size_t>(mount - mounts_.begin());
  if (at >= outcomes_.size()) return std::nullopt;
  return outcomes_[at];
}

void GuestShares::forget() {
  are_mounted_ = false;
  outcomes_.clear();
  round_.reset();
  request_.reset();
}

void GuestShares::next() {
  if (at_ == mounts_.size()) return events_.done();
  connect_([this, round = std::weak_ptr<int>(round_)](UniqueFd stream, int error) {
    if (!round.expired()) start(std::move(stream), error);
  });
}

void GuestShares::start(UniqueFd stream, int error) {
  if (error != 0) return on_end(fail("reach the guest's agent: {}", errno_text(error)));
  std::string frame;
  protocol::put_mount(frame, mounts_[at_]);
  auto request = AgentRequest::start(loop_, std::move(stream), frame, kPatience,
                                     [this](const Result<void>& result) { on_end(result); },
                                     {.version = protocol::kMountVersion});
  if (!request) return on_end(tl::unexpected(std::move(request.error())));
  request_ = std::move(*request);
}

void GuestShares::on_end(const Result<void>& result) {
  const protocol::MountRequest& mount = mounts_[at_++];
  outcomes_.push_back(result ? "" : result.error().text());
  if (!result)
    events_.failed(fmt::format("mount {} on {}: {}", mount.tag, mount.target, result.error().text()));
  // The request is what calls us.
  loop_.post([this, round = std::weak_ptr<int>(round_)] {
    if (!round.expired()) next();
  });
}

}  // namespace snug
