#include "vmm/spec/reader.h"

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "vmm/spec/load.h"
#include "vmm/spec/text.h"

namespace snug {
namespace {

const char* kind_name(YamlNode::Kind kind) {
  switch (kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kScalar:
      return "text";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map";
  }
  return "nothing";
}

const Key* find_key(const KeyList& keys, std::string_view name) {
  const auto found = std::find_if(keys.begin(), keys.end(), [&](const Key& key) { return key.name == name; });
  return found == keys.end() ? nullptr : &*found;
}

std::vector<std::string> names_of(const KeyList& keys) {
  std::vector<std::string> names;
  for (const auto& key : keys) names.emplace_back(key.name);
  return names;
}

// "unknown key 'memroy' (did you mean 'memory'?)".
std::string unknown_key(const KeyList& keys, const std::string& name, const std::string& path) {
  constexpr size_t kFew = 6;
  if (name == "<<")
    return "merge keys ('<<') are not supported; repeat the keys, or use an alias for each value";
  const auto names = names_of(keys);
  std::string hint;
  // What others call it is no slip.
  for (const Key& key : keys) {
    const auto others = split(key.also, ' ');
    if (!hint.empty() || std::find(others.begin(), others.end(), name) == others.end()) continue;
    hint = fmt::format(" (did you mean '{}'?)", key.name);
  }
  if (hint.empty()) hint = did_you_mean(name, names);
  for (size_t i = 0; hint.empty() && i < keys.size(); ++i) {
    const auto others = split(keys[i].also, ' ');
    if (keys[i].also.empty() || !closest(name, others)) continue;
    hint = fmt::format(" (did you mean '{}'?)", keys[i].name);
  }
  if (hint.empty() && keys.size() <= kFew) hint = fmt::format(" (there is {})", or_list(names));
  return fmt::format("{}unknown key {}{}", path.empty() ? "" : path + ": ", in_quotes(name), hint);
}

std::string map_expected(const Nested& nested) {
  const std::string map = "a map with " + or_list(names_of(nested.keys));
  const Key* key = find_key(nested.keys, nested.shorthand);
  const std::string& text = nested.short_form.expected;
  const std::string item =
      key == nullptr ? map : (text.empty() ? key->value->expected : text) + ", or " + map;
  return nested.is_list ? item + ", or a list of them" : item;
}

// The parts of an item on the command line, between commas. Two commas are one that belongs to its part: no
// item has an empty part.
std::vector<std::string> split_item(std::string_view text) {
  std::vector<std::string> parts(1);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      parts.back() += text[i];
    } else if (text.substr(i + 1).starts_with(',')) {
      parts.back() += text[i++];
    } else {
      parts.emplace_back();
    }
  }
  return parts;
}

std::string joined(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
}

}  // namespace

void SpecReader::add(Problem problem) {
  if (problems_.size() < kMaxProblems) {
    problems_.push_back(std::move(problem));
  } else {
    ++left_out_;
  }
}

std::vector<Problem> SpecReader::take_problems() {
  std::stable_sort(problems_.begin(), problems_.end(), [](const Problem& a, const Problem& b) {
    return std::tuple(a.file.empty(), a.line, a.column) < std::tuple(b.file.empty(), b.line, b.column);
  });
  if (left_out_ > 0) {
    problems_.push_back({file_name_, 0, 0, fmt::format("{} further problems are not shown", left_out_)});
  }
  left_out_ = 0;
  return std::exchange(problems_, {});
}

Problem SpecReader::place_of(const YamlRef& ref) const {
  return {file_name_, ref.position.line, ref.position.column, {}};
}

Problem SpecReader::place_of(std::string_view key) const {
  for (;;) {
    if (const auto found = set_.find(key); found != set_.end()) return found->second;
    const size_t end = key.find_last_of(".[");
    if (end == std::string_view::npos) return {};
    key = key.substr(0, end);
  }
}

void SpecReader::report(const YamlRef& ref, std::string message) {
  Problem problem = place_of(ref);
  problem.message = std::move(message);
  add(std::move(problem));
}

