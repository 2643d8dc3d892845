#include "tests/unit/images/layer_maker.h"

#include <archive.h>
#include <archive_entry.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <sstream>

namespace snug::test {

namespace {

ssize_t on_write(::archive*, void* context, const void* bytes, size_t size) {
  static_cast<std::string*>(context)->append(static_cast<const char*>(bytes), size);
  return static_cast<ssize_t>(size);
}

unsigned mode_of(char letter) {
  switch (letter) {
    case 'd':
      return S_IFDIR | 0755;
    case 'l':
      return S_IFLNK | 0777;
    case 'c':
      return S_IFCHR | 0644;
    case 'b':
      return S_IFBLK | 0644;
    case 'p':
      return S_IFIFO | 0644;
    default:
      return S_IFREG | 0644;
  }
}

char letter_of(uint32_t mode) {
  for (const char letter : {'d', 'l', 'c', 'b', 'p', 'f'})
    if ((mode_of(letter) & S_IFMT) == (mode & S_IFMT)) return letter;
  return S_ISSOCK(mode) ? 's' : '?';
}

void set_attribute(::archive_entry* entry, const std::string& word) {
  const size_t equals = word.find('=');
  const std::string key = word.substr(0, equals);
  const std::string value = unescaped(word.substr(equals + 1));
  if (key == "mode") ::archive_entry_set_perm(entry, static_cast<mode_t>(std::stoul(value, nullptr, 8)));
  if (key == "uid") ::archive_entry_set_uid(entry, std::stoll(value));
  if (key == "gid") ::archive_entry_set_gid(entry, std::stoll(value));
  if (key == "mtime") {
    const size_t dot = value.find('.');
    ::archive_entry_set_mtime(entry, std::stoll(value),
                              dot == std::string::npos ? 0 : std::stol(value.substr(dot + 1)));
  }
  if (key.starts_with("x:"))
    ::archive_entry_xattr_add_entry(entry, unescaped(key.substr(2)).c_str(), value.data(), value.size());
}

void write_line(::archive* archive, const std::string& line) {
  std::istringstream words(line);
  std::string kind;
  std::string path;
  words >> kind >> path;
  const char letter = kind.at(0);
  ::archive_entry* const entry = ::archive_entry_new();
  const std::string name = path == "/" ? "./" : unescaped(path);
  ::archive_entry_set_pathname(entry, name.c_str());
  ::archive_entry_set_mode(entry, mode_of(letter));
  ::archive_entry_set_mtime(entry, 0, 0);
  std::string contents;
  for (std::string word; words >> word;) {
    if (word.find('=') != std::string::npos) {
      set_attribute(entry, word);
    } else if (letter == 'l') {
      ::archive_entry_set_symlink(entry, unescaped(word).c_str());
    } else if (letter == 'h') {
      ::archive_entry_set_hardlink(entry, unescaped(word).c_str());
    } else if (letter == 'c' || letter == 'b') {
      ::archive_entry_set_rdevmajor(entry, static_cast<dev_t>(std::stoul(word)));
      ::archive_entry_set_rdevminor(entry, static_cast<dev_t>(std::stoul(word.substr(word.find(':') + 1))));
    } else {
      contents = unescaped(word);
    }
  }
  ::archive_entry_set_size(entry, letter == 'f' ? static_cast<int64_t>(contents.size()) : 0);
  // A name that this locale does not have is a warning: it is written as it is.
  EXPECT_GE(::archive_write_header(archive, entry), ARCHIVE_WARN)
      << line << ": " << ::archive_error_string(archive);
  if (letter == 'f' && !contents.empty()) ::archive_write_data(archive, contents.data(), contents.size());
  ::archive_entry_free(entry);
}

}  // namespace

std::string make_layer(const Lines& lines, TarFormat format) {
  std::string out;
  ::archive* const archive = ::archive_write_new();
  switch (format) {
    case TarFormat::kPax:
      ::archive_write_set_format_pax(archive);
      break;
    case TarFormat::kGnu:
      ::archive_write_set_format_gnutar(archive);
      break;
    case TarFormat::kUstar:
      ::archive_write_set_format_ustar(archive);
      break;
    case TarFormat::kV7:
      ::archive_write_set_format_v7tar(archive);
      break;
  }
  ::archive_write_set_bytes_per_block(archive, 0);
  // Names as bytes.
  ::archive_write_set_options(archive, "hdrcharset=BINARY");
  EXPECT_EQ(::archive_write_open(archive, &out, nullptr, &on_write, nullptr), ARCHIVE_OK);
  for (const std::string& line : lines) write_line(archive, line);
  EXPECT_EQ(::archive_write_close(archive), ARCHIVE_OK) << ::archive_error_string(archive);
  ::archive_write_free(archive);
  return out;
}

std::string packed(std::string_view tar, Packing packing) {
  if (packing == Packing::kPlain) return std::string(tar);
  if (packing == Packing::kZstd) {
    std::string out(::ZSTD_compressBound(tar.size()), '\0');
    out.resize(::ZSTD_compress(out.data(), out.size(), tar.data(), tar.size(), 1));
    return out;
  }
  z_stream state{};
  EXPECT_EQ(::deflateInit2(&state, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(::deflateBound(&state, tar.size()), '\0');
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(tar.data()));
  state.avail_in = static_cast<uInt>(tar.size());
  state.next_out = reinterpret_cast<Bytef*>(out.data());
  state.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(::deflate(&state, Z_FINISH), Z_STREAM_END);
  out.resize(state.total_out);
  ::deflateEnd(&state);
  return out;
}

std::string unescaped(std::string_view word) {
  std::string out;
  for (size_t i = 0; i < word.size(); ++i) {
    if (word[i] == '%') {
      out += static_cast<char>(std::stoi(std::string(word.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      out += word[i];
    }
  }
  return out;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c > ' ' && c < 0x7f && c != '%' && c != '=')
      out += c;
    else
      out += fmt::format("%{:02x}", static_cast<unsigned char>(c));
  }
  return out;
}

Lines listing(ErofsReader& reader) {
  Lines lines;
  for (const auto& [path, file] : reader.files()) {
    const char letter = letter_of(file.mode);
    std::string line = fmt::format("{} {}", letter, path.empty() ? "/" : escaped(path));
    if (letter == 'l') line += " " + escaped(file.target);
    if (letter == 'c' || letter == 'b') line += fmt::format(" {}:{}", file.major, file.minor);
    if (letter == 'f' && file.size > 0) {
      const std::string contents = reader.read(file, 0, 200);
      line += " " + (file.size > 200 ? fmt::format("{}...", file.size) : escaped(contents));
    }
    const size_t plain = line.size();
    const uint32_t mode = file.mode & 07777;
    if (mode != (mode_of(letter) & 07777)) line += fmt::format(" mode={:o}", mode);
    if (file.uid != 0) line += fmt::format(" uid={}", file.uid);
    if (file.gid != 0) line += fmt::format(" gid={}", file.gid);
    if (file.mtime != 0 || file.mtime_ns != 0) {
      line += fmt::format(" mtime={}", file.mtime);
      if (file.mtime_ns != 0) line += fmt::format(".{:09}", file.mtime_ns);
    }
    if (letter != 'd' && file.links != 1) line += fmt::format(" links={}", file.links);
    for (const auto& [name, value] : file.xattrs)
      line += fmt::format(" x:{}={}", escaped(name), escaped(value));
    if (!path.empty() || line.size() > plain) lines.push_back(line);
  }
  return lines;
}

std::string raw(RawHeader header) {
  std::string block(512, '\0');
  const auto put = [&](size_t at, size_t width, const std::string& text) {
    std::memcpy(block.data() + at, text.data(), std::min(width, text.size()));
  };
  const std::string size =
      header.size_field.empty() ? fmt::format("{:011o}", header.contents.size()) : header.size_field;
  put(0, 100, header.name);
  put(100, 8, fmt::format("{:07o}", header.mode));
  put(108, 8, fmt::format("{:07o}", header.uid));
  put(116, 8, "0000000");
  put(124, 12, size);
  put(136, 12, fmt::format("{:011o}", header.mtime));
  put(148, 8, "        ");
  block[156] = header.type;
  put(157, 100, header.link);
  put(257, 8, header.magic);
  put(329, 8, "0000000");
  put(337, 8, "0000000");
  put(345, 155, header.prefix);
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  put(148, 7, fmt::format("{:06o}", sum) + '\0');
  block += header.contents;
  block.resize((block.size() + 511) / 512 * 512, '\0');
  return block;
}

std::string pax(const std::vector<std::pair<std::string, std::string>>& records, char type) {
  std::string text;
  for (const auto& [key, value] : records) {
    const std::string rest = " " + key + "=" + value + "\n";
    size_t length = rest.size() + 1;
    while (std::to_string(length).size() + rest.size() != length) ++length;
    text += std::to_string(length) + rest;
  }
  RawHeader header;
  header.name = "header";
  header.type = type;
  header.contents = text;
  return raw(header);
}

}  // namespace snug::test
