// Any stream of a machine or a snapshot: it is refused with a reason, or what was made of it is what its
// records say. An input is bytes of a stream as they are (first byte odd), or, behind a first byte that is
// even and one for the format, records whose checksums are made here: a byte for the kind, two for `a`, and
// one for the body (see below).
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "vmm/base/assertion.h"
#include "vmm/base/endian.h"
#include "vmm/base/sparse_file.h"
#include "vmm/cli/snapshot_stream.h"
#include "vmm/cli/stream_record.h"

namespace {

namespace fs = std::filesystem;
using namespace snug;       // NOLINT
using namespace snug::cli;  // NOLINT

constexpr uint64_t kModelled = uint64_t{2} << 20;  // bytes of memory that are compared

std::string little(uint64_t value, size_t size) {
  std::string text(size, '\0');
  store_le(std::as_writable_bytes(std::span(text)), value);
  return text;
}

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return at_ == size_; }
  uint8_t byte() { return at_ < size_ ? data_[at_++] : uint8_t{0}; }
  std::string take(size_t count) {
    count = std::min(count, size_ - at_);
    std::string text(reinterpret_cast<const char*>(data_) + at_, count);
    at_ += count;
    return text;
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

// What the records say that have gone out. Of a stream that was taken it is true.
struct Model {
  std::map<std::string, uint64_t> sizes;
  std::string last;
  std::string memory;

  void add(uint8_t kind, uint64_t a, const std::string& body) {
    if (kind == 1) {
      sizes[body] = a;
      last = body;
      if (body == "memory" && a <= kModelled) memory.assign(a, '\0');
    }
    if (last != "memory") return;
    if ((kind == 2 || kind == 4) && a <= memory.size() && body.size() <= memory.size() - a)
      std::copy(body.begin(), body.end(), memory.begin() + static_cast<ptrdiff_t>(a));
    if (kind == 5 && body.size() == 8) {
      const uint64_t count = load_le(std::as_bytes(std::span(body)));
      if (a <= memory.size() && count <= memory.size() - a)
        std::fill_n(memory.begin() + static_cast<ptrdiff_t>(a), count, '\0');
    }
  }
};

// Two bytes: a small number, one of some pages and bytes, a power of two and a bit, or the end of the
// numbers.
uint64_t number(Input& input) {
  const uint8_t how = input.byte();
  const uint64_t value = input.byte();
  switch (how >> 6) {
    case 0:
      return value;
    case 1:
      return value * 4096 + (how & 63);
    case 2:
      return (uint64_t{1} << (how & 63)) + value;
    default:
      return ~uint64_t{0} - value;
  }
}

// One byte: so many of the input; so many pages of one byte; a number as kind 5 has it.
std::string body(Input& input) {
  constexpr uint8_t kPages = 128, kNumber = 255;
  const uint8_t how = input.byte();
  if (how < kPages) return input.take(how);
  if (how == kNumber) return little(number(input), 8);
  return std::string(static_cast<size_t>(how - kPages) * 4096, static_cast<char>(input.byte()));
}

std::string records(Input& input, Model& model) {
  std::string stream = "snugsend" + little(input.byte(), 4) + little(1, 1) + "m";
  while (!input.empty() && stream.size() < 4 * kRecordMax) {
    const uint8_t kind = input.byte();
    const uint64_t a = number(input);
    const std::string text = body(input);
    const std::string all = little(kind, 1) + little(a, 8) + little(text.size(), 4) + text;
    stream += all + little(record_checksum(std::as_bytes(std::span(all)), {}), 4);
    model.add(kind, a, text);
  }
  return stream;
}

class Place {
 public:
  Place() {
    std::string pattern = fs::exists("/dev/shm") ? "/dev/shm/snug-fuzz-XXXXXX" : "/tmp/snug-fuzz-XXXXXX";
    SNUG_ASSERT(::mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
    ::setenv("XDG_DATA_HOME", pattern.c_str(), 1);
    stream = UniqueFd(::memfd_create("stream", MFD_CLOEXEC));
    never = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  }
  ~Place() { fs::remove_all(folder_); }

  UniqueFd stream;
  UniqueFd never;

 private:
  fs::path folder_;
};

void check(const NewSnapshot& made, const Model& model) {
  struct stat status {};
  SNUG_ASSERT(::fstat(made.memory(), &status) == 0);
  SNUG_ASSERT(model.sizes.at("memory") == static_cast<uint64_t>(status.st_size));
  SNUG_ASSERT(::fstat(made.state(), &status) == 0);
  SNUG_ASSERT(model.sizes.at("state") == static_cast<uint64_t>(status.st_size));
  if (model.sizes.at("memory") > kModelled) return;
  std::string memory(model.memory.size(), '\0');
  SNUG_ASSERT(read_at(made.memory(), std::as_writable_bytes(std::span(memory)), 0));
  SNUG_ASSERT(memory == model.memory);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Place place;
  Input input(data, size);
  Model model;
  const bool as_it_is = (input.byte() & 1) != 0;
  const std::string stream = as_it_is ? input.take(size) : records(input, model);
  SNUG_ASSERT(::ftruncate(place.stream.get(), 0) == 0);
  SNUG_ASSERT(write_at(place.stream.get(), std::as_bytes(std::span(stream)), 0));
  SNUG_ASSERT(::lseek(place.stream.get(), 0, SEEK_SET) == 0);
  auto made = NewSnapshot::passing();
  SNUG_ASSERT(made);
  const auto done = receive_snapshot_into(*made, place.stream.get(), place.never.get(), {});
  if (!done) SNUG_ASSERT(!done.error().text().empty());
  // The end of what was taken may lie before that of the input: a model of more knows too much.
  const bool all_taken = ::lseek(place.stream.get(), 0, SEEK_CUR) == static_cast<off_t>(stream.size());
  if (done && !as_it_is && all_taken) check(*made, model);
  return 0;
}