// A later source replaces what an earlier one said.
void SpecReader::forget(const std::string& path) {
  const auto is_of = [&](const std::string& key) {
    return key == path || (key.starts_with(path) && key[path.size()] == '[');
  };
  std::erase_if(files_, [&](const NamedFile& file) { return is_of(file.key); });
  std::erase_if(set_, [&](const auto& entry) { return is_of(entry.first); });
}

void SpecReader::read_yaml(std::string_view text, const std::string& file_name, std::string_view base_dir,
                           void* object) {
  file_name_ = file_name;
  base_dir_ = base_dir;
  auto outcome = parse_yaml(text);
  if (!outcome.document) {
    const Position at = outcome.error_position.value_or(Position{});
    add({file_name_, at.line, at.column, std::move(outcome.error)});
    return;
  }
  document_ = std::move(*outcome.document);
  const auto kind = document_.at(document_.root).kind;
  if (kind == YamlNode::Kind::kNull) {
    add({file_name_, 0, 0, "the spec is empty"});
  } else if (kind != YamlNode::Kind::kMap) {
    report(document_.root, fmt::format("a spec is a map of KEY: VALUE lines, got {}", kind_name(kind)));
  } else {
    read_map(keys_, document_.root, "", object);
  }
}

void SpecReader::read_map(const KeyList& keys, const YamlRef& ref, const std::string& path, void* object) {
  std::map<std::string_view, Position> seen;
  const auto& children = document_.at(ref).children;
  for (size_t i = 0; i + 1 < children.size(); i += 2) {
    const YamlNode& name = document_.at(children[i]);
    if (name.kind != YamlNode::Kind::kScalar) {
      report(children[i], fmt::format("a key is plain text, got {}", kind_name(name.kind)));
      continue;
    }
    const auto [first, is_new] = seen.emplace(name.text, children[i].position);
    const Key* key = find_key(keys, name.text);
    if (key == nullptr) {
      report(children[i], unknown_key(keys, name.text, path));
    } else if (!is_new) {
      report(children[i], fmt::format("duplicate key '{}' (first on line {})", joined(path, key->name),
                                      first->second.line));
    } else {
      // yaml-cpp puts a missing value where the next key is.
      const bool missing = document_.at(children[i + 1]).kind == YamlNode::Kind::kNull;
      const YamlRef value{children[i + 1].node, missing ? children[i].position : children[i + 1].position};
      read_key(*key, value, joined(path, key->name), object);
    }
  }
}

void SpecReader::read_key(const Key& key, const YamlRef& ref, const std::string& path, void* object) {
  set_.insert_or_assign(path, place_of(ref));
  if (document_.at(ref).kind == YamlNode::Kind::kNull) {
    const std::string expected = key.nested ? map_expected(*key.nested) : key.value->expected;
    report(ref, fmt::format("{}: needs a value: {}", path, expected));
  } else if (key.nested) {
    read_nested(key, ref, path, object);
  } else {
    key.value->clear(object);
    read_values(key, ref, path, object);
  }
}

void SpecReader::read_nested(const Key& key, const YamlRef& ref, const std::string& path, void* object) {
  const Nested& nested = *key.nested;
  const YamlNode& node = document_.at(ref);
  if (!nested.is_list) return read_nested_item(nested, ref, path, nested.open(object));
  nested.clear(object);
  // One item needs no list around it.
  if (node.kind != YamlNode::Kind::kSequence) return read_nested_item(nested, ref, path, nested.open(object));
  for (size_t i = 0; i < node.children.size(); ++i) {
    const std::string item = fmt::format("{}[{}]", path, i);
    set_.insert_or_assign(item, place_of(node.children[i]));
    read_nested_item(nested, node.children[i], item, nested.open(object));
  }
}

