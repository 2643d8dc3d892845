#include "devices/virtio/block/overlay.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>

#include "devices/virtio/block/transfer.h"

namespace snug {
namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kWordBits = 64;
constexpr size_t kBase = 0;
constexpr size_t kOverlay = 1;
constexpr int kRoundsMax = 8;  // of requests in parts, before others have a turn

// Moves the first `bytes` of a transfer over to `part`.
void split_off(BlockRequest& request, uint64_t bytes, BlockRequest& part) {
  part.offset = request.offset;
  part.length = bytes;
  part.iovecs.clear();
  if (bytes == request.length) {
    std::swap(part.iovecs, request.iovecs);
    request.offset += bytes;
    request.length = 0;
    return;
  }
  uint64_t left = bytes;
  for (const iovec& piece : request.iovecs) {
    if (left == 0) break;
    const size_t length = std::min<uint64_t>(left, piece.iov_len);
    part.iovecs.push_back({piece.iov_base, length});
    left -= length;
  }
  advance(request, bytes);
}

class OverlayBackend final : public BlockBackend {
 public:
  OverlayBackend(std::unique_ptr<BlockBackend> inner, SectorMap& written)
      : written_(written), inner_(std::move(inner)) {}

  bool submit(BlockRequest& request) override {
    if (free_.empty()) {
      steps_.push_back(std::make_unique<Step>());
      steps_.back()->part.tag = steps_.size() - 1;
      free_.push_back(steps_.size() - 1);
    }
    Step& step = *steps_[free_.back()];
    step.whole = &request;
    if (!next(step)) return false;
    free_.pop_back();
    return true;
  }

  bool kick() override { return inner_->kick(); }
  int event_fd() const override { return inner_->event_fd(); }

  void reap(const Report& report) override {
    const auto on_part = [&](uint64_t tag, int error) {
      Step& step = *steps_[tag];
      if (error == 0 && step.writes) written_.set(step.first, step.count);
      if (error == 0 && step.whole->length > 0) {
        // The step before has left its place.
        if (next(step)) return;
        error = EAGAIN;
      }
      free_.push_back(tag);
      report(step.whole->tag, error);
    };
    inner_->reap(on_part);
    // Parts that are done at once; what goes on and on, with turns for others in between.
    for (int rounds = 0; inner_->kick(); ++rounds) {
      if (rounds == kRoundsMax) {
        const uint64_t one = 1;
        (void)!::write(event_fd(), &one, sizeof one);
        break;
      }
      inner_->reap(on_part);
    }
  }

 private:
  // A request and the part of it that is under way. One part after the other: there is more than one only
  // where a read meets sectors of both files.
  struct Step {
    BlockRequest part;
    BlockRequest* whole = nullptr;
    uint64_t first = 0;  // sectors of the part
    uint64_t count = 0;
    bool writes = false;
  };

  bool next(Step& step) {
    BlockRequest& whole = *step.whole;
    BlockRequest& part = step.part;
    part.operation = whole.operation;
    part.file = kOverlay;
    step.first = whole.offset / kSector;
    step.count = whole.length / kSector;
    step.writes = true;
    switch (whole.operation) {
      case BlockOperation::kRead:
        step.writes = false;
        step.count = written_.run(step.first, step.count);
        part.file = written_.has(step.first) ? kOverlay : kBase;
        split_off(whole, step.count * kSector, part);
        break;
      case BlockOperation::kWrite:
        split_off(whole, whole.length, part);
        break;
      case BlockOperation::kFlush:
        step.writes = false;
        whole.length = 0;
        break;
      // Zeros need no space in a file that is thrown away.
      case BlockOperation::kWriteZeroes:
        part.operation = BlockOperation::kZeroAndFree;
        [[fallthrough]];
      case BlockOperation::kDiscard:
      case BlockOperation::kZeroAndFree:
        part.offset = whole.offset;
        part.length = whole.length;
        whole.length = 0;
        break;
    }
    return inner_->submit(part);
  }

  SectorMap& written_;
  std::vector<std::unique_ptr<Step>> steps_;  // never shrinks; parts stay where they are
  std::vector<size_t> free_;                  // indexes of steps_
  std::unique_ptr<BlockBackend> inner_;       // last: it ends only when it is done with the parts
};

}  // namespace

Result<SectorMap> SectorMap::create(uint64_t sectors) {
  return SectorMap(SNUG_TRY(Mapping::anonymous((sectors + kWordBits - 1) / kWordBits * sizeof(uint64_t))));
}

uint64_t& SectorMap::word(uint64_t sector) const {
  return reinterpret_cast<uint64_t*>(bits_.data())[sector / kWordBits];
}

bool SectorMap::has(uint64_t sector) const { return (word(sector) >> sector % kWordBits & 1) != 0; }

void SectorMap::set(uint64_t first, uint64_t count) {
  while (count > 0) {
    const uint64_t at = first % kWordBits;
    const uint64_t here = std::min(count, kWordBits - at);
    const uint64_t ones = here == kWordBits ? ~uint64_t{0} : (uint64_t{1} << here) - 1;
    word(first) |= ones << at;
    first += here;
    count -= here;
  }
}

void SectorMap::trim(uint64_t sectors) {
  if (sectors % kWordBits != 0) word(sectors) &= (uint64_t{1} << sectors % kWordBits) - 1;
}

uint64_t SectorMap::run(uint64_t first, uint64_t limit) const {
  const uint64_t other = has(first) ? ~uint64_t{0} : 0;
  uint64_t length = 0;
  while (length < limit) {
    const uint64_t at = (first + length) % kWordBits;
    // Bits that differ from the first one's, from here to the end of the word.
    const uint64_t differ = (word(first + length) ^ other) >> at;
    if (differ != 0) return std::min(limit, length + static_cast<uint64_t>(std::countr_zero(differ)));
    length += kWordBits - at;
  }
  return limit;
}

namespace {

// Of a map, told by itself: 16 MiB of disk.
constexpr size_t kMapPiece = 4096;

}  // namespace

// Only what has bits: how many pieces, and each behind its number.
void save_map(const SectorMap& written, SectionWriter& out) {
  const std::span<const std::byte> bits = written.bits();
  const auto piece = [bits](size_t at) { return bits.subspan(at, std::min(kMapPiece, bits.size() - at)); };
  const auto has_bits = [&](size_t at) {
    return std::ranges::any_of(piece(at), [](std::byte byte) { return byte != std::byte{0}; });
  };
  std::vector<size_t> pieces;
  for (size_t at = 0; at < bits.size(); at += kMapPiece)
    if (has_bits(at)) pieces.push_back(at);
  out.number(uint64_t{bits.size()});
  out.number(uint64_t{pieces.size()});
  for (const size_t at : pieces) {
    out.number(uint64_t{at / kMapPiece});
    out.bytes(piece(at));
  }
}

void restore_map(SectorMap& written, SectionReader& in) {
  const std::span<std::byte> bits = written.bits();
  if (in.number<uint64_t>() != bits.size()) return in.refuse("a map of another disk");
  for (auto left = in.number<uint64_t>(); left > 0 && in.good(); --left) {
    const auto number = in.number<uint64_t>();
    if (number >= (bits.size() + kMapPiece - 1) / kMapPiece) return in.refuse("a map of a larger disk");
    const size_t at = number * kMapPiece;
    in.bytes(bits.subspan(at, std::min(kMapPiece, bits.size() - at)));
  }
}

std::unique_ptr<BlockBackend> make_overlay_backend(std::unique_ptr<BlockBackend> inner, SectorMap& written) {
  return std::make_unique<OverlayBackend>(std::move(inner), written);
}

}  // namespace snug
