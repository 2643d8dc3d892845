// A guest's driver for a share: requests laid down in guest memory, answers read back from there.
#pragma once

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "vmm/core/guest_memory.h"
#include "vmm/shares/fuse_abi.h"
#include "vmm/shares/session.h"

namespace snug::test {

template <class T>
std::string bytes_of(const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}
// With the NUL behind it.
inline std::string text_of(std::string_view text) { return std::string(text) + '\0'; }

struct Answer {
  bool later = false;
  uint32_t written = 0;
  int error = 0;  // as errno has it
  std::string payload;

  explicit operator bool() const { return !later && error == 0 && written >= sizeof(fuse_out_header); }
  template <class T>
  T as(size_t offset = 0) const {
    T value{};
    if (payload.size() >= offset + sizeof value) std::memcpy(&value, payload.data() + offset, sizeof value);
    return value;
  }
};

// An entry as READDIR and READDIRPLUS have it.
struct Listed {
  std::string name;
  uint64_t number = 0;
  uint64_t next = 0;
  uint32_t type = 0;
  fuse_entry_out entry{};
};

class Driver {
 public:
  static constexpr uint64_t kRequestAt = 0x1000;  // in guest memory

  explicit Driver(ShareSession& session);

  // The user that requests come from.
  uint32_t uid = 0;
  uint32_t gid = 0;

  // FUSE_INIT with these flags offered; 7.38 unless said.
  Answer init(uint64_t flags = ~uint64_t{0}, uint32_t minor = 38);
  // One request, the answer into `room` bytes behind the header.
  Answer call(uint32_t opcode, uint64_t node, std::string_view arguments = {}, size_t room = 4096,
              std::string_view data = {});
  // Bytes as they are, header and all, into `room` bytes in all; pieces of `piece` bytes.
  Answer raw(std::string_view request, size_t room, size_t piece = 1000);

  // ENOENT also where the answer is that there is none, which the guest may remember.
  Answer lookup(uint64_t node, std::string_view name);
  // The node's number; 0 when it is not to be had.
  uint64_t node(uint64_t node, std::string_view name);
  // From the root, by '/'.
  uint64_t walk(std::string_view path);
  fuse_attr attributes(uint64_t node);
  Answer forget(uint64_t node, uint64_t count);
  Answer create(uint64_t node, std::string_view name, uint32_t mode, uint32_t flags = 2 /*O_RDWR*/);
  Answer mkdir(uint64_t node, std::string_view name, uint32_t mode = 0755);
  Answer mknod(uint64_t node, std::string_view name, uint32_t mode, uint32_t device = 0);
  Answer open(uint64_t node, uint32_t flags);
  Answer opendir(uint64_t node) { return call(FUSE_OPENDIR, node, bytes_of(fuse_open_in{})); }
  Answer read(uint64_t node, uint64_t handle, uint64_t offset, uint32_t size);
  Answer write(uint64_t node, uint64_t handle, uint64_t offset, std::string_view data,
               uint32_t write_flags = 0, uint32_t flags = 0);
  Answer release(uint64_t node, uint64_t handle);
  Answer releasedir(uint64_t node, uint64_t handle);
  Answer rename(uint64_t from, std::string_view name, uint64_t to, std::string_view new_name,
                uint32_t flags = 0);
  Answer link(uint64_t node, uint64_t folder, std::string_view name);
  Answer symlink(uint64_t folder, std::string_view name, std::string_view target);
  Answer setattr(uint64_t node, const fuse_setattr_in& in);
  Answer chmod(uint64_t node, uint32_t mode);
  Answer chown(uint64_t node, uint32_t owner, uint32_t group);
  Answer setxattr(uint64_t node, std::string_view name, std::string_view value, uint32_t flags = 0);
  Answer getxattr(uint64_t node, std::string_view name, uint32_t size);
  // All entries from an offset on, in requests of `size` bytes. The error of the last in `error`.
  std::vector<Listed> list(uint64_t node, uint64_t handle, bool plus, uint32_t size = 4096,
                           int* error = nullptr);
  static std::vector<Listed> entries(const Answer& answer, bool plus);
  // Of a file's data by its node, opened and closed.
  std::string content(uint64_t node);

  GuestMemory& memory() { return memory_; }
  uint64_t last_unique() const { return unique_; }
  void flip_ticket(uint64_t ticket) { ticket_ = ticket; }
  // What has been written for a request that was answered later.
  Answer answer_at(uint32_t written) const;

 private:
  ShareSession& session_;
  GuestMemory memory_;
  uint64_t unique_ = 0;
  uint64_t ticket_ = 0;
};

// A folder that is there for one test: `share` in it is shared, what else is there is not to be touched.
class Scratch {
 public:
  explicit Scratch(const std::string& below = {});
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string path(std::string_view name = {}) const;    // below all of it
  std::string shared(std::string_view name = {}) const;  // below what is shared
  static void write(const std::string& path, std::string_view text);
  static std::string read(const std::string& path);  // "(none)" when it cannot be read

 private:
  std::string path_;
};

std::unique_ptr<ShareSession> share(const std::string& path, ShareOptions options = {},
                                    ShareSession::Answered answered = {});

}  // namespace snug::test
