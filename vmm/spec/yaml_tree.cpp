#include "vmm/spec/yaml_tree.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <array>
#include <exception>
#include <sstream>
#include <utility>

#include "vmm/spec/text.h"

namespace snug {
namespace {

// Ends the parsing from inside of yaml-cpp. Never leaves this file.
struct Stop {
  Position position;
  std::string message;
};

// The text by lines, to turn yaml-cpp's marks (from 0, columns in bytes) into positions.
class Lines {
 public:
  explicit Lines(std::string_view text) {
    for (auto& line : split_lines(text)) lines_.push_back(line);
  }

  Position at(const YAML::Mark& mark) const {
    if (mark.line < 0 || mark.column < 0) return {};
    return at(static_cast<size_t>(mark.line), static_cast<size_t>(mark.column));
  }
  Position at(size_t line, size_t byte) const {
    const auto before = line < lines_.size() ? lines_[line].substr(0, byte) : std::string_view();
    const auto characters =
        std::count_if(before.begin(), before.end(), [](char c) { return (c & 0xc0) != 0x80; });
    return {static_cast<int>(line) + 1, static_cast<int>(characters) + 1};
  }
  std::string_view line(int index) const {
    return index >= 0 && static_cast<size_t>(index) < lines_.size() ? lines_[static_cast<size_t>(index)]
                                                                    : std::string_view();
  }
  size_t count() const { return lines_.size(); }

  static std::vector<std::string_view> split_lines(std::string_view text) {
    std::vector<std::string_view> lines;
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
      lines.push_back(text.substr(0, end));
      text.remove_prefix(end);
    }
    return lines;
  }

 private:
  std::vector<std::string_view> lines_;
};

// yaml-cpp stops at U+0004, guesses UTF-16 and UTF-32, and replaces what is not UTF-8: none of it gets there.
void check_characters(std::string_view text, const Lines& lines) {
  size_t line = 0;
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text, i);
    if (length == 0) throw Stop{lines.at(line, i - start), "not valid UTF-8; save the file as UTF-8 text"};
    const auto c = static_cast<unsigned char>(text[i]);
    const bool line_end = c == '\n' || (c == '\r' && text.substr(i).starts_with("\r\n"));
    if ((c < 0x20 && c != '\t' && !line_end) || c == 0x7f) {
      throw Stop{
          lines.at(line, i - start),
          c == 0 ? "a NUL byte; this is not a text file"
                 : fmt::format("a control character (U+{:04X}); YAML allows none but tabs and line ends", c)};
    }
    i += length;
    if (c == '\n') {
      ++line;
      start = i;
    }
  }
}

constexpr std::string_view kBinaryTag = "tag:yaml.org,2002:binary";

class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(const Lines& lines, YamlDocument& document) : lines_(lines), document_(document) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    const auto position = lines_.at(mark);
    if (!started_) {
      started_ = true;
      return;
    }
    // yaml-cpp also takes what is left over behind the first value for a document.
    if (lines_.line(mark.line).starts_with("---"))
      throw Stop{position, "a second document; a spec file holds one"};
    throw Stop{position,
               "more text behind the end of the spec; check the indentation of this line and put quotes "
               "around text with special characters"};
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(mark, anchor, YamlNode::Kind::kNull);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (anchor >= anchors_.size()) throw Stop{lines_.at(mark), "an alias without its anchor"};
    attach({anchors_[anchor], lines_.at(mark)});
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_tag(mark, tag);
    // A block scalar has the tag of a quoted one.
    if (tag == "!") check_closed(mark);
    std::string text = value;
    if (tag == kBinaryTag) {
      auto bytes = from_base64(value);
      if (!bytes) throw Stop{lines_.at(mark), "the text behind !!binary is no base64"};
      text = std::move(*bytes);
    }
    document_.nodes[add(mark, anchor, YamlNode::Kind::kScalar)].text = std::move(text);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    enter(mark, tag, anchor, YamlNode::Kind::kSequence);
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    enter(mark, tag, anchor, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { open_.pop_back(); }

  bool started() const { return started_; }

 private:
  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    constexpr std::array<std::string_view, 8> kFine{"",
                                                    kBinaryTag,
                                                    "?",
                                                    "!",
                                                    "tag:yaml.org,2002:str",
                                                    "tag:yaml.org,2002:int",
                                                    "tag:yaml.org,2002:map",
                                                    "tag:yaml.org,2002:seq"};
    if (std::find(kFine.begin(), kFine.end(), tag) != kFine.end()) return;
    throw Stop{lines_.at(mark), fmt::format("the tag {} has no meaning in a spec", in_quotes(tag))};
  }

  // yaml-cpp 0.7 takes the end of the file for a missing quote.
  void check_closed(const YAML::Mark& mark) const {
    std::string_view line = lines_.line(mark.line);
    auto index = mark.line;
    size_t i = static_cast<size_t>(std::max(mark.column, 0));
    while (i < line.size() && (line[i] == '&' || line[i] == '!')) {
      while (i < line.size() && line[i] != ' ' && line[i] != '\t') ++i;
      while (i < line.size() && (line[i] == ' ' || line[i] == '\t')) ++i;
    }
    if (i >= line.size() || (line[i] != '"' && line[i] != '\'')) return;
    const char quote = line[i++];
    for (; !line.empty(); line = lines_.line(++index), i = 0) {
      for (; i < line.size(); ++i) {
        if (quote == '"' && line[i] == '\\') {
          ++i;
        } else if (line[i] == quote) {
          if (quote == '"' || i + 1 >= line.size() || line[i + 1] != quote) return;
          ++i;
        }
      }
    }
    throw Stop{lines_.at(mark), fmt::format("the closing {} of this text is missing", quote)};
  }

  void enter(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YamlNode::Kind kind) {
    check_tag(mark, tag);
    if (open_.size() >= static_cast<size_t>(kMaxYamlDepth)) {
      throw Stop{lines_.at(mark), fmt::format("nested more than {} levels deep", kMaxYamlDepth)};
    }
    open_.push_back(add(mark, anchor, kind));
  }

  uint32_t add(const YAML::Mark& mark, YAML::anchor_t anchor, YamlNode::Kind kind) {
    if (document_.nodes.size() >= kMaxYamlNodes) {
      throw Stop{lines_.at(mark), fmt::format("more than {} values", kMaxYamlNodes)};
    }
    const auto index = static_cast<uint32_t>(document_.nodes.size());
    document_.nodes.push_back({kind, {}, {}});
    if (anchor > 0) {
      if (anchors_.size() <= anchor) anchors_.resize(anchor + 1);
      anchors_[anchor] = index;
    }
    attach({index, lines_.at(mark)});
    return index;
  }

  void attach(YamlRef ref) {
    // Aliases make no node; without this bound they could fill the memory.
    if (++references_ > 2 * kMaxYamlNodes) {
      throw Stop{ref.position, fmt::format("more than {} values", 2 * kMaxYamlNodes)};
    }
    if (open_.empty()) {
      document_.root = ref;
    } else {
      document_.nodes[open_.back()].children.push_back(ref);
    }
  }

  const Lines& lines_;
  YamlDocument& document_;
  std::vector<uint32_t> open_;
  std::vector<uint32_t> anchors_;
  size_t references_ = 0;
  bool started_ = false;
};

