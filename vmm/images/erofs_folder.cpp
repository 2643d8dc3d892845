#include "vmm/images/erofs_folder.h"

#include <cstring>

#include "vmm/images/erofs_format.h"

namespace snug::images {

using erofs::FolderEntry;
using erofs::kBlock;

void ErofsFolder::add(std::string_view name, uint64_t nid, uint8_t type) {
  const size_t needed = sizeof(FolderEntry) + name.size();
  if (entries_.empty() || used_ + needed > kBlock) {
    block_starts_.push_back(entries_.size());
    used_ = 0;
  }
  used_ += needed;
  entries_.push_back({name, nid, type});
}

uint64_t ErofsFolder::size() const {
  return block_starts_.empty() ? 0 : (block_starts_.size() - 1) * kBlock + used_;
}

std::string ErofsFolder::bytes() const {
  std::string out(size(), '\0');
  for (size_t block = 0; block < block_starts_.size(); ++block) {
    const size_t first = block_starts_[block];
    const size_t end = block + 1 < block_starts_.size() ? block_starts_[block + 1] : entries_.size();
    char* const start = out.data() + block * kBlock;
    size_t name_offset = (end - first) * sizeof(FolderEntry);
    for (size_t i = first; i < end; ++i) {
      FolderEntry entry{};
      entry.nid = entries_[i].nid;
      entry.name_offset = static_cast<uint16_t>(name_offset);
      entry.type = entries_[i].type;
      std::memcpy(start + (i - first) * sizeof entry, &entry, sizeof entry);
      std::memcpy(start + name_offset, entries_[i].name.data(), entries_[i].name.size());
      name_offset += entries_[i].name.size();
    }
  }
  return out;
}

}  // namespace snug::images
