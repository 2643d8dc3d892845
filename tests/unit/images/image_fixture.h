// Layers in memory made into an image in memory, and what is in it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/erofs_reader.h"
#include "tests/unit/images/layer_maker.h"
#include "vmm/images/image_builder.h"
#include "vmm/images/image_fault.h"

namespace snug::test {

inline UniqueFd memory_file(std::string_view contents = {}) {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_TRUE(fd);
  for (size_t done = 0; done < contents.size();) {
    const ssize_t count =
        ::pwrite(fd.get(), contents.data() + done, contents.size() - done, static_cast<off_t>(done));
    if (count <= 0) break;
    done += static_cast<size_t>(count);
  }
  return fd;
}

struct Built {
  Result<images::ErofsSummary> result = fail("not built");
  UniqueFd image;

  std::string bytes() const {
    std::string out(result ? result->bytes : 0, '\0');
    for (size_t done = 0; done < out.size();) {
      const ssize_t count =
          ::pread(image.get(), out.data() + done, out.size() - done, static_cast<off_t>(done));
      if (count <= 0) break;
      done += static_cast<size_t>(count);
    }
    return out;
  }
};

inline Built build(const std::vector<std::string>& layers, images::ImageLimits limits = {},
                   images::ProgressCallback progress = {}) {
  std::vector<UniqueFd> files;
  std::vector<images::Layer> sources;
  for (const std::string& layer : layers) {
    files.push_back(memory_file(layer));
    sources.push_back({files.back().get(), layer.size()});
  }
  Built built;
  built.image = memory_file();
  images::ImageJob job;
  job.layers = sources;
  job.spool = memory_file();
  job.image = built.image.get();
  job.limits = limits;
  job.progress = std::move(progress);
  built.result = images::build_image(std::move(job));
  return built;
}

// The lines of an image without a fault; the error's text otherwise.
inline Lines lines_of(const Built& built) {
  if (!built.result) return {built.result.error().text()};
  ErofsReader reader(built.image.get());
  Lines lines = listing(reader);
  for (const std::string& problem : reader.problems()) lines.push_back("PROBLEM " + problem);
  return lines;
}

// The name of the fault that ended it, "" where nothing did.
inline std::string fault_of(const Built& built) {
  if (built.result) return "";
  const std::string& text = built.result.error().message;
  const size_t open = text.rfind('(');
  return open == std::string::npos ? text : text.substr(open + 1, text.size() - open - 2);
}

}  // namespace snug::test