// What yaml-cpp's short messages mean to somebody who wrote a spec.
std::string explain(const std::string& message) {
  struct Entry {
    std::string_view says;
    std::string_view means;
  };
  constexpr std::array<Entry, 14> kEntries{{
      {"illegal tab", "a tab in the indentation; YAML wants spaces"},
      {"illegal map value",
       "a ':' has no meaning here; put text that contains ': ' in quotes, and check the "
       "indentation and that the line before is KEY: VALUE"},
      {"illegal map key", "a '?' has no meaning here; put the text in quotes"},
      {"illegal block entry",
       "a list item ('- ') has no meaning here; put it on a line of its own, indented"},
      {"end of map not found", "expected the next KEY: VALUE; check the indentation of this line"},
      {"end of sequence not found", "expected the next list item ('- ') or its end; check the indentation"},
      {"end of map flow not found", "the closing '}' is missing"},
      {"end of sequence flow not found", "the closing ']' is missing"},
      {"illegal flow end", "a ']' or '}' without its opening one"},
      {"unknown token", "a value cannot begin with this character; put it in quotes"},
      {"unknown escape character",
       "an unknown escape after '\\'; write '\\\\' for a backslash, or use single quotes"},
      {"illegal EOF in scalar", "the closing quote is missing"},
      {"the referenced anchor is not defined",
       "an alias ('*') without its anchor ('&'); put text that begins with "
       "'*' in quotes"},
      {"bad file", "nested too deep"},
  }};
  for (const auto& [says, means] : kEntries) {
    if (message.starts_with(says)) return std::string(means);
  }
  return "not valid YAML: " + message;
}

// A tab at the front of the line where parsing failed, or of the one before it, explains most failures.
std::optional<Position> indenting_tab(const Lines& lines, int line) {
  for (const int candidate : {line, line - 1}) {
    const auto text = lines.line(candidate);
    const size_t tab = text.substr(0, text.find_first_not_of(" \t")).find('\t');
    if (tab != std::string_view::npos) return lines.at(static_cast<size_t>(candidate), tab);
  }
  return std::nullopt;
}

YamlDocument parse(std::string_view text, const Lines& lines) {
  check_characters(text, lines);
  YamlDocument document;
  TreeBuilder builder(lines, document);
  std::istringstream stream{std::string(text)};
  YAML::Parser parser(stream);
  // At most twice: yaml-cpp 0.7 reports documents without end for some texts (",").
  if (!parser.HandleNextDocument(builder) || !builder.started()) throw Stop{{}, "the spec is empty"};
  parser.HandleNextDocument(builder);
  return document;
}

}  // namespace

YamlOutcome parse_yaml(std::string_view text) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  const Lines lines(text);
  try {
    return {parse(text, lines), std::nullopt, {}};
  } catch (const Stop& stop) {
    return {std::nullopt, stop.position, stop.message};
  } catch (const YAML::Exception& error) {
    if (const auto tab = indenting_tab(lines, error.mark.line)) {
      return {std::nullopt, *tab, "a tab in the indentation; YAML wants spaces"};
    }
    return {std::nullopt, lines.at(error.mark), explain(error.msg)};
  } catch (const std::exception& error) {
    return {std::nullopt, Position{}, fmt::format("cannot be read as YAML: {}", error.what())};
  }
}

}  // namespace snug
