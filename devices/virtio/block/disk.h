// What a disk is made of: the configuration of the device, the open files that hold its bytes, and the engine
// that moves them.
//
// Thread: any, before the guest runs; disk_size() any.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "devices/virtio/block/backend.h"
#include "devices/virtio/block/block.h"
#include "devices/virtio/block/overlay.h"
#include "vmm/base/result.h"

namespace snug {

enum class BlockEngine {
  kAuto,  // io_uring, or threads where the host has none
  kIoUring,
  kThreads,
};

struct DiskConfig {
  BlockConfig block;             // but for its name
  std::vector<BlockFile> files;  // the caller's; of an ephemeral disk the second one takes what is written
  SectorMap* written = nullptr;  // the caller's; ephemeral disks only
  BlockEngine engine = BlockEngine::kAuto;
  bool thread = false;  // of its own, instead of the loop's
};

// With an overlay where `written` says so. Errors: io_uring is asked for, and refused.
Result<std::unique_ptr<BlockBackend>> make_disk_backend(const DiskConfig& config,
                                                        const std::function<void()>& thread_begins = {});

// Bytes of a file or block device, in whole sectors of 512: the last one of a file may be filled with zeros.
Result<uint64_t> disk_size(int fd);

}  // namespace snug
