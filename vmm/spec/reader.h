// Walks a YAML tree or the flags along a table of keys and sets what it finds.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/spec/flags.h"
#include "vmm/spec/key.h"
#include "vmm/spec/problem.h"
#include "vmm/spec/yaml_tree.h"

namespace snug {

class SpecReader {
 public:
  // A file that a key names, with where it was said.
  struct NamedFile {
    std::string key;
    std::string prefix;  // of the message: "kernel: " or "--kernel: "
    Problem place;       // without a message
    FileUse file;
  };

  explicit SpecReader(const KeyList& keys) : keys_(keys) {}

  // `object`: the struct the table describes.
  void read_yaml(std::string_view text, const std::string& file_name, std::string_view base_dir,
                 void* object);
  // Flags replace what a file said under the same key.
  void read_flags(const FlagValues& flags, std::string_view base_dir, void* object);

  bool was_set(std::string_view key) const { return set_.contains(key); }
  // Where a key was set ("shares[1].target"), or what it is in; without a message. Of flags it has no file.
  Problem place_of(std::string_view key) const;
  // Of what is in force: a file named by a key that a flag replaced is gone.
  const std::vector<NamedFile>& files() const { return files_; }

  void add(Problem problem);
  // Sorted by position, flags last; at most kMaxProblems and one that counts the rest.
  std::vector<Problem> take_problems();

 private:
  void read_map(const KeyList& keys, const YamlRef& ref, const std::string& path, void* object);
  void read_key(const Key& key, const YamlRef& ref, const std::string& path, void* object);
  void read_nested(const Key& key, const YamlRef& ref, const std::string& path, void* object);
  void read_nested_item(const Nested& nested, const YamlRef& ref, const std::string& path, void* object);
  void read_values(const Key& key, const YamlRef& ref, const std::string& path, void* object);
  void read_assignments(const Key& key, const YamlRef& ref, const std::string& path, void* object);
  void read_scalar(const Key& key, const YamlRef& ref, const std::string& path, void* object);
  void read_flag_list(const KeyList& keys, const FlagValues& flags, const std::string& path, void* object);
  void read_flag_item(const Nested& nested, const std::string& text, const std::string& path,
                      const std::string& flag, void* object);
  void read_short_form(const Nested& nested, const YamlRef& ref, const std::string& path, void* object);
  void set_value(const Key& key, const std::string& text, const std::string& path, const std::string& prefix,
                 const Problem& place, void* object);
  void forget(const std::string& path);
  void report(const YamlRef& ref, std::string message);
  Problem place_of(const YamlRef& ref) const;

  const KeyList& keys_;
  std::string file_name_;
  std::string_view base_dir_;
  YamlDocument document_;
  std::vector<Problem> problems_;
  size_t left_out_ = 0;
  std::vector<NamedFile> files_;
  std::map<std::string, Problem, std::less<>> set_;  // what was set, and where
};

}  // namespace snug
