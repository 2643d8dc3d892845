#include "vmm/cli/image_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/cli/machines.h"
#include "vmm/cli/put.h"

namespace snug::cli {
namespace {

constexpr std::chrono::seconds kLineEvery{5};

}  // namespace

ImageProgress::ImageProgress(std::string name, ShowProgress show)
    : name_(std::move(name)), shown_(show == ShowProgress::kYes), terminal_(::isatty(STDERR_FILENO) != 0) {}

ImageProgress::~ImageProgress() { clear(); }

oci::PullCallback ImageProgress::pulling() {
  if (!shown_) return {};
  return [this](const oci::PullProgress& progress) {
    if (progress.begun > 0 || progress.bytes > 0)
      show(pull_text(progress), std::min(progress.done, progress.begun));
  };
}

images::ProgressCallback ImageProgress::building() {
  if (!shown_) return {};
  // Layers are read quickly, of what is here: the time alone makes a line.
  const size_t layers = layers_;
  return [this, layers](const images::Progress& progress) {
    show(build_text(progress), layers);
    return true;
  };
}

void ImageProgress::show(const std::string& state, size_t layers) {
  if (terminal_) {
    if (std::exchange(last_, state) == state) return;
    put(stderr, "\r\x1b[Ksnug: {}: {}", name_, state);
    line_ = true;
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (layers <= layers_ && (state == last_ || now - told_ < kLineEvery)) return;
  put(stderr, "snug: {}: {}\n", name_, state);
  layers_ = std::max(layers, layers_);
  last_ = state;
  told_ = now;
}

void ImageProgress::clear() {
  if (line_) put(stderr, "\r\x1b[K");
  line_ = false;
}

std::string pull_text(const oci::PullProgress& progress) {
  const size_t whole = std::min(progress.done, progress.begun);
  return fmt::format("{} of {} layer{}, {} of them whole", size_text(static_cast<double>(progress.bytes)),
                     progress.begun, progress.begun == 1 ? "" : "s", whole);
}

std::string build_text(const images::Progress& progress) {
  const bool reading = progress.stage == images::Stage::kReadingLayers;
  std::string text =
      reading ? fmt::format("layer {} of {}", progress.layer, progress.layers) : std::string("root");
  if (progress.total > 0)
    text += fmt::format(", {} %", std::min<uint64_t>(100, progress.done * 100 / progress.total));
  return text;
}

}  // namespace snug::cli
