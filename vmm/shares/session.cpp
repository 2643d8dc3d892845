#include "vmm/shares/session.h"

#include <mutex>
#include <utility>

#include "vmm/shares/operations.h"
#include "vmm/shares/request.h"
#include "vmm/shares/share.h"

namespace snug {
namespace {

Outcome<> run(Share& share, const Operation& operation, Request& request, Reply& reply) {
  if (!share.agreed.initialized && (operation.traits & Operation::kUnstarted) == 0) return refuse(EIO);
  if ((operation.traits & Operation::kChanges) != 0) {
    if (share.options.readonly) return refuse(EROFS);
    if (share.is_file && request.header().nodeid == FUSE_ROOT_ID) return refuse(EPERM);
  }
  SNUG_TRY(request.read_arguments(operation.arguments, (operation.traits & Operation::kData) != 0));
  // Nothing is done whose answer could not be told.
  if (reply.room() < operation.answer) return refuse(EINVAL);
  return operation.run(share, request, reply);
}

}  // namespace

ShareSession::ShareSession(std::unique_ptr<Share> share) : share_(std::move(share)) {}

ShareSession::~ShareSession() = default;

Result<std::unique_ptr<ShareSession>> ShareSession::create(UniqueFd root, UniqueFd proc_self_fd,
                                                           ShareOptions options, Answered answered) {
  if (options.descriptors < kFewestDescriptors)
    return fail("a share needs {} descriptors at least, not {}", kFewestDescriptors, options.descriptors);
  auto share = std::make_unique<Share>(std::move(root), std::move(proc_self_fd), std::move(options),
                                       std::move(answered));
  const auto status = share->host.status(share->root.get());
  if (!status) return fail_errno(status.error(), "look at what is to be shared");
  if (!S_ISDIR(status->stx_mode) && !S_ISREG(status->stx_mode))
    return fail("only folders and regular files can be shared");
  share->set_root(*status);
  share->forget_all();
  return std::unique_ptr<ShareSession>(new ShareSession(std::move(share)));
}

void ShareSession::reset() {
  const std::lock_guard alone(running_);
  share_->forget_all();
}

std::optional<uint32_t> ShareSession::serve(const GuestMemory& memory, const VirtChain& chain,
                                            uint64_t ticket) {
  Request request(memory, chain);
  Reply reply(memory, chain, ticket);
  if (!request.read_header()) return 0;
  const Operation* const operation = find_operation(request.header().opcode);
  const uint64_t unique = request.header().unique;
  if (operation == nullptr) return reply.finish(unique, refuse(ENOSYS));
  const bool silent = (operation->traits & Operation::kSilent) != 0;
  if (!silent && !reply.fits_header()) return 0;
  Outcome<> outcome;
  if ((operation->traits & Operation::kAlone) != 0) {
    const std::lock_guard alone(running_);
    outcome = run(*share_, *operation, request, reply);
  } else {
    const std::shared_lock with_others(running_);
    outcome = run(*share_, *operation, request, reply);
  }
  if (silent) return 0;
  if (reply.is_detached()) return std::nullopt;
  return reply.finish(unique, outcome);
}

bool ShareSession::begun() const {
  const std::shared_lock with_others(running_);
  return share_->agreed.initialized;
}

bool ShareSession::poll() {
  const std::shared_lock with_others(running_);
  return share_->waits.poll();
}

}  // namespace snug
