#include "tests/support/erofs_reader.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

namespace snug::test {

namespace {

constexpr uint64_t kBlock = 4096;
constexpr uint64_t kHole = 0xffffffff;

uint32_t checksum(std::string_view bytes) {
  uint32_t crc = 0xffffffff;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = (crc & 1) != 0 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
  }
  return crc;
}

unsigned type_number(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return 1;
    case S_IFDIR:
      return 2;
    case S_IFCHR:
      return 3;
    case S_IFBLK:
      return 4;
    case S_IFIFO:
      return 5;
    case S_IFSOCK:
      return 6;
    case S_IFLNK:
      return 7;
    default:
      return 0;
  }
}

}  // namespace

ErofsReader::ErofsReader(int image) {
  struct stat status {};
  if (::fstat(image, &status) == 0) image_size_ = static_cast<uint64_t>(status.st_size);
  if (image_size_ == 0) {
    problem("", "an empty image");
    return;
  }
  void* const mapped = ::mmap(nullptr, image_size_, PROT_READ, MAP_SHARED | MAP_NORESERVE, image, 0);
  if (mapped != MAP_FAILED) image_ = static_cast<const char*>(mapped);
  if (image_ == nullptr) image_size_ = 0;
  uint64_t root = 0;
  if (!read_superblock(root)) return;
  files_[""] = read_inode("", root);
  if (!S_ISDIR(files_[""].mode)) {
    problem("", "the root is not a folder");
    return;
  }
  read_folder("", root);
  std::map<uint64_t, uint32_t> folders_in;
  for (const auto& [path, file] : files_) {
    if (path.empty() || !S_ISDIR(file.mode)) continue;
    const size_t slash = path.rfind('/');
    ++folders_in[files_[slash == std::string::npos ? "" : path.substr(0, slash)].nid];
  }
  for (const auto& [path, file] : files_)
    if (file.links != (S_ISDIR(file.mode) ? 2 + folders_in[file.nid] : names_of_[file.nid]))
      problem(path, "a wrong count of links");
  names_of_[root] = 1;
  if (names_of_.size() != number(1024 + 16, 8)) problem("", "a wrong count of inodes");
}

ErofsReader::~ErofsReader() {
  if (image_ != nullptr) ::munmap(const_cast<char*>(image_), image_size_);
}

std::string ErofsReader::bytes(uint64_t offset, size_t count) {
  if (offset <= image_size_ && count <= image_size_ - offset) return std::string(image_ + offset, count);
  problem("", "something lies behind the end of the image");
  return std::string(count, '\0');
}

uint64_t ErofsReader::number(uint64_t offset, size_t width) {
  uint64_t value = 0;
  if (offset <= image_size_ && width <= image_size_ - offset)
    std::memcpy(&value, image_ + offset, width);
  else
    problem("", "something lies behind the end of the image");
  return value;
}

void ErofsReader::problem(std::string_view where, std::string_view what) {
  if (problems_.size() < 20) problems_.push_back("/" + std::string(where) + ": " + std::string(what));
}

bool ErofsReader::read_superblock(uint64_t& root) {
  std::string block = bytes(1024, 3072);
  const auto field = [&](size_t offset, size_t width) {
    uint64_t value = 0;
    std::memcpy(&value, block.data() + offset, width);
    return value;
  };
  if (field(0, 4) != 0xe0f5e1e2) problem("", "no superblock");
  const uint64_t sum = field(4, 4);
  std::memset(block.data() + 4, 0, 4);
  if (checksum(block) != sum) problem("", "the superblock's checksum is wrong");
  if (field(8, 4) != 3) problem("", "other compatible features than checksum and times");
  if (field(12, 1) != 12 || field(13, 1) != 0) problem("", "blocks are not of 4096 bytes");
  root = field(14, 2);
  build_time = field(24, 8);
  blocks = field(36, 4);
  if (blocks * kBlock != image_size_) problem("", "another size than the superblock says");
  if (field(40, 4) != 0) problem("", "metadata does not begin at the first block");
  uuid = block.substr(48, 16);
  if ((static_cast<unsigned char>(uuid[6]) & 0xf0) != 0x80) problem("", "not a UUID of version 8");
  incompatible = static_cast<uint32_t>(field(80, 4));
  if ((incompatible & ~4u) != 0) problem("", "features that are not known");
  return problems_.empty();
}

