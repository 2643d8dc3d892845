// A guest that needs no image: this host's own kernel and its drivers, the agent that comes with this program
// as its first program, and a folder of the host as its root.
//
// Main thread, before others exist.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/result.h"
#include "vmm/cli/guest_images.h"

namespace snug::cli {

// Where a host keeps its kernels and their modules; another one in tests.
struct HostKernels {
  std::filesystem::path boot = "/boot";
  std::filesystem::path modules = "/lib/modules";
  std::string release;  // of the kernel that runs

  static HostKernels here();
};

// Its initrd lies in the user's cache, made when it is not there. Errors: the kernel that runs here is not to
// be found or read (a container has none), it has no driver for a folder of the host, no cache.
Result<GuestImage> host_image(const HostKernels& host);

// An initrd with the agent alone, in the user's cache, for a kernel that has its drivers. Its path.
Result<std::string> agent_initrd();

// --- its parts --------------------------------------------------------------------------------------------

// In the order in which they have to be loaded, as modules.dep has them (depmod(8)): those that `name` needs,
// and itself, relative to the folder of the release. Empty: it is built in. Errors: the kernel does not have
// it.
Result<std::vector<std::string>> modules_of(std::string_view name, std::string_view dep,
                                            std::string_view builtin);

// An archive as Linux takes for an initrd ("newc",
// Documentation/driver-api/early-userspace/buffer-format.rst).
class InitrdArchive {
 public:
  InitrdArchive();
  void add_folder(std::string_view name);
  void add_file(std::string_view name, std::string_view content, uint32_t mode);
  void add_device(std::string_view name, uint32_t major, uint32_t minor);
  // The whole of it.
  std::string finish();

 private:
  void add(std::string_view name, uint32_t mode, std::string_view content, uint32_t major, uint32_t minor);

  std::string bytes_;
  uint32_t number_ = 0;
};

}  // namespace snug::cli
