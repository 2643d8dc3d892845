// Requests of a guest to the file server, one after the other, on a small tree of its own: nothing crashes or
// leaks, no answer is longer than there is room for, and what lies beside the tree stays as it is.
//
// Input: a byte of options, then requests: 2 bytes length, 2 bytes room for the answer, 1 byte that tells how
// large the pieces are in guest memory, then `length` bytes of request, whose header's own length is put
// right unless the piece byte is odd. Node numbers below 256 mean those that have been answered so far, in
// turn.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "vmm/base/assertion.h"
#include "vmm/base/checked.h"
#include "vmm/shares/fuse_abi.h"
#include "vmm/shares/session.h"

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kRequestAt = 0x1000;
constexpr uint64_t kReplyAt = snug::kMiB;
constexpr char kSecret[] = "a secret of the host";

class Tree {
 public:
  Tree() {
    top_ = fs::is_directory("/dev/shm") ? "/dev/shm/snug-fuzz-XXXXXX" : "/tmp/snug-fuzz-XXXXXX";
    SNUG_ASSERT(::mkdtemp(top_.data()) != nullptr);
    std::ofstream(top_ + "/secret") << kSecret;
    ::umask(0);
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit size{4 << 20, 4 << 20};
    SNUG_ASSERT(::setrlimit(RLIMIT_FSIZE, &size) == 0);
  }
  ~Tree() {
    std::error_code ignored;
    fs::remove_all(top_, ignored);
  }
  std::string fresh() const {
    const std::string share = top_ + "/share";
    fs::remove_all(share);
    fs::create_directories(share + "/folder/inner");
    std::ofstream(share + "/file") << "content";
    std::ofstream(share + "/folder/file") << "content";
    fs::create_symlink("../secret", share + "/link");
    ::mkfifo((share + "/fifo").c_str(), 0666);
    return share;
  }
  void check() const {
    std::ifstream file(top_ + "/secret");
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    SNUG_ASSERT(text == kSecret);
    SNUG_ASSERT(std::distance(fs::directory_iterator(top_), fs::directory_iterator()) == 2);
  }

 private:
  std::string top_;
};

size_t open_descriptors() {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
}

std::vector<snug::VirtBuffer> pieces(uint64_t gpa, size_t size, size_t piece) {
  std::vector<snug::VirtBuffer> buffers;
  for (size_t at = 0; at < size; at += piece)
    buffers.push_back({gpa + at, static_cast<uint32_t>(std::min(piece, size - at))});
  return buffers;
}

class Guest {
 public:
  Guest(snug::ShareSession& session, const snug::GuestMemory& memory) : session_(session), memory_(memory) {}

  void ask(std::vector<std::byte> request, size_t room, uint8_t piece_byte) {
    fuse_in_header header{};
    if (request.size() >= sizeof header) {
      std::memcpy(&header, request.data(), sizeof header);
      // It would be the host's whole file system.
      if (header.opcode == FUSE_SYNCFS) return;
      if (header.nodeid < 256) header.nodeid = nodes_[header.nodeid % nodes_.size()];
      if (piece_byte % 2 == 0) header.len = static_cast<uint32_t>(request.size());
      std::memcpy(request.data(), &header, sizeof header);
    }
    const size_t piece = piece_byte / 2 == 0 ? size_t{1} << 20 : piece_byte / 2;
    SNUG_ASSERT(memory_.write(kRequestAt, request));
    snug::VirtChain chain;
    chain.readable = pieces(kRequestAt, request.size(), piece);
    chain.writable = pieces(kReplyAt, room, piece);
    const auto written = session_.serve(memory_, chain, 0);
    if (!written) return;
    SNUG_ASSERT(*written <= room);
    fuse_out_header out{};
    if (*written < sizeof out) return;
    SNUG_ASSERT(memory_.read(kReplyAt, std::as_writable_bytes(std::span(&out, 1))));
    SNUG_ASSERT(out.len == *written && out.unique == header.unique);
    SNUG_ASSERT(out.error <= 0 && out.error > -4096);
    note_node(header.opcode, *written);
  }

 private:
  void note_node(uint32_t opcode, uint32_t written) {
    const bool has_entry = opcode == FUSE_LOOKUP || opcode == FUSE_CREATE || opcode == FUSE_MKDIR ||
                           opcode == FUSE_MKNOD || opcode == FUSE_SYMLINK || opcode == FUSE_LINK ||
                           opcode == FUSE_TMPFILE;
    if (!has_entry || written < sizeof(fuse_out_header) + sizeof(fuse_entry_out) || nodes_.size() == 256)
      return;
    const auto node = memory_.load<uint64_t>(kReplyAt + sizeof(fuse_out_header));
    if (*node != 0) nodes_.push_back(*node);
  }

  snug::ShareSession& session_;
  const snug::GuestMemory& memory_;
  std::vector<uint64_t> nodes_{FUSE_ROOT_ID};
};

snug::ShareOptions options_of(uint8_t bits) {
  snug::ShareOptions options;
  options.cache = static_cast<snug::ShareCache>(bits % 3);
  options.readonly = (bits & 4) != 0;
  options.real_ids = (bits & 8) != 0 && ::geteuid() == 0;
  if ((bits & 16) != 0) options.resolver = snug::ShareResolver::kOpenat;
  options.descriptors = 64;
  return options;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Tree tree;
  static const snug::GuestMemory memory = *snug::GuestMemory::create(2 * snug::kMiB);
  if (size == 0) return 0;
  const size_t before = open_descriptors();
  {
    const std::string share = tree.fresh() + ((data[0] & 32) != 0 ? "/file" : "");
    auto session = snug::ShareSession::create(
        snug::UniqueFd(::open(share.c_str(), O_PATH | O_CLOEXEC)),
        snug::UniqueFd(::open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC)), options_of(data[0]),
        [](uint64_t, uint32_t) {});
    SNUG_ASSERT(session);
    Guest guest(**session, memory);
    const std::span<const uint8_t> input(data, size);
    for (size_t at = 1; at + 5 <= size;) {
      const auto length = std::min<size_t>(input[at] | input[at + 1] << 8, size - at - 5);
      const auto room = static_cast<size_t>(input[at + 2] | input[at + 3] << 8);
      const auto bytes = std::as_bytes(input.subspan(at + 5, length));
      guest.ask({bytes.begin(), bytes.end()}, room, input[at + 4]);
      at += 5 + length;
    }
    (*session)->poll();
    if (size % 2 == 0) (*session)->reset();
  }
  tree.check();
  SNUG_ASSERT(open_descriptors() == before);
  return 0;
}