ErofsFile ErofsReader::read_inode(std::string_view path, uint64_t nid) {
  ErofsFile file;
  file.nid = nid;
  const uint64_t at = nid * 32;
  if (at < kBlock || at + 64 > image_size_) {
    problem(path, "an inode that is not in the image");
    return file;
  }
  if (at % kBlock + 64 > kBlock) problem(path, "an inode in two blocks");
  const uint64_t format = number(at, 2);
  if ((format & 1) == 0 || format > 15) problem(path, "not an inode of 64 bytes");
  file.layout = static_cast<unsigned>(format >> 1);
  const uint64_t xattr_count = number(at + 2, 2);
  file.mode = static_cast<uint32_t>(number(at + 4, 2));
  file.size = number(at + 8, 8);
  const uint64_t where = number(at + 16, 4);
  file.uid = static_cast<uint32_t>(number(at + 24, 4));
  file.gid = static_cast<uint32_t>(number(at + 28, 4));
  file.mtime = static_cast<int64_t>(number(at + 32, 8));
  file.mtime_ns = static_cast<uint32_t>(number(at + 40, 4));
  file.links = static_cast<uint32_t>(number(at + 44, 4));
  if (file.mtime_ns >= 1'000'000'000) problem(path, "too many nanoseconds");
  const uint64_t xattr_bytes = xattr_count == 0 ? 0 : 12 + (xattr_count - 1) * 4;
  if (xattr_bytes > 0) read_xattrs(path, file, at + 64, at + 64 + xattr_bytes);
  const uint64_t behind = at + 64 + xattr_bytes;
  if (S_ISCHR(file.mode) || S_ISBLK(file.mode)) {
    file.major = static_cast<uint32_t>(where >> 8 & 0xfff);
    file.minor = static_cast<uint32_t>((where & 0xff) | (where >> 12 & 0xfff00));
  }
  file.offset = where * kBlock;
  switch (file.layout) {
    case 0:
      if (file.size > 0 && file.offset + (file.size + kBlock - 1) / kBlock * kBlock > image_size_)
        problem(path, "contents behind the end of the image");
      if (file.size > 0 && where == 0) problem(path, "contents in the superblock");
      break;
    case 2:
      if (S_ISREG(file.mode)) problem(path, "the end of a file is not on a page of its own");
      file.inline_offset = behind;
      if (file.size % kBlock == 0 || behind % kBlock + file.size % kBlock > kBlock)
        problem(path, "what is behind the inode crosses a block");
      break;
    case 4:
      if (!S_ISREG(file.mode)) problem(path, "chunks of what is not a file");
      if ((incompatible & 4) == 0) problem(path, "chunks without the feature");
      file.table_offset = (behind + 3) / 4 * 4;
      file.chunk_bits = static_cast<unsigned>(where);
      if (where > 31) problem(path, "chunks in a format that is not known");
      break;
    default:
      problem(path, "a layout that is not known");
  }
  if (S_ISLNK(file.mode)) {
    if (file.size == 0 || file.size > 4095)
      problem(path, "a link of a wrong length");
    else
      file.target = bytes(file.layout == 2 ? file.inline_offset : file.offset, file.size);
    if (file.target.find('\0') != std::string::npos) problem(path, "a link with a NUL in it");
  }
  return file;
}

void ErofsReader::read_xattrs(std::string_view path, ErofsFile& file, uint64_t offset, uint64_t end) {
  static const std::map<unsigned, std::string> kPrefixes{{1, "user."},
                                                         {2, "system.posix_acl_access"},
                                                         {3, "system.posix_acl_default"},
                                                         {4, "trusted."},
                                                         {6, "security."}};
  if (number(offset + 4, 1) != 0) problem(path, "shared attributes");
  offset += 12;
  if (offset == end) problem(path, "a header of attributes and none of them");
  while (offset < end) {
    const uint64_t name_bytes = number(offset, 1);
    const auto prefix = kPrefixes.find(static_cast<unsigned>(number(offset + 1, 1)));
    const uint64_t value_bytes = number(offset + 2, 2);
    if (prefix == kPrefixes.end() || offset + 4 + name_bytes + value_bytes > end)
      return problem(path, "an attribute of a wrong name or length");
    const std::string name = prefix->second + bytes(offset + 4, name_bytes);
    if (!file.xattrs.emplace(name, bytes(offset + 4 + name_bytes, value_bytes)).second)
      problem(path, "two attributes of one name");
    offset += (4 + name_bytes + value_bytes + 3) / 4 * 4;
  }
}

void ErofsReader::read_folder(const std::string& path, uint64_t parent_nid) {
  const ErofsFile folder = files_[path];
  if (folder.size == 0) return problem(path, "a folder without contents");
  std::string last;
  bool first = true;
  int dots = 0;
  std::vector<std::pair<std::string, uint64_t>> folders;
  for (uint64_t start = 0; start < folder.size; start += kBlock) {
    const auto size = static_cast<size_t>(std::min(kBlock, folder.size - start));
    const bool behind_inode = folder.layout == 2 && start + kBlock > folder.size;
    const std::string block = bytes(behind_inode ? folder.inline_offset : folder.offset + start, size);
    const auto field = [&](size_t offset, size_t width) {
      uint64_t value = 0;
      if (offset + width <= block.size()) std::memcpy(&value, block.data() + offset, width);
      return value;
    };
    const size_t entries = field(8, 2) / 12;
    if (entries == 0 || field(8, 2) % 12 != 0 || entries * 12 > size)
      return problem(path, "a broken block of entries");
    for (size_t i = 0; i < entries; ++i) {
      const size_t from = field(i * 12 + 8, 2);
      size_t to = i + 1 < entries ? field((i + 1) * 12 + 8, 2) : size;
      if (from >= to || to > size) return problem(path, "a name outside of its block");
      std::string name = block.substr(from, to - from);
      if (i + 1 == entries) name.resize(std::min(name.find('\0'), name.size()));
      const uint64_t nid = field(i * 12, 8);
      if (name.empty() || name.size() > 255 || name.find('/') != std::string::npos ||
          name.find('\0') != std::string::npos)
        problem(path, "a name that is none");
      if (!first && !(last < name)) problem(path, "names that are not sorted: " + name);
      first = false;
      last = name;
      if (name == "." || name == "..") {
        ++dots;
        if (nid != (name == "." ? folder.nid : parent_nid)) problem(path, name + " is another folder");
        continue;
      }
      const std::string below = path.empty() ? name : path + "/" + name;
      const ErofsFile file = read_inode(below, nid);
      if (field(i * 12 + 10, 1) != type_number(file.mode))
        problem(below, "another type than its folder says");
      files_[below] = file;
      ++names_of_[nid];
      if (S_ISDIR(file.mode)) folders.emplace_back(below, nid);
    }
  }
  if (dots != 2) problem(path, "a folder without . and ..");
  for (const auto& [below, nid] : folders) {
    if (names_of_[nid] > 1) return problem(below, "a folder with two names");
    read_folder(below, folder.nid);
  }
}

std::string ErofsReader::read(const ErofsFile& file, uint64_t offset, size_t count) {
  std::string out;
  count = static_cast<size_t>(std::min<uint64_t>(count, offset < file.size ? file.size - offset : 0));
  if (file.layout == 0) return count == 0 ? out : bytes(file.offset + offset, count);
  const uint64_t chunk = kBlock << file.chunk_bits;
  while (out.size() < count) {
    const uint64_t at = offset + out.size();
    const size_t part = static_cast<size_t>(std::min<uint64_t>(count - out.size(), chunk - at % chunk));
    const uint64_t block = number(file.table_offset + at / chunk * 4, 4);
    out += block == kHole ? std::string(part, '\0') : bytes(block * kBlock + at % chunk, part);
  }
  return out;
}

uint64_t ErofsReader::allocated(const ErofsFile& file) {
  if (file.layout == 0) return file.size;
  const uint64_t chunk = kBlock << file.chunk_bits;
  uint64_t total = 0;
  for (uint64_t start = 0; start < file.size; start += chunk) {
    const uint64_t block = number(file.table_offset + start / chunk * 4, 4);
    if (block == kHole) continue;
    total += std::min(chunk, file.size - start);
    if (block == 0 || (block * kBlock) + std::min(chunk, file.size - start) > image_size_)
      problem("", "a chunk that is not in the image");
  }
  return total;
}

}  // namespace snug::test
