// Lays layers above each other, by the rules of the OCI image specification (layer.md, "Applying
// Changesets").
//
// - An entry replaces what has its name, with all that lies below; a folder over a folder keeps what is in it
// and takes the
//   new attributes.
// - `.wh.NAME` hides NAME, `.wh..wh..opq` all names of its folder: of lower layers only, wherever in the
// layer they stand.
//   Where there is nothing to hide they do nothing. `.wh..wh.*` others are notes of a storage driver and are
//   passed over.
// - Folders that a path needs and nobody has made are root's, 0755, of 1970. A file in a path gives way to a
// folder.
// - Symbolic links in a path are followed within the image, as a process in it would: `..` ends at its root,
// a link to
//   nowhere gets the folders that it names. Nothing ever leads out: there is nothing but the tree. What
//   containerd, umoci and others do; images rely on it (`lib/x` where /lib is a link to usr/lib).
// - `..` in the path of an entry is refused, a slash at its start is passed over.
// - The target of a hard link has to be there, in this layer or a lower one; of its other fields nothing is
// taken.
//
// Thread: one at a time. Time is bounded by the entries and what they name, whatever the order of whiteouts.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/images/file_tree.h"
#include "vmm/images/image_limits.h"
#include "vmm/images/layer_entry.h"

namespace snug::images {

class LayerMerge {
 public:
  // Into a tree that holds nothing but its root.
  LayerMerge(FileTree& tree, const ImageLimits& limits) : tree_(tree), limits_(limits) {}

  // From the lowest on. Errors: too many.
  Result<void> begin_layer();
  // Errors: named, with the layer and the entry.
  Result<void> add(LayerEntry entry);

 private:
  enum class Missing { kMake, kStop };
  // The folder that the parts lead to; nothing when one is missing and none is to be made.
  Result<std::optional<InodeId>> walk(const std::vector<std::string_view>& parts, Missing missing);
  Result<std::optional<InodeId>> step(std::vector<std::string>& left, InodeId at, uint32_t& links,
                                      Missing missing);
  Result<InodeId> make_folder(InodeId parent, std::string_view name);
  Result<void> check_new_name(InodeId folder, std::string_view name);

  Result<void> whiteout(const std::vector<std::string_view>& folder, std::string_view name);
  Result<void> hard_link(InodeId folder, std::string_view name, const std::string& target);
  Result<void> place(InodeId folder, std::string_view name, Inode inode);
  void hide(InodeId folder, const std::string& name);
  bool clear_lower(InodeId folder);
  tl::unexpected<Error> refuse(Fault fault) const;

  FileTree& tree_;
  ImageLimits limits_;
  uint16_t layer_ = 0;
  std::string_view entry_;  // that is being added
  uint64_t names_ = 0;      // given so far
};

}  // namespace snug::images
