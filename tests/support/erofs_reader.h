// Reads an EROFS image back, written from the description of the format alone, and as strict as a kernel and
// fsck together: whatever an image has that they might stumble over is a problem. Only what our images use:
// no compression.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace snug::test {

struct ErofsFile {
  uint64_t nid = 0;
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t links = 0;
  int64_t mtime = 0;
  uint32_t mtime_ns = 0;
  uint32_t major = 0;
  uint32_t minor = 0;
  uint64_t size = 0;
  unsigned layout = 0;  // 0 in one piece, 2 with its end behind the inode, 4 in chunks
  unsigned chunk_bits = 0;
  uint64_t offset = 0;         // in the image, of what is in one piece
  uint64_t inline_offset = 0;  // of the end behind the inode
  uint64_t table_offset = 0;   // of the table of chunks
  std::string target;
  std::map<std::string, std::string> xattrs;
};

class ErofsReader {
 public:
  // Reads everything but contents of files. The descriptor stays the caller's, and the image as it is.
  explicit ErofsReader(int image);
  ~ErofsReader();
  ErofsReader(const ErofsReader&) = delete;
  ErofsReader& operator=(const ErofsReader&) = delete;

  // What is wrong with the image; each in a few words.
  const std::vector<std::string>& problems() const { return problems_; }
  // By path: "" is the root, "a/b" a file below.
  const std::map<std::string, ErofsFile>& files() const { return files_; }
  // The contents of a regular file, as far as they go.
  std::string read(const ErofsFile& file, uint64_t offset, size_t count);
  // How much of the file is not a hole, as the table of chunks has it.
  uint64_t allocated(const ErofsFile& file);

  std::string uuid;
  uint64_t build_time = 0;
  uint32_t incompatible = 0;
  uint64_t blocks = 0;

 private:
  std::string bytes(uint64_t offset, size_t count);
  uint64_t number(uint64_t offset, size_t width);
  void problem(std::string_view where, std::string_view what);
  bool read_superblock(uint64_t& root);
  ErofsFile read_inode(std::string_view path, uint64_t nid);
  void read_xattrs(std::string_view path, ErofsFile& file, uint64_t offset, uint64_t end);
  void read_folder(const std::string& path, uint64_t parent_nid);

  const char* image_ = nullptr;
  uint64_t image_size_ = 0;
  std::vector<std::string> problems_;
  std::map<std::string, ErofsFile> files_;
  std::map<uint64_t, uint32_t> names_of_;  // by inode
};

}  // namespace snug::test
