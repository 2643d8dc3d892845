#include "vmm/cli/junit.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace snug::cli {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// How many bytes at the front of `text` are one character of UTF-8 that XML 1.0 may hold (2.2, Char), but for
// control characters; 0: none.
size_t character_size(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < size) return 0;
  uint32_t code = first & (0x7fU >> size);
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3fU);
  }
  const uint32_t least = size == 4 ? 0x10000 : size == 3 ? 0x800 : 0x80;
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  return code < least || code > 0x10ffff || surrogate || code == 0xfffe || code == 0xffff ? 0 : size;
}

std::string escaped_control(char c) {
  if (c == '\n' || c == '\t') return {c};
  // As it is, parsers would make a line end of it.
  if (c == '\r') return "&#13;";
  // XML 1.0 has no place for the others, escaped or not; Unicode has pictures of them, from U+2400 on.
  return {'\xe2', '\x90', static_cast<char>(0x80 + c)};
}

}  // namespace

std::string xml_text(std::string_view text) {
  std::string out;
  for (size_t size; !text.empty(); text.remove_prefix(std::max<size_t>(size, 1))) {
    size = character_size(text);
    const char c = text[0];
    if (size == 0) {
      out += kReplacement;
    } else if (size > 1) {
      out += text.substr(0, size);
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += static_cast<unsigned char>(c) < 0x20 ? escaped_control(c) : std::string(1, c);
    }
  }
  return out;
}

namespace {

std::string output_element(const char* name, const KeptOutput& kept) {
  if (kept.text.empty()) return {};
  const std::string note = kept.left_out == 0 ? "" : fmt::format("[{} bytes left out]\n", kept.left_out);
  return fmt::format("    <{0}>{1}</{0}>\n", name, xml_text(note + kept.text));
}

}  // namespace

std::string junit_xml(const std::string& suite, const CommandPlan& plan,
                      const std::vector<CommandResult>& results, const std::string& end_message) {
  std::string cases;
  size_t failures = 0, errors = 0;
  double total = 0;
  for (size_t i = 0; i < plan.commands.size(); ++i) {
    const bool ran = i < results.size();
    const double seconds = ran ? std::chrono::duration<double>(results[i].duration).count() : 0;
    total += seconds;
    std::string inside;
    if (!ran || results[i].status != 0) {
      // A command that failed is a failure; one of whose end nothing is known, an error.
      const bool failed = ran && results[i].message.empty();
      const std::string message = failed ? fmt::format("status {}", results[i].status)
                                  : ran  ? results[i].message
                                         : end_message;
      ++(failed ? failures : errors);
      inside += fmt::format("    <{} message=\"{}\"/>\n", failed ? "failure" : "error", xml_text(message));
    }
    if (ran)
      inside +=
          output_element("system-out", results[i].output) + output_element("system-err", results[i].errors);
    cases += fmt::format("  <testcase classname=\"{}\" name=\"{}\" time=\"{:.3f}\"", xml_text(suite),
                         xml_text(plan.commands[i].title), seconds);
    cases += inside.empty() ? "/>\n" : fmt::format(">\n{}  </testcase>\n", inside);
  }
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" time=\"{:.3f}\">\n{}</testsuite>\n",
      xml_text(suite), plan.commands.size(), failures, errors, total, cases);
}

namespace {

constexpr size_t kXmlMax = 256 << 20;  // bytes

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno != EINTR) return false;
    if (count > 0) text.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

}  // namespace

Result<JunitFile> JunitFile::open(const std::string& path) {
  JunitFile file;
  if (path.empty()) return file;
  file.path_ = path;
  file.memory_ = UniqueFd(::memfd_create("junit", MFD_CLOEXEC));
  if (!file.memory_) return fail_errno(errno, "memory for the results");
  return file;
}

void JunitFile::keep(const std::string& xml) const {
  if (memory_) (void)write_all(memory_.get(), xml);
}

Result<void> JunitFile::write(const std::function<std::string()>& without) const {
  if (!memory_) return {};
  std::string xml;
  const off_t size = ::lseek(memory_.get(), 0, SEEK_END);
  if (size > 0) xml.resize(std::min(static_cast<size_t>(size), kXmlMax));
  if (xml.empty() || ::pread(memory_.get(), xml.data(), xml.size(), 0) != static_cast<ssize_t>(xml.size()))
    xml = without();
  return write_junit(path_, xml);
}

Result<void> write_junit(const std::string& path, const std::string& xml) {
  const std::string fresh = fmt::format("{}.{}", path, ::getpid());
  const UniqueFd file = SNUG_TRY(open_file(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  const auto give_up = [&](int reason) -> Result<void> {
    ::unlink(fresh.c_str());
    return fail_errno(reason, "write {}", path);
  };
  for (std::string_view rest = xml; !rest.empty();) {
    const ssize_t count = ::write(file.get(), rest.data(), rest.size());
    if (count >= 0) {
      rest.remove_prefix(static_cast<size_t>(count));
    } else if (errno != EINTR) {
      return give_up(errno);
    }
  }
  return ::rename(fresh.c_str(), path.c_str()) == 0 ? Result<void>() : give_up(errno);
}

}  // namespace snug::cli
