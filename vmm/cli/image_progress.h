// How far an image is, on stderr: on a terminal one line that is renewed and at last is gone, else a line for
// each layer, or every few seconds.
//
// Main thread.
#pragma once

#include <chrono>
#include <string>

#include "vmm/images/progress.h"
#include "vmm/oci/skopeo.h"

namespace snug::cli {

enum class ShowProgress { kNo, kYes };

class ImageProgress {
 public:
  // `name`: the image's.
  ImageProgress(std::string name, ShowProgress show);
  ~ImageProgress();
  ImageProgress(const ImageProgress&) = delete;
  ImageProgress& operator=(const ImageProgress&) = delete;

  // For Store::pull() and Store::root_of(); not longer than this.
  oci::PullCallback pulling();
  images::ProgressCallback building();

 private:
  void show(const std::string& state, size_t layers);
  void clear();

  const std::string name_;
  const bool shown_;
  const bool terminal_;
  bool line_ = false;  // one stands on the terminal
  size_t layers_ = 0;  // of the last line elsewhere
  std::string last_;
  std::chrono::steady_clock::time_point told_ = std::chrono::steady_clock::now();
};

// "12.3M of 3 layers, 2 of them whole": what is shown of a pull.
std::string pull_text(const oci::PullProgress& progress);
// "layer 2 of 3, 40 %"; "root, 40 %"
std::string build_text(const images::Progress& progress);

}  // namespace snug::cli
