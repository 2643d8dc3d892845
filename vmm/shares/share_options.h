// How one folder or file of the host is shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "vmm/shares/recent.h"

namespace snug {

// What the guest may keep of what it has seen.
enum class ShareCache : uint8_t {
  kAuto,    // names and attributes for a second, data while the file is as it was
  kAlways,  // everything, and its own writes for a while: nobody else changes the folder
  kNone,    // nothing
};

// How a name below a folder is opened.
enum class ShareResolver : uint8_t {
  kAuto,     // openat2(2), unless the host refuses it
  kOpenat2,  // for tests: without a way out
  kOpenat,   // for tests: as where there is no openat2
};

struct ShareOptions {
  bool readonly = false;
  ShareCache cache = ShareCache::kAuto;
  // Mount points of the host below the folder lead on; else they are seen, and cannot be entered.
  bool submounts = false;
  // The process is root on the host and acts for every user: ids are what they are on the host. Else all that
  // is made belongs to the process's user.
  bool real_ids = false;
  // Who, to the guest, owns what belongs to the process's user and group; 0 unless said. Either of them turns
  // real_ids off.
  std::optional<uint32_t> uid, gid;
  // Who, to the guest, owns what belongs to neither, where ids are not real.
  uint32_t foreign_uid = 65534;
  uint32_t foreign_gid = 65534;
  // An empty folder that nobody can change (O_PATH; the caller's), which stands for mount points that are not
  // to be crossed; -1: there is none, and looking one up is EXDEV.
  int closed_folder = -1;
  // Open at a time for this share, kept inodes, open files and locks together; at least kFewestDescriptors.
  // Requests need up to 4 more each while they are served.
  size_t descriptors = 1024;
  // Files and folders that the guest may know at a time; at most 2^20.
  size_t inodes = size_t{1} << 20;
  // What a shared file is called: it is seen in a folder of nothing else. Not used where a folder is shared.
  std::string file_name = "file";
  ShareResolver resolver = ShareResolver::kAuto;
};

// What is taken to be as it was a moment ago (recent.h), nanoseconds.
inline uint64_t moment_of(const ShareOptions& options) {
  return options.cache == ShareCache::kNone ? 0 : kMoment;
}

constexpr size_t kFewestDescriptors = 64;

}  // namespace snug
