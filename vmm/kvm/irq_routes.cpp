#include "vmm/kvm/irq_routes.h"

#include <sys/ioctl.h>

#include "vmm/kvm/gsi_routing.h"
#include "vmm/kvm/uapi.h"

namespace snug::kvm {
namespace {

constexpr uint32_t kMaxGsi = 4096;  // KVM_MAX_IRQ_ROUTES

}  // namespace

// While it has no message it is masked: writes to its eventfd raise nothing.
class IrqRoutes::Vector final : public MsiVector {
 public:
  Vector(IrqRoutes& routes, uint32_t gsi, UniqueFd event_fd)
      : routes_(routes), gsi_(gsi), event_fd_(std::move(event_fd)) {}
  ~Vector() override { mask(); }
  int event_fd() const override { return event_fd_.get(); }
  Result<void> set(const MsiMessage& message) override;
  void mask() override;

 private:
  Result<void> connect(uint32_t flags);
  IrqRoutes& routes_;
  uint32_t gsi_;
  UniqueFd event_fd_;
  bool connected_ = false;
};

Result<std::unique_ptr<MsiVector>> IrqRoutes::vector() {
  auto event_fd = SNUG_TRY(make_eventfd());
  const uint32_t gsi = state_.lock()->next_gsi++;
  if (gsi >= kMaxGsi) return fail("more than {} interrupt vectors", kMaxGsi);
  return std::make_unique<Vector>(*this, gsi, std::move(event_fd));
}

Result<void> IrqRoutes::update(uint32_t gsi, const MsiMessage* message) {
  auto state = state_.lock();
  if (message != nullptr)
    state->messages[gsi] = *message;
  else
    state->messages.erase(gsi);
  return set_gsi_routing(vm_.fd(), state->messages);
}

Result<void> IrqRoutes::Vector::connect(uint32_t flags) {
  kvm_irqfd request{};
  request.fd = static_cast<uint32_t>(event_fd_.get());
  request.gsi = gsi_;
  request.flags = flags;
  if (::ioctl(routes_.vm_.fd(), KVM_IRQFD, &request) != 0)
    return fail_errno(errno, "KVM_IRQFD for GSI {}", gsi_);
  return {};
}

Result<void> IrqRoutes::Vector::set(const MsiMessage& message) {
  SNUG_TRY(routes_.update(gsi_, &message));
  if (!connected_) SNUG_TRY(connect(0));
  connected_ = true;
  return {};
}

void IrqRoutes::Vector::mask() {
  if (!connected_) return;
  connected_ = false;
  (void)connect(KVM_IRQFD_FLAG_DEASSIGN);
  (void)routes_.update(gsi_, nullptr);
}

}  // namespace snug::kvm
