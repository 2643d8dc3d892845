#include "vmm/images/image_builder.h"

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
    const auto stream =
        SNUG_TRY(with_context(LayerStream::open(job.layers[i].fd), fmt::format("layer {}", i + 1)));
    LayerReader reader(*stream, spool, job.limits, use, i + 1,
                       [&] { return reading.tick(stream->taken(), use.unpacked_bytes); });
    while (auto entry = SNUG_TRY(reader.next())) SNUG_TRY(merge.add(std::move(*entry)));
    reading.end(stream->taken());
  }
  return ErofsWriter(tree, spool.descriptor(), job.limits, job.progress).write(job.image);
}

}  // namespace snug::images