void SpecReader::read_nested_item(const Nested& nested, const YamlRef& ref, const std::string& path,
                                  void* object) {
  const auto kind = document_.at(ref).kind;
  const Key* shorthand = find_key(nested.keys, nested.shorthand);
  if (kind == YamlNode::Kind::kMap) {
    read_map(nested.keys, ref, path, object);
  } else if (kind == YamlNode::Kind::kScalar && nested.short_form.take_apart) {
    read_short_form(nested, ref, path, object);
  } else if (kind == YamlNode::Kind::kScalar && shorthand != nullptr) {
    read_key(*shorthand, ref, joined(path, shorthand->name), object);
  } else {
    set_.insert_or_assign(joined(path, nested.shorthand), place_of(ref));
    report(ref, fmt::format("{}: expected {}, got {}", path, map_expected(nested), kind_name(kind)));
  }
}

void SpecReader::read_short_form(const Nested& nested, const YamlRef& ref, const std::string& path,
                                 void* object) {
  const auto parts = nested.short_form.take_apart(document_.at(ref).text, base_dir_);
  set_.insert_or_assign(joined(path, nested.shorthand), place_of(ref));
  if (!parts) return report(ref, fmt::format("{}: {}", path, parts.error().text()));
  for (const auto& part : *parts) {
    const std::string key = joined(path, part.key);
    set_value(*find_key(nested.keys, part.key), part.value, key, key, place_of(ref), object);
  }
}

void SpecReader::read_values(const Key& key, const YamlRef& ref, const std::string& path, void* object) {
  const YamlNode& node = document_.at(ref);
  if (node.kind == YamlNode::Kind::kMap && key.value->assignments)
    return read_assignments(key, ref, path, object);
  if (node.kind != YamlNode::Kind::kSequence || !key.value->repeatable)
    return read_scalar(key, ref, path, object);
  for (const auto& item : node.children) {
    const size_t before = problems_.size() + left_out_;
    read_scalar(key, item, path, object);
    // A list that grew too long fails at every further item.
    if (problems_.size() + left_out_ > before && problems_.size() >= kMaxProblems) return;
  }
}

void SpecReader::read_assignments(const Key& key, const YamlRef& ref, const std::string& path, void* object) {
  std::map<std::string_view, Position> seen;
  const auto& children = document_.at(ref).children;
  for (size_t i = 0; i + 1 < children.size(); i += 2) {
    const YamlNode& name = document_.at(children[i]);
    const YamlNode& value = document_.at(children[i + 1]);
    if (name.kind != YamlNode::Kind::kScalar || name.text.empty() ||
        name.text.find('=') != std::string::npos) {
      report(children[i], fmt::format("{}: a name is text without '='", path));
      continue;
    }
    const auto [first, is_new] = seen.emplace(name.text, children[i].position);
    if (!is_new) {
      report(children[i], fmt::format("{}: duplicate name {} (first on line {})", path, in_quotes(name.text),
                                      first->second.line));
    } else if (value.kind == YamlNode::Kind::kNull) {
      report(children[i],
             fmt::format("{}: {} needs a value; '' is the empty one", path, in_quotes(name.text)));
    } else if (value.kind != YamlNode::Kind::kScalar) {
      report(children[i + 1],
             fmt::format("{}: {}: expected text, got {}", path, in_quotes(name.text), kind_name(value.kind)));
    } else {
      set_value(key, fmt::format("{}={}", name.text, value.text), path, path, place_of(children[i]), object);
    }
  }
}

void SpecReader::read_scalar(const Key& key, const YamlRef& ref, const std::string& path, void* object) {
  const YamlNode& node = document_.at(ref);
  if (node.kind != YamlNode::Kind::kScalar) {
    return report(ref,
                  fmt::format("{}: expected {}, got {}", path, key.value->expected, kind_name(node.kind)));
  }
  set_value(key, node.text, path, path, place_of(ref), object);
}

