#include "vmm/spec/shares.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <set>
#include <system_error>

#include "vmm/spec/text.h"

namespace snug {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kShortForm = "SOURCE[:TARGET][:ro|rw]";

bool is_mode(std::string_view text) { return text == "ro" || text == "rw"; }

// For the guest, which knows nothing of the host's links: as text alone.
std::string own_path(const std::string& source, std::string_view base_dir) {
  const std::string path = (fs::path(base_dir) / source).lexically_normal().string();
  return path.size() > 1 && path.ends_with('/') ? path.substr(0, path.size() - 1) : path;
}

Result<std::vector<ShortForm::Part>> take_apart(const std::string& text, std::string_view base_dir) {
  const auto fields = split(text, ':');
  const bool has_mode = fields.size() > 1 && is_mode(fields.back());
  const size_t paths = fields.size() - (has_mode ? 1 : 0);
  std::vector<ShortForm::Part> parts{{"source", fields[0]}};
  if (paths > 2) {
    const bool label = paths == 3 && (fields[2] == "z" || fields[2] == "Z");
    return fail("expected {}, got {}; {}", kShortForm, in_quotes(text),
                label ? "labels of SELinux are left alone: leave that out"
                      : "a source with a colon in it is written source=PATH,target=DIR");
  }
  if (paths == 2 && !fields[1].starts_with('/'))
    return fail("expected {} with an absolute path in the guest as its target, got {} in {}", kShortForm,
                in_quotes(fields[1]), in_quotes(text));
  if (paths == 2)
    parts.push_back({"target", fields[1]});
  else if (!fields[0].empty())
    parts.push_back({"target", own_path(fields[0], base_dir), true});
  if (has_mode) parts.push_back({"readonly", fields.back() == "ro" ? "true" : "false"});
  return parts;
}

// Without links, "." and ".."; "": it is not there.
fs::path real_path(const std::string& path) {
  std::error_code error;
  fs::path real = fs::canonical(path, error);
  return error ? fs::path() : real;
}

}  // namespace

ShortForm share_short_form() { return {std::string(kShortForm), take_apart}; }

void name_shares(std::vector<ShareSpec>& shares) {
  std::set<std::string> taken;
  for (const ShareSpec& share : shares) taken.insert(share.tag);
  for (size_t i = 0; i < shares.size(); ++i) {
    if (!shares[i].tag.empty()) continue;
    for (size_t number = i; shares[i].tag.empty(); ++number)
      if (std::string tag = fmt::format("share{}", number); taken.insert(tag).second)
        shares[i].tag = std::move(tag);
  }
}

std::vector<ShareProblem> share_problems(const std::vector<ShareSpec>& shares) {
  std::vector<ShareProblem> problems;
  if (shares.size() > kSharesMax)
    problems.push_back({kSharesMax, "", fmt::format("at most {} shares, got {}", kSharesMax, shares.size())});
  std::map<std::string, size_t> targets, tags;
  for (size_t i = 0; i < shares.size(); ++i) {
    const ShareSpec& share = shares[i];
    if (const auto [first, is_new] = targets.emplace(share.target, i); !is_new && !share.target.empty())
      problems.push_back({i, "target",
                          fmt::format("{} is the target of another share already, of {}",
                                      in_quotes(share.target), in_quotes(shares[first->second].source))});
    if (const auto [first, is_new] = tags.emplace(share.tag, i); !is_new && !share.tag.empty())
      problems.push_back({i, "tag",
                          fmt::format("{} is the tag of another share already, of {}", in_quotes(share.tag),
                                      in_quotes(shares[first->second].source))});
  }
  return problems;
}

std::string guest_folder_of(const std::vector<ShareSpec>& shares, const std::string& folder) {
  const fs::path wanted = real_path(folder);
  if (wanted.empty()) return {};
  for (const ShareSpec& share : shares) {
    const fs::path source = real_path(share.source);
    std::error_code error;
    if (share.target.empty() || source.empty() || !fs::is_directory(source, error)) continue;
    const fs::path below = wanted.lexically_relative(source);
    if (below.empty() || *below.begin() == "..") continue;
    return below == "." ? share.target : share.target + "/" + below.string();
  }
  return {};
}

std::string guest_folder_in_root(const std::string& root, const std::string& folder) {
  const fs::path top = real_path(root), wanted = real_path(folder);
  if (top.empty() || wanted.empty()) return {};
  const fs::path below = wanted.lexically_relative(top);
  struct stat of_top {
  }, of_wanted{};
  if (below.empty() || *below.begin() == ".." || ::stat(top.c_str(), &of_top) != 0 ||
      ::stat(wanted.c_str(), &of_wanted) != 0 || of_top.st_dev != of_wanted.st_dev)
    return {};
  if (below == ".") return "/";
  // Of these the guest has its own.
  for (const char* own : {"dev", "proc", "run", "sys", "tmp"})
    if (*below.begin() == own) return {};
  return "/" + below.string();
}

}  // namespace snug
