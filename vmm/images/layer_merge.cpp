#include "vmm/images/layer_merge.h"

#include <algorithm>

#include "vmm/base/assertion.h"
#include "vmm/images/image_fault.h"

namespace snug::images {

namespace {

constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kDriverNote = ".wh..wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";

// Parts between slashes; empty ones and "." mean nothing.
std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    const std::string_view part = path.substr(0, slash);
    if (!part.empty() && part != ".") parts.push_back(part);
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  return parts;
}

bool has_dots(const std::vector<std::string_view>& parts) {
  return std::find(parts.begin(), parts.end(), "..") != parts.end();
}

// What nobody has described.
void make_plain(Inode& folder) {
  folder.mode = S_IFDIR | 0755;
  folder.uid = folder.gid = 0;
  folder.mtime = 0;
  folder.mtime_ns = 0;
  folder.xattrs.clear();
}

}  // namespace

tl::unexpected<Error> LayerMerge::refuse(Fault fault) const {
  return tl::unexpected(refused(fault, {layer_, entry_}));
}

Result<void> LayerMerge::begin_layer() {
  if (layer_ >= limits_.layers || layer_ == UINT16_MAX)
    return tl::unexpected(refused(Fault::kTooManyLayers, {}));
  ++layer_;
  return {};
}

Result<void> LayerMerge::add(LayerEntry entry) {
  entry_ = entry.path;
  std::vector<std::string_view> parts = split(entry.path);
  if (has_dots(parts)) return refuse(Fault::kPathEscapes);
  if (parts.empty()) {
    if (!entry.inode.is_folder()) return refuse(Fault::kBadName);
    return place(kRoot, {}, std::move(entry.inode));
  }
  const std::string_view name = parts.back();
  parts.pop_back();
  for (const std::string_view part : parts)
    if (part.starts_with(kWhiteout)) return refuse(Fault::kReservedName);
  if (name.starts_with(kWhiteout)) return whiteout(parts, name);
  const InodeId folder = *SNUG_TRY(walk(parts, Missing::kMake));
  if (entry.hard_link) return hard_link(folder, name, entry.link_path);
  return place(folder, name, std::move(entry.inode));
}

Result<std::optional<InodeId>> LayerMerge::walk(const std::vector<std::string_view>& parts, Missing missing) {
  std::vector<std::string> left(parts.rbegin(), parts.rend());  // the next one is the last
  InodeId at = kRoot;
  uint32_t links = 0;
  for (uint32_t steps = 0; !left.empty(); ++steps) {
    if (steps >= limits_.parts_of_path) return refuse(links > 0 ? Fault::kTooManyLinks : Fault::kTooDeep);
    const auto next = SNUG_TRY(step(left, at, links, missing));
    if (!next) return next;
    at = *next;
  }
  return std::optional(at);
}

// Takes the last of the parts that are left, and may put others in its place.
Result<std::optional<InodeId>> LayerMerge::step(std::vector<std::string>& left, InodeId at, uint32_t& links,
                                                Missing missing) {
  const std::string name = std::move(left.back());
  left.pop_back();
  if (name == "..") return std::optional(tree_.inode(at).folder->parent);
  const Child* child = tree_.find(at, name);
  if (child == nullptr) {
    if (missing == Missing::kStop) return std::optional<InodeId>();
    return std::optional(SNUG_TRY(make_folder(at, name)));
  }
  const Inode& inode = tree_.inode(child->inode);
  if (inode.is_folder()) return std::optional(child->inode);
  if (inode.is_link()) {
    if (++links > limits_.links_in_path) return refuse(Fault::kTooManyLinks);
    const auto parts = split(inode.target);
    left.insert(left.end(), parts.rbegin(), parts.rend());
    return std::optional(inode.target.starts_with('/') ? kRoot : at);
  }
  if (missing == Missing::kStop) return std::optional<InodeId>();
  tree_.remove(at, name);
  return std::optional(SNUG_TRY(make_folder(at, name)));
}

Result<void> LayerMerge::check_new_name(InodeId folder, std::string_view name) {
  if (name.size() > kNameBytes) return refuse(Fault::kNameTooLong);
  if (name.starts_with(kWhiteout)) return refuse(Fault::kReservedName);
  if (tree_.inode(folder).folder->depth >= limits_.depth) return refuse(Fault::kTooDeep);
  if (++names_ > limits_.entries) return refuse(Fault::kTooManyEntries);
  return {};
}