void SpecReader::set_value(const Key& key, const std::string& text, const std::string& path,
                           const std::string& prefix, const Problem& place, void* object) {
  SetContext context{base_dir_};
  const auto done = key.value->set(object, text, context);
  if (!done) {
    Problem problem = place;
    problem.message = fmt::format("{}: {}", prefix, done.error().text());
    return add(std::move(problem));
  }
  for (auto& file : context.files) files_.push_back({path, prefix, place, std::move(file)});
}

void SpecReader::read_flags(const FlagValues& flags, std::string_view base_dir, void* object) {
  base_dir_ = base_dir;
  read_flag_list(keys_, flags, "", object);
}

void SpecReader::read_flag_list(const KeyList& keys, const FlagValues& flags, const std::string& path,
                                void* object) {
  for (const auto& key : keys) {
    const std::string key_path = joined(path, key.name);
    if (key.nested && !key.nested->is_list) {
      read_flag_list(key.nested->keys, flags, key_path, key.nested->open(object));
      continue;
    }
    const auto given = flags.by_key.find(key_path);
    if (given == flags.by_key.end() || given->second.empty()) continue;
    const auto& texts = given->second;
    const std::string flag = long_flag(key);
    forget(key_path);
    set_.insert_or_assign(key_path, Problem{});
    if (key.nested) {
      key.nested->clear(object);
      for (size_t i = 0; i < texts.size(); ++i)
        read_flag_item(*key.nested, texts[i], fmt::format("{}[{}]", key_path, i), flag,
                       key.nested->open(object));
      continue;
    }
    key.value->clear(object);
    const size_t first = key.value->repeatable ? 0 : texts.size() - 1;
    for (size_t i = first; i < texts.size(); ++i) set_value(key, texts[i], key_path, flag, {}, object);
  }
}

// "a.img,readonly=yes": the map of one item.
void SpecReader::read_flag_item(const Nested& nested, const std::string& text, const std::string& path,
                                const std::string& flag, void* object) {
  std::set<std::string> seen;
  std::vector<ShortForm::Part> implied;
  const auto set = [&](const std::string& name, const std::string& value) {
    const Key* key = find_key(nested.keys, name);
    if (!seen.insert(name).second && !key->value->repeatable)
      return add({"", 0, 0, fmt::format("{}: duplicate key '{}'", flag, name)});
    set_.insert_or_assign(joined(path, name), Problem{});
    set_value(*key, value, path, fmt::format("{}: {}", flag, name), {}, object);
  };
  const auto parts = split_item(text);
  for (size_t i = 0; i < parts.size(); ++i) {
    const size_t equals = parts[i].find('=');
    const std::string name = parts[i].substr(0, equals);
    const Key* key = find_key(nested.keys, name);
    // A path with a '=' in it is not taken for a key's name.
    if (i == 0 && !nested.shorthand.empty() &&
        (equals == std::string::npos || name.find('/') != std::string::npos)) {
      if (!nested.short_form.take_apart) {
        set(nested.shorthand, parts[i]);
        continue;
      }
      const auto taken = nested.short_form.take_apart(parts[i], base_dir_);
      set_.insert_or_assign(joined(path, nested.shorthand), Problem{});
      if (!taken) add({"", 0, 0, fmt::format("{}: {}", flag, taken.error().text())});
      for (const auto& part : taken.value_or(std::vector<ShortForm::Part>{}))
        if (part.implied)
          implied.push_back(part);
        else
          set(part.key, part.value);
    } else if (key == nullptr || !key->value) {
      add({"", 0, 0,
           fmt::format("{}: {}{}", flag, unknown_key(nested.keys, name, ""),
                       i > 0 && !closest(name, names_of(nested.keys))
                           ? "; a comma that belongs to a value is written twice: ',,'"
                           : "")});
    } else if (equals == std::string::npos) {
      seen.insert(name);
      add({"", 0, 0, fmt::format("{}: '{}' needs a value: {}={}", flag, name, name, key->placeholder)});
    } else {
      set(name, parts[i].substr(equals + 1));
    }
  }
  for (const auto& part : implied)
    if (!seen.contains(part.key)) set(part.key, part.value);
}

}  // namespace snug
