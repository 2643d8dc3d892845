#include "guest-images/agent/users.h"

#include <fcntl.h>
#include <unistd.h>
#include <cstdlib>

#include <string_view>

#include "guest-images/agent/connection.h"

namespace snug::agent {
namespace {

using Fields = std::vector<std::string_view>;

std::string read_file(const std::string& path) {
  constexpr size_t kLongest = size_t{4} << 20;
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::vector<char> buffer(16 * 1024);
  ssize_t count = 0;
  while (fd && text.size() < kLongest && (count = ::read(fd.get(), buffer.data(), buffer.size())) > 0)
    text.append(buffer.data(), static_cast<size_t>(count));
  return text;
}

Fields split(std::string_view text, char separator) {
  Fields fields;
  for (;;) {
    const size_t end = text.find(separator);
    fields.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return fields;
    text.remove_prefix(end + 1);
  }
}

std::optional<uint32_t> number(std::string_view text) {
  if (text.empty() || text.size() > 10) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  // All ones means "leave as it is" to the system calls.
  if (value >= 0xffffffff) return std::nullopt;
  return static_cast<uint32_t>(value);
}

// The line of passwd or group whose first field is `name`, or whose third is `id`.
std::optional<Fields> find_line(std::string_view file, std::string_view name, std::optional<uint32_t> id,
                                size_t field_count) {
  for (const std::string_view line : split(file, '\n')) {
    Fields fields = split(line, ':');
    if (fields.size() < field_count) continue;
    if (fields[0] == name || (id && number(fields[2]) == id)) return fields;
  }
  return std::nullopt;
}

std::vector<gid_t> groups_of(std::string_view file, const std::string& name) {
  std::vector<gid_t> groups;
  for (const std::string_view line : split(file, '\n')) {
    const Fields fields = split(line, ':');
    if (fields.size() < 4) continue;
    for (const std::string_view member : split(fields[3], ','))
      if (const auto gid = number(fields[2]); gid && member == name) groups.push_back(*gid);
  }
  return groups;
}

}  // namespace

std::optional<User> find_user(const std::string& wanted, std::string& why, const std::string& root) {
  const size_t colon = wanted.find(':');
  std::string name = wanted.substr(0, colon);
  if (name.empty()) name = std::to_string(::geteuid());
  const std::string passwd = read_file(root + "/etc/passwd");
  const std::string groups = read_file(root + "/etc/group");
  const auto uid = number(name);
  User user;
  if (const auto line = find_line(passwd, name, uid, 7)) {
    const auto line_uid = number((*line)[2]);
    const auto line_gid = number((*line)[3]);
    if (!line_uid || !line_gid) {
      why = "user " + name + ": /etc/passwd of the guest is broken";
      return std::nullopt;
    }
    user.uid = *line_uid;
    user.gid = *line_gid;
    user.name = (*line)[0];
    if (!(*line)[5].empty()) user.home = (*line)[5];
    if (!(*line)[6].empty()) user.shell = (*line)[6];
    user.groups = groups_of(groups, user.name);
  } else if (name == "root" || name == "0") {
    user.name = "root";
    if (::access((root + "/root").c_str(), F_OK) == 0) user.home = "/root";
  } else if (uid) {
    user.uid = *uid;
    user.name = name;
  } else {
    why = "no user " + name + " in the guest";
    return std::nullopt;
  }
  if (colon == std::string::npos) return user;
  const std::string group = wanted.substr(colon + 1);
  const auto gid = number(group);
  if (const auto line = find_line(groups, group, gid, 3); line && number((*line)[2])) {
    user.gid = *number((*line)[2]);
  } else if (gid) {
    user.gid = *gid;
  } else {
    why = "no group " + group + " in the guest";
    return std::nullopt;
  }
  user.groups.clear();
  return user;
}

}  // namespace snug::agent
