// What the shares of a machine mean together.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/spec/key.h"
#include "vmm/spec/spec.h"

namespace snug {

constexpr size_t kSharesMax = 16;

// "SOURCE[:TARGET][:ro|rw]". Without a target it is the source's own path, absolute.
ShortForm share_short_form();

// Gives those without a tag one that is free: "share0" and so on, by their place.
void name_shares(std::vector<ShareSpec>& shares);

struct ShareProblem {
  size_t share = 0;      // the place of the one that it is about
  std::string_view key;  // "target"; "": all of it
  std::string text;      // for a person
};
// What is wrong with them as a whole, before they are named.
std::vector<ShareProblem> share_problems(const std::vector<ShareSpec>& shares);

// Where the guest finds a folder of the host: in the first share with a target that it lies in. "": nowhere.
// Looks at the host's folders. Mounts below a source are taken to be part of it.
std::string guest_folder_of(const std::vector<ShareSpec>& shares, const std::string& folder);

// The same where the guest's root is a folder of the host, of which mounts are no part.
std::string guest_folder_in_root(const std::string& root, const std::string& folder);

}  // namespace snug
