// Layers made for tests: by libarchive from lines of text, or byte by byte where no tool makes them.
//
// A line is one file, in the words of which %XX is a byte:
//
//   d PATH             a folder                    f PATH CONTENTS     a file
//   l PATH TARGET      a symbolic link             h PATH TARGET       a hard link
//   c PATH MAJOR:MINOR a character device          b PATH MAJOR:MINOR  a block device
//   p PATH             a FIFO
//
// and behind it, where it is not 0755, 0644 or 0777 of root from 1970: mode=600 uid=1 gid=2 mtime=5.000000001
// links=2 x:user.name=value. An image is told in the same lines (listing()).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tests/support/erofs_reader.h"

namespace snug::test {

using Lines = std::vector<std::string>;

enum class TarFormat { kPax, kGnu, kUstar, kV7 };
enum class Packing { kPlain, kGzip, kZstd };

std::string make_layer(const Lines& lines, TarFormat format = TarFormat::kPax);
std::string packed(std::string_view tar, Packing packing);

// "%41" -> "A", and back for what would not be a word.
std::string unescaped(std::string_view word);
std::string escaped(std::string_view text);

// The lines of an image, sorted by path; the root only where it is not as nobody has described it.
Lines listing(ErofsReader& reader);

// One header of a tar and what belongs behind it.
struct RawHeader {
  std::string name;
  char type = '0';
  std::string contents;
  std::string link;
  uint64_t mode = 0644;
  uint64_t uid = 0;
  uint64_t mtime = 0;
  std::string size_field;  // where it is not the size of the contents
  std::string magic = std::string(
      "ustar\0"
      "00",
      8);
  std::string prefix;
};
std::string raw(RawHeader header);
// The header of PAX in front of another: "path" and others, each with its value.
std::string pax(const std::vector<std::pair<std::string, std::string>>& records, char type = 'x');
// What ends a tar.
inline std::string tar_end() { return std::string(1024, '\0'); }

}  // namespace snug::test
