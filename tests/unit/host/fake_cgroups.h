// A folder that keeps the kernel's rules about control groups, as far as snug meets them: what a group is
// given, that one
// with processes gives nothing on and the other way round, and what is in use is not removed.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "vmm/host/cgroup_files.h"

namespace snug {

class FakeCgroups : public CgroupFiles {
 public:
  // `folder`: empty, becomes the mount. The host's root has these controllers.
  FakeCgroups(std::string folder, const std::string& controllers) : mount_(std::move(folder)) {
    put(mount_ + "/cgroup.controllers", controllers);
    put(mount_ + "/cgroup.subtree_control", "");
    put(mount_ + "/cgroup.procs", "");
  }

  // A group in which processes are, given some controllers of its parent's.
  std::string group(const std::string& name, const std::string& controllers,
                    const std::vector<std::string>& processes) {
    const std::string folder = mount_ + "/" + name;
    const std::string parent = folder.substr(0, folder.rfind('/'));
    put(parent + "/cgroup.subtree_control", controllers);
    make(folder);
    for (const std::string& pid : processes) write(folder + "/cgroup.procs", pid);
    return folder;
  }
  // What /proc/self would say of a process in that group.
  std::string proc_in(const std::string& folder, const std::string& v1 = "") {
    const std::string proc = mount_ + ".proc";
    std::filesystem::create_directories(proc);
    put(proc + "/mountinfo", "22 21 0:20 / /proc rw - proc proc rw\n30 21 0:27 / " + mount_ +
                                 " rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
    const std::string below = folder.substr(mount_.size());
    put(proc + "/cgroup", v1 + "0::" + (below.empty() ? "/" : below) + "\n");
    return proc;
  }

  std::string text(const std::string& path) const {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::vector<std::string> words(const std::string& path) const { return cgroup_words(*this, path); }
  bool has(const std::string& folder) const { return std::filesystem::exists(folder); }

  // Answers of the host: of the next writes to a path that ends so, or of mkdir ("mkdir").
  std::map<std::string, int> refuse;
  std::vector<std::string> delegated;
  int busy_removals = 0;  // so many more
  // A group is about to give on other controllers.
  std::function<void(const std::string& folder, const std::string& value)> before_giving;

  int write(const std::string& path, std::string_view value) override {
    for (const auto& [end, error] : refuse)
      if (path.ends_with(end)) return error;
    if (!has(path)) return ENOENT;
    const std::string folder = path.substr(0, path.rfind('/'));
    if (path.ends_with("/cgroup.procs")) return move(folder, std::string(value));
    if (path.ends_with("/cgroup.subtree_control")) return give(folder, std::string(value));
    put(path, std::string(value));
    return 0;
  }
  int make(const std::string& folder) override {
    if (const auto found = refuse.find("mkdir"); found != refuse.end()) return found->second;
    if (has(folder)) return EEXIST;
    std::filesystem::create_directory(folder);
    const std::string given = text(folder.substr(0, folder.rfind('/')) + "/cgroup.subtree_control");
    put(folder + "/cgroup.controllers", given);
    put(folder + "/cgroup.subtree_control", "");
    put(folder + "/cgroup.procs", "");
    put(folder + "/cgroup.events", "populated 0\n");
    for (const std::string& name : split(given)) files_of(folder, name, true);
    return 0;
  }
  int remove(const std::string& folder) override {
    if (!has(folder)) return ENOENT;
    if (busy_removals > 0 && busy_removals-- > 0) return EBUSY;
    if (!words(folder + "/cgroup.procs").empty() || groups_in(folder) > 0) return EBUSY;
    std::filesystem::remove_all(folder);
    return 0;
  }
  bool is_marked_delegated(const std::string& folder) const override {
    return std::ranges::find(delegated, folder) != delegated.end();
  }

 private:
  static std::vector<std::string> split(const std::string& text) {
    std::istringstream stream(text);
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    return words;
  }
  static void put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  bool gives_on(const std::string& folder) const {
    return folder != mount_ && !words(folder + "/cgroup.subtree_control").empty();
  }
  void files_of(const std::string& folder, const std::string& controller, bool there) {
    const std::map<std::string, std::vector<std::pair<std::string, std::string>>> all{
        {"cpu", {{"cpu.max", "max 100000\n"}}},
        {"memory", {{"memory.max", "max\n"}, {"memory.current", "0\n"}, {"memory.events", "oom_kill 0\n"}}},
        {"io", {{"io.weight", "default 100\n"}}}};
    if (!all.contains(controller)) return;
    for (const auto& [file, value] : all.at(controller)) {
      if (there)
        put(folder + "/" + file, value);
      else
        std::filesystem::remove(folder + "/" + file);
    }
  }
  int move(const std::string& folder, const std::string& pid) {
    if (gives_on(folder)) return EBUSY;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(mount_)) {
      if (entry.path().filename() != "cgroup.procs") continue;
      std::string left;
      for (const std::string& other : words(entry.path()))
        if (other != pid) left += other + "\n";
      put(entry.path(), left);
    }
    put(folder + "/cgroup.procs", text(folder + "/cgroup.procs") + pid + "\n");
    return 0;
  }
  int give(const std::string& folder, const std::string& value) {
    if (before_giving) before_giving(folder, value);
    auto given = words(folder + "/cgroup.subtree_control");
    const auto there = words(folder + "/cgroup.controllers");
    const bool full = folder != mount_ && !words(folder + "/cgroup.procs").empty();
    for (const std::string& word : split(value)) {
      const std::string name = word.substr(1);
      if (std::ranges::find(there, name) == there.end()) return ENOENT;
      if (word[0] == '+' && full) return EBUSY;
      std::erase(given, name);
      if (word[0] == '+') given.push_back(name);
      for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.is_directory()) files_of(entry.path(), name, word[0] == '+');
    }
    std::string text;
    for (const std::string& name : given) text += name + " ";
    put(folder + "/cgroup.subtree_control", text);
    return 0;
  }

  std::string mount_;
};

}  // namespace snug
