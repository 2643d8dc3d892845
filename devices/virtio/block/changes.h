// Which pieces of a disk have changed since a moment: what a copy that is made meanwhile has to have again.
//
// Thread: as its owner's.
#pragma once

#include <cstdint>
#include <vector>

namespace snug {

class BlockChanges {
 public:
  static constexpr uint64_t kPiece = uint64_t{64} << 10;  // bytes

  // Bytes; a disk that has become larger has more pieces.
  void add(uint64_t offset, uint64_t length) {
    if (length == 0) return;
    const uint64_t last = (offset + length - 1) / kPiece;
    if (last >= changed_.size()) changed_.resize(last + 1);
    for (uint64_t piece = offset / kPiece; piece <= last; ++piece) {
      count_ += changed_[piece] ? 0 : 1;
      changed_[piece] = true;
    }
  }
  uint64_t bytes() const { return count_ * kPiece; }

  // each(offset, length) for pieces side by side, bytes, from the first to the last; ends with what it
  // returns when that is an error.
  template <class Outcome, class Each>
  Outcome for_each(Each each) const {
    for (uint64_t at = 0; at < changed_.size(); ++at) {
      if (!changed_[at]) continue;
      const uint64_t first = at;
      while (at < changed_.size() && changed_[at]) ++at;
      if (Outcome outcome = each(first * kPiece, (at - first) * kPiece); !outcome) return outcome;
    }
    return {};
  }

 private:
  std::vector<bool> changed_;  // by piece
  uint64_t count_ = 0;
};

}  // namespace snug
