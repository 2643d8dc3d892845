#include "tests/unit/shares/driver.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "vmm/base/checked.h"

namespace snug::test {
namespace {

constexpr uint64_t kReplyAt = 4 * kMiB;

std::vector<VirtBuffer> pieces(uint64_t gpa, size_t size, size_t piece) {
  std::vector<VirtBuffer> buffers;
  for (size_t at = 0; at < size; at += piece)
    buffers.push_back({gpa + at, static_cast<uint32_t>(std::min(piece, size - at))});
  return buffers;
}

}  // namespace

Driver::Driver(ShareSession& session) : session_(session), memory_(*GuestMemory::create(8 * kMiB)) {}

Answer Driver::raw(std::string_view request, size_t room, size_t piece) {
  EXPECT_TRUE(memory_.write(kRequestAt, std::as_bytes(std::span(request))));
  VirtChain chain;
  chain.readable = pieces(kRequestAt, request.size(), piece);
  chain.writable = pieces(kReplyAt, room, piece);
  const auto written = session_.serve(memory_, chain, ticket_);
  if (!written) return {.later = true};
  EXPECT_LE(*written, room);
  return answer_at(*written);
}

Answer Driver::answer_at(uint32_t written) const {
  Answer answer{.written = written};
  if (written < sizeof(fuse_out_header)) return answer;
  fuse_out_header header{};
  EXPECT_TRUE(memory_.read(kReplyAt, std::as_writable_bytes(std::span(&header, 1))));
  EXPECT_EQ(header.len, written) << "what the reply says and what was given back as written";
  answer.error = -header.error;
  answer.payload.resize(written - sizeof header);
  EXPECT_TRUE(memory_.read(kReplyAt + sizeof header, std::as_writable_bytes(std::span(answer.payload))));
  return answer;
}

Answer Driver::call(uint32_t opcode, uint64_t node, std::string_view arguments, size_t room,
                    std::string_view data) {
  fuse_in_header header{};
  header.len = static_cast<uint32_t>(sizeof header + arguments.size() + data.size());
  header.opcode = opcode;
  header.unique = unique_ += 2;
  header.nodeid = node;
  header.uid = uid;
  header.gid = gid;
  return raw(bytes_of(header).append(arguments).append(data), sizeof(fuse_out_header) + room);
}

Answer Driver::init(uint64_t flags, uint32_t minor) {
  fuse_init_in in{};
  in.major = 7;
  in.minor = minor;
  in.max_readahead = 128 << 10;
  in.flags = static_cast<uint32_t>(flags);
  in.flags2 = static_cast<uint32_t>(flags >> 32);
  return call(FUSE_INIT, 0, bytes_of(in));
}

Answer Driver::lookup(uint64_t node, std::string_view name) {
  Answer answer = call(FUSE_LOOKUP, node, text_of(name));
  if (!answer || answer.as<fuse_entry_out>().nodeid != 0) return answer;
  answer.error = ENOENT;
  answer.written = sizeof(fuse_out_header);
  return answer;
}

uint64_t Driver::node(uint64_t node, std::string_view name) {
  const Answer answer = lookup(node, name);
  return answer ? answer.as<fuse_entry_out>().nodeid : 0;
}

uint64_t Driver::walk(std::string_view path) {
  uint64_t at = FUSE_ROOT_ID;
  while (!path.empty() && at != 0) {
    const auto end = std::min(path.find('/'), path.size());
    at = node(at, path.substr(0, end));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return at;
}

fuse_attr Driver::attributes(uint64_t node) {
  const Answer answer = call(FUSE_GETATTR, node, bytes_of(fuse_getattr_in{}));
  EXPECT_TRUE(answer) << answer.error;
  return answer.as<fuse_attr_out>().attr;
}

Answer Driver::forget(uint64_t node, uint64_t count) {
  return call(FUSE_FORGET, node, bytes_of(fuse_forget_in{count}), 0);
}

Answer Driver::create(uint64_t node, std::string_view name, uint32_t mode, uint32_t flags) {
  return call(FUSE_CREATE, node, bytes_of(fuse_create_in{.flags = flags, .mode = mode}) + text_of(name));
}

Answer Driver::mkdir(uint64_t node, std::string_view name, uint32_t mode) {
  return call(FUSE_MKDIR, node, bytes_of(fuse_mkdir_in{.mode = mode}) + text_of(name));
}

Answer Driver::mknod(uint64_t node, std::string_view name, uint32_t mode, uint32_t device) {
  return call(FUSE_MKNOD, node, bytes_of(fuse_mknod_in{.mode = mode, .rdev = device}) + text_of(name));
}

Answer Driver::open(uint64_t node, uint32_t flags) {
  return call(FUSE_OPEN, node, bytes_of(fuse_open_in{.flags = flags}));
}

Answer Driver::read(uint64_t node, uint64_t handle, uint64_t offset, uint32_t size) {
  return call(FUSE_READ, node, bytes_of(fuse_read_in{.fh = handle, .offset = offset, .size = size}), size);
}

Answer Driver::write(uint64_t node, uint64_t handle, uint64_t offset, std::string_view data,
                     uint32_t write_flags, uint32_t flags) {
  const fuse_write_in in{.fh = handle,
                         .offset = offset,
                         .size = static_cast<uint32_t>(data.size()),
                         .write_flags = write_flags,
                         .flags = flags};
  return call(FUSE_WRITE, node, bytes_of(in), 64, data);
}

Answer Driver::release(uint64_t node, uint64_t handle) {
  return call(FUSE_RELEASE, node, bytes_of(fuse_release_in{.fh = handle}));
}

Answer Driver::releasedir(uint64_t node, uint64_t handle) {
  return call(FUSE_RELEASEDIR, node, bytes_of(fuse_release_in{.fh = handle}));
}

Answer Driver::rename(uint64_t from, std::string_view name, uint64_t to, std::string_view new_name,
                      uint32_t flags) {
  const auto names = text_of(name) + text_of(new_name);
  if (flags == 0) return call(FUSE_RENAME, from, bytes_of(fuse_rename_in{to}) + names);
  return call(FUSE_RENAME2, from, bytes_of(fuse_rename2_in{.newdir = to, .flags = flags}) + names);
}

Answer Driver::link(uint64_t node, uint64_t folder, std::string_view name) {
  return call(FUSE_LINK, folder, bytes_of(fuse_link_in{node}) + text_of(name));
}

Answer Driver::symlink(uint64_t folder, std::string_view name, std::string_view target) {
  return call(FUSE_SYMLINK, folder, text_of(name) + text_of(target));
}

Answer Driver::setattr(uint64_t node, const fuse_setattr_in& in) {
  return call(FUSE_SETATTR, node, bytes_of(in));
}

Answer Driver::chmod(uint64_t node, uint32_t mode) {
  return setattr(node, {.valid = FATTR_MODE, .mode = mode});
}

Answer Driver::chown(uint64_t node, uint32_t owner, uint32_t group) {
  return setattr(node, {.valid = FATTR_UID | FATTR_GID, .uid = owner, .gid = group});
}

Answer Driver::setxattr(uint64_t node, std::string_view name, std::string_view value, uint32_t flags) {
  const fuse_setxattr_in in{.size = static_cast<uint32_t>(value.size()), .flags = flags};
  return call(FUSE_SETXATTR, node, bytes_of(in) + text_of(name) + std::string(value));
}

Answer Driver::getxattr(uint64_t node, std::string_view name, uint32_t size) {
  return call(FUSE_GETXATTR, node, bytes_of(fuse_getxattr_in{.size = size}) + text_of(name),
              std::max<size_t>(size, sizeof(fuse_getxattr_out)));
}

std::vector<Listed> Driver::entries(const Answer& answer, bool plus) {
  std::vector<Listed> found;
  size_t at = 0;
  while (at < answer.payload.size()) {
    Listed one;
    if (plus) {
      one.entry = answer.as<fuse_entry_out>(at);
      at += sizeof one.entry;
    }
    one.number = answer.as<uint64_t>(at);
    one.next = answer.as<uint64_t>(at + 8);
    const auto length = answer.as<uint32_t>(at + 16);
    one.type = answer.as<uint32_t>(at + 20);
    one.name = answer.payload.substr(at + 24, length);
    at += (24 + length + 7) / 8 * 8;
    found.push_back(std::move(one));
  }
  EXPECT_EQ(at, answer.payload.size());
  return found;
}

std::vector<Listed> Driver::list(uint64_t node, uint64_t handle, bool plus, uint32_t size, int* error) {
  std::vector<Listed> all;
  for (;;) {
    const fuse_read_in in{.fh = handle, .offset = all.empty() ? 0 : all.back().next, .size = size};
    const Answer answer = call(plus ? FUSE_READDIRPLUS : FUSE_READDIR, node, bytes_of(in), size);
    if (error != nullptr) *error = answer.error;
    if (!answer || answer.payload.empty()) return all;
    for (Listed& one : entries(answer, plus)) all.push_back(std::move(one));
  }
}

std::string Driver::content(uint64_t node) {
  const Answer opened = open(node, O_RDONLY);
  if (!opened) return "(none)";
  const auto handle = opened.as<fuse_open_out>().fh;
  const std::string found = read(node, handle, 0, 4096).payload;
  release(node, handle);
  return found;
}

Scratch::Scratch(const std::string& below) {
  path_ = (below.empty() ? std::filesystem::temp_directory_path().string() : below) + "/snug-share-XXXXXX";
  if (::mkdtemp(path_.data()) == nullptr) std::abort();
  ::chmod(path_.c_str(), 0755);
  std::filesystem::create_directory(path("share"));
  ::chmod(shared().c_str(), 0755);
}

Scratch::~Scratch() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string Scratch::path(std::string_view name) const {
  return name.empty() ? path_ : path_ + "/" + std::string(name);
}

std::string Scratch::shared(std::string_view name) const {
  return name.empty() ? path("share") : path("share/") + std::string(name);
}

void Scratch::write(const std::string& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string Scratch::read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return "(none)";
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::unique_ptr<ShareSession> share(const std::string& path, ShareOptions options,
                                    ShareSession::Answered answered) {
  UniqueFd root(::open(path.c_str(), O_PATH | O_CLOEXEC));
  UniqueFd proc(::open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  auto session =
      ShareSession::create(std::move(root), std::move(proc), std::move(options), std::move(answered));
  if (!session) {
    ADD_FAILURE() << session.error().text();
    std::abort();
  }
  return std::move(*session);
}

}  // namespace snug::test
