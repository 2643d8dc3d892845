// A share, as a guest sees it: requests of its driver in, answers out. virtio 1.2, 5.11; the requests
// themselves are FUSE's.
//
// Thread: serve() on any number at a time; reset() on any, it waits for those that are being served.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <shared_mutex>
#include <string>

#include "devices/virtio/chain.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/guest_memory.h"
#include "vmm/core/state.h"
#include "vmm/shares/share_options.h"

namespace snug {

struct Operation;
struct Share;

class ShareSession {
 public:
  // Called for a request that serve() has not answered, on the thread of another request or of poll(); it may
  // come before serve() has returned. `written`: bytes of its chain. It must not call the session, nor wait
  // for a thread that is in reset().
  using Answered = std::function<void(uint64_t ticket, uint32_t written)>;

  // root: an O_PATH descriptor of what is shared, a folder or a regular file. proc_self_fd: /proc/self/fd of
  // this process, open (it needs no /proc later). The process has no umask. Errors: neither folder nor file,
  // too few descriptors.
  // Without `answered` no lock is waited for. At most LockWaits::kMaxWaiting requests wait: a queue has to
  // have room for more, or what would end their waiting may not come through.
  static Result<std::unique_ptr<ShareSession>> create(UniqueFd root, UniqueFd proc_self_fd,
                                                      ShareOptions options, Answered answered);
  ~ShareSession();
  ShareSession(const ShareSession&) = delete;
  ShareSession& operator=(const ShareSession&) = delete;

  // Another guest, or its driver anew: what the last one had open is closed, its locks are gone, and
  // FUSE_INIT is expected. What still waits for a lock is never answered.
  void reset();

  // Serves one request: reads chain.readable once, writes chain.writable. Returns the bytes written there, 0
  // for what has no answer. Nothing: the request waits for a lock, and answered(ticket, ...) follows;
  // `memory` stays until that, or reset().
  std::optional<uint32_t> serve(const GuestMemory& memory, const VirtChain& chain, uint64_t ticket);

  // While nothing is served: what the guest has, for a server of the same share to go on with. "" or, in
  // words, why that cannot be told.
  std::string save(SectionWriter& out);
  // Instead of FUSE_INIT: goes on with that. Files are found again by their folders and names; what is not
  // there any more is ESTALE, and what was open and is another file now is EBADF. What is wrong with it is
  // the reader's to say.
  void restore(SectionReader& in);

  // FUSE_INIT has been served since the start, or reset(), or FUSE_DESTROY.
  bool begun() const;

  // Tries the locks that are waited for once more. False: none is. To be called every now and then after
  // serve() has returned nothing: locks of other processes on the host are not told when they go.
  bool poll();

 private:
  explicit ShareSession(std::unique_ptr<Share> share);

  std::unique_ptr<Share> share_;
  mutable std::shared_mutex running_;  // shared: by requests
};

}  // namespace snug
