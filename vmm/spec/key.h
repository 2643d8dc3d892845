// One row of the table of keys, from which parsing, flags, schema, completion and help are all derived.
//
// A table describes a struct T: rows name members of T, so a nested map or a list of maps is a table of its
// own for the member's struct. The rows are typed (KeyOf<T>) where they are written down and erased (Key)
// where they are walked; `void*` below always points at the struct the table was made for.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/base/result.h"

namespace snug {

// A file that a value names, to be checked once file and flags are merged.
struct FileUse {
  enum class Kind { kInput, kOutput, kDisk, kSocket, kShare, kFolder };
  Kind kind = Kind::kInput;
  std::string path;       // resolved
  bool relative = false;  // as written
};

// What a value may need to know of its surroundings.
struct SetContext {
  std::string_view base_dir;        // for relative paths; empty: leave them
  std::vector<FileUse> files = {};  // out: appended to
};

// How the text of one value is read, printed and described.
struct Value {
  std::string expected;                 // "a whole number from 1 to 64"; follows "expected "
  std::string schema;                   // members of a JSON Schema object: "\"type\": \"integer\""
  std::vector<std::string> words = {};  // the values there are, or the beginnings there are ("file:")
  bool is_literal = false;              // in JSON without quotes: numbers, booleans
  bool is_path = false;                 // completed with files
  bool repeatable = false;              // a list is fine too; set() appends
  bool joined = false;                  // repeatable, yet printed as one value
  bool assignments = false;             // repeatable, and a map is fine too: each NAME: TEXT as NAME=TEXT
  bool bare_flag = false;               // the flag stands alone, without a value, and says 'true'

  // Sets from text. The error's message does not name the key.
  std::function<Result<void>(void* object, const std::string& text, SetContext& context)> set;
  // Back to the default (of lists: to nothing), before a source sets it.
  std::function<void(void* object)> clear;
  // The text of the value, of lists one each; empty when not set.
  std::function<std::vector<std::string>(const void* object)> print;
};

struct Nested;

struct Key {
  // Literals of the table.
  std::string_view name;   // as in YAML
  std::string_view flags;  // "-c,--cpus", the key's own name first of the long ones; empty for maps and for
                           // keys inside of lists
  std::string_view placeholder;        // "N"
  std::string_view group;              // of the help
  std::string_view help;               // a sentence
  std::string_view example;            // a value, as in YAML and behind the flag
  std::string_view default_text;       // instead of the printed default
  std::string_view also;               // what others call it, separated by spaces: for suggestions only
  std::shared_ptr<const Value> value;  // null when nested
  std::shared_ptr<const Nested> nested;
};

using KeyList = std::vector<Key>;

// A text in place of a map that sets several of its keys ("src:/work:ro").
struct ShortForm {
  struct Part {
    std::string key, value;
    bool implied = false;  // only where nothing else sets the key
  };
  std::string expected;  // "SOURCE[:TARGET]"
  // `base_dir`: as SetContext has it. Empty: the text is the value of the shorthand key alone.
  std::function<Result<std::vector<Part>>(const std::string& text, std::string_view base_dir)> take_apart;
};

// Access to a nested struct or to a list of them.
struct Nested {
  KeyList keys;
  bool is_list = false;
  // A scalar in place of the map sets this key ("log: debug"); empty: a map is needed. For flags of lists
  // ("--disk a.img,readonly=yes"): the key that the first part sets without saying so.
  std::string shorthand;
  ShortForm short_form = {};                // of lists: what the text in the shorthand's place may be
  std::function<void*(void* object)> open;  // the member; of lists: appends an item
  std::function<void(void* object)> clear;  // of lists: removes all items
  std::function<size_t(const void* object)> count;
  std::function<const void*(const void* object, size_t index)> item;
};

template <class T>
struct ValueOf {
  std::shared_ptr<const Value> value;
};

template <class T>
struct NestedOf {
  std::shared_ptr<const Nested> nested;
};

// A row as written in a table for T.
template <class T>
struct KeyOf {
  const char* name = "";
  const char* flags = "";
  const char* placeholder = "";
  const char* group = "";
  const char* help = "";
  const char* example = "";
  const char* default_text = "";
  const char* also = "";
  ValueOf<T> value;
  NestedOf<T> nested;
};

template <class T>
struct Keys {
  KeyList list;
  Keys(std::initializer_list<KeyOf<T>> rows) {
    for (const auto& row : rows) {
      list.push_back({row.name, row.flags, row.placeholder, row.group, row.help, row.example,
                      row.default_text, row.also, row.value.value, row.nested.nested});
    }
  }
};

// A nested map.
template <class T, class M>
NestedOf<T> map_of(M T::*member, Keys<M> keys, std::string shorthand = {}) {
  Nested nested;
  nested.keys = std::move(keys.list);
  nested.shorthand = std::move(shorthand);
  nested.open = [member](void* object) -> void* { return &(static_cast<T*>(object)->*member); };
  nested.count = [](const void*) -> size_t { return 1; };
  nested.item = [member](const void* object, size_t) -> const void* {
    return &(static_cast<const T*>(object)->*member);
  };
  return {std::make_shared<const Nested>(std::move(nested))};
}

// A list of maps.
template <class T, class M>
NestedOf<T> list_of(std::vector<M> T::*member, Keys<M> keys, std::string shorthand = {},
                    ShortForm short_form = {}) {
  Nested nested;
  nested.keys = std::move(keys.list);
  nested.is_list = true;
  nested.shorthand = std::move(shorthand);
  nested.short_form = std::move(short_form);
  nested.open = [member](void* object) -> void* {
    return &(static_cast<T*>(object)->*member).emplace_back();
  };
  nested.clear = [member](void* object) { (static_cast<T*>(object)->*member).clear(); };
  nested.count = [member](const void* object) { return (static_cast<const T*>(object)->*member).size(); };
  nested.item = [member](const void* object, size_t index) -> const void* {
    return &(static_cast<const T*>(object)->*member)[index];
  };
  return {std::make_shared<const Nested>(std::move(nested))};
}

// The long form of the flag, the first where there are two: "--cpus".
std::string long_flag(const Key& key);

// The table for Spec.
const KeyList& spec_keys();

}  // namespace snug
