// Users and groups of the guest, read from /etc/passwd and /etc/group: a static program has no other way.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace snug::agent {

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // the supplementary ones
  std::string name;
  std::string home = "/";
  std::string shell = "/bin/sh";
};

// "NAME", "UID", each perhaps with ":GROUP" or ":GID". A number need not be in the files; root need not
// either. "" is the user this process runs as. Nothing: no such user or group; `why` says which. `root`:
// folder that holds etc, "" for the real one.
std::optional<User> find_user(const std::string& wanted, std::string& why, const std::string& root = "");

}  // namespace snug::agent
