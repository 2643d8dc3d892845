#include "vmm/images/image_builder.h"

#include <unistd.h>

#include "vmm/images/file_tree.h"
#include "vmm/images/image_fault.h"
#include "vmm/images/layer_merge.h"
#include "vmm/images/layer_reader.h"
#include "vmm/images/layer_stream.h"
#include "vmm/images/spool.h"

namespace snug::images {

namespace {

constexpr uint64_t kReportEvery = 4 * kMiB;

// Tells of the layers that are read, at the first of them and then every few MiB of tar.
class Reading {
 public:
  explicit Reading(const ImageJob& job) : callback_(job.progress) {
    state_.layers = job.layers.size();
    for (const Layer& layer : job.layers) {
      if (layer.stored_bytes == 0) {
        state_.total = 0;
        return;
      }
      state_.total += layer.stored_bytes;
    }
  }
  Result<void> begin(size_t layer) {
    state_.layer = layer;
    return report();
  }
  Result<void> tick(uint64_t taken, uint64_t unpacked) {
    if (unpacked - reported_ < kReportEvery) return {};
    reported_ = unpacked;
    state_.done = before_ + taken;
    return report();
  }
  void end(uint64_t taken) { state_.done = before_ += taken; }

 private:
  Result<void> report() const {
    if (callback_ && !callback_(state_)) return tl::unexpected(refused(Fault::kCancelled, {}));
    return {};
  }
  const ProgressCallback& callback_;
  Progress state_;
  uint64_t before_ = 0;    // bytes of the layers that are done
  uint64_t reported_ = 0;  // unpacked bytes at the last report
};

// A layer whose bytes are not its own is refused as that, whatever else they have led to.
Result<void> read_layer(const Layer& layer, size_t number, ImageJob& job, Spool& spool, LayerMerge& merge,
                        ImageUse& use, Reading& reading) {
  const Hashing hashing = layer.digest.empty() ? Hashing::kNo : Hashing::kYes;
  auto opened = LayerStream::open(layer.fd, hashing);
  bool cancelled = false;
  auto read = [&]() -> Result<void> {
    if (!opened) return tl::unexpected(Error(opened.error()).with_context(fmt::format("layer {}", number)));
    LayerStream& stream = **opened;
    LayerReader reader(stream, spool, job.limits, use, number, [&] {
      auto ticked = reading.tick(stream.taken(), use.unpacked_bytes);
      cancelled |= !ticked;
      return ticked;
    });
    while (auto entry = SNUG_TRY(reader.next())) SNUG_TRY(merge.add(std::move(*entry)));
    reading.end(stream.taken());
    return {};
  }();
  if (hashing == Hashing::kNo || cancelled) return read;
  // One that is packed in a way that nobody knows.
  if (!opened && ::lseek(layer.fd, 0, SEEK_SET) != 0) return read;
  StoredBytes again(layer.fd, hashing);
  if (SNUG_TRY(opened ? (*opened)->digest() : again.digest()) != layer.digest)
    return tl::unexpected(refused(Fault::kWrongDigest, {number, {}},
                                  fmt::format("its bytes are not those of {}", layer.digest)));
  return read;
}

}  // namespace

Result<ErofsSummary> build_image(ImageJob job) {
  Spool spool(std::move(job.spool));
  FileTree tree;
  LayerMerge merge(tree, job.limits);
  ImageUse use;
  Reading reading(job);
  for (size_t i = 0; i < job.layers.size(); ++i) {
    SNUG_TRY(merge.begin_layer());
    SNUG_TRY(reading.begin(i + 1));
    SNUG_TRY(read_layer(job.layers[i], i + 1, job, spool, merge, use, reading));
  }
  return ErofsWriter(tree, spool.descriptor(), job.limits, job.progress).write(job.image);
}

}  // namespace snug::images