Result<InodeId> LayerMerge::make_folder(InodeId parent, std::string_view name) {
  SNUG_TRY(check_new_name(parent, name));
  Inode folder;
  make_plain(folder);
  return tree_.add(parent, name, std::move(folder), layer_);
}

Result<void> LayerMerge::place(InodeId folder, std::string_view name, Inode inode) {
  Child* child = nullptr;
  if (!name.empty()) {
    child = tree_.find(folder, name);
    if (child == nullptr || !inode.is_folder() || !tree_.inode(child->inode).is_folder()) {
      if (child != nullptr) tree_.remove(folder, name);
      SNUG_TRY(check_new_name(folder, name));
      tree_.add(folder, name, std::move(inode), layer_);
      return {};
    }
    child->layer = layer_;
  }
  // A folder over a folder, which the root always is.
  Inode& old = tree_.inode(child != nullptr ? child->inode : kRoot);
  inode.folder = std::move(old.folder);
  inode.links = old.links;
  old = std::move(inode);
  return {};
}

Result<void> LayerMerge::hard_link(InodeId folder, std::string_view name, const std::string& target) {
  auto parts = split(target);
  if (has_dots(parts)) return refuse(Fault::kPathEscapes);
  if (parts.empty()) return refuse(Fault::kBadLink);
  const std::string_view target_name = parts.back();
  parts.pop_back();
  const auto target_folder = SNUG_TRY(walk(parts, Missing::kStop));
  const Child* const found = target_folder ? tree_.find(*target_folder, target_name) : nullptr;
  if (found == nullptr || tree_.inode(found->inode).is_folder()) return refuse(Fault::kBadLink);
  const InodeId inode = found->inode;
  if (Child* old = tree_.find(folder, name); old != nullptr) {
    if (old->inode == inode) {
      old->layer = layer_;
      return {};
    }
    // What gives way may be a folder with the target in it.
    ++tree_.inode(inode).links;
    tree_.remove(folder, name);
    --tree_.inode(inode).links;
  }
  SNUG_TRY(check_new_name(folder, name));
  tree_.link(folder, name, inode, layer_);
  return {};
}

Result<void> LayerMerge::whiteout(const std::vector<std::string_view>& path, std::string_view name) {
  const bool opaque = name == kOpaque;
  if (!opaque && name.starts_with(kDriverNote)) return {};
  const std::string hidden(name.substr(kWhiteout.size()));
  if (!opaque && (hidden.empty() || hidden == "." || hidden == "..")) return refuse(Fault::kBadWhiteout);
  const auto folder = SNUG_TRY(walk(path, Missing::kStop));
  if (!folder) return {};
  if (opaque)
    clear_lower(*folder);
  else
    hide(*folder, hidden);
  return {};
}

void LayerMerge::hide(InodeId folder, const std::string& name) {
  Child* const child = tree_.find(folder, name);
  if (child == nullptr) return;
  const bool ours = child->layer == layer_;
  if (!tree_.inode(child->inode).is_folder()) {
    if (!ours) tree_.remove(folder, name);
    return;
  }
  const bool kept = clear_lower(child->inode);
  if (ours) return;
  if (!kept) {
    tree_.remove(folder, name);
    return;
  }
  // What this layer has put below makes a folder of it, of which nothing else is known.
  child->layer = layer_;
  make_plain(tree_.inode(child->inode));
}

// Takes away what lower layers have left below a folder; whether anything remains. Each folder once in a
// layer: then nothing of lower layers can be in it. No deeper than `depth`.
bool LayerMerge::clear_lower(InodeId id) {
  Folder& folder = *tree_.inode(id).folder;
  if (folder.cleared_layer != layer_) {
    folder.cleared_layer = layer_;
    std::vector<std::string> names;
    names.reserve(folder.children.size());
    for (const auto& [name, child] : folder.children) names.push_back(name);
    for (const std::string& name : names) hide(id, name);
  }
  return !folder.children.empty();
}

}  // namespace snug::images
