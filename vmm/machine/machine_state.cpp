// A machine that is saved, and one that begins where another stood.
#include <array>
#include <cerrno>
#include <utility>

#include "vmm/base/random.h"
#include "vmm/core/address_map.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/machine/machine.h"

namespace snug {
namespace {

constexpr const char* kShape = "machine";
constexpr const char* kPciConfig = "pci";
constexpr const char* kPciPorts = "pci-ports";
constexpr uint16_t kVersion = 1;
constexpr size_t kFormatMax = 256;  // bytes of text

class MachineDirtyLog final : public DirtyLog {
 public:
  MachineDirtyLog(kvm::Vm& vm, const GuestMemory& memory) : vm_(vm), memory_(memory) {}
  ~MachineDirtyLog() override { end(); }

  Result<void> begin() override {
    // Of one slot it may be so where another has refused.
    begun_ = true;
    SNUG_TRY(vm_.log_dirty_pages(true));
    // What was noted before that is of no interest.
    std::vector<uint64_t> before(dirty_words(memory_.size()));
    return take(before);
  }
  Result<void> take(std::span<uint64_t> bits) override {
    memory_.notes().take(bits);
    return vm_.take_dirty_pages(bits);
  }
  // Cannot fail for slots that are there.
  void end() override {
    if (std::exchange(begun_, false)) (void)vm_.log_dirty_pages(false);
  }

 private:
  kvm::Vm& vm_;
  const GuestMemory& memory_;
  bool begun_ = false;
};

}  // namespace

std::unique_ptr<DirtyLog> Machine::dirty_log() { return std::make_unique<MachineDirtyLog>(*vm_, memory_); }

Result<std::optional<std::vector<std::byte>>> Machine::save(const std::function<Result<void>()>& write_rest) {
  if (const std::string why = virtio_->unsaveable(); !why.empty())
    return fail("{}: a machine with it cannot be saved", why);
  StateWriter state;
  pci_->lock()->save(state.section(kPciConfig, kVersion));
  const auto still = virtio_->hold_still();
  if (!virtio_->settle()) return std::optional<std::vector<std::byte>>();
  save_shape(state);
  SNUG_TRY(vcpus_->save(*vm_, state));
  SNUG_TRY(kvm::save_vm(*vm_, state));
  legacy_->save(state);
  pci_ports_->lock()->save(state.section(kPciPorts, kVersion));
  virtio_->save(state);
  SNUG_TRY(write_rest());
  return std::optional(state.finish());
}

// What the machine must be like that goes on with it.
void Machine::save_shape(StateWriter& state) const {
  SectionWriter& out = state.section(kShape, kVersion);
  out.number(cpus_);
  out.number(memory_.size());
  out.flag(kernel_.is_linux);
  out.text(kernel_.format.substr(0, kFormatMax));
}

Result<void> Machine::check_shape(StateReader& state) {
  auto in = SNUG_TRY(state.section(kShape, kVersion));
  const auto cpus = in.number<uint32_t>();
  const auto memory = in.number<uint64_t>();
  kernel_.is_linux = in.flag();
  kernel_.format = in.text(kFormatMax);
  SNUG_TRY(in.finish());
  if (cpus != cpus_ || memory != memory_.size())
    return fail("it is of a machine with {} vCPUs and {} bytes of memory, and this one has {} and {}", cpus,
                memory, cpus_, memory_.size());
  return {};
}

// Others than any guest has had.
Result<void> Machine::write_generation() {
  std::array<std::byte, 16> id{};
  if (get_random(id) != static_cast<ssize_t>(id.size())) return fail_errno(errno, "random numbers");
  if (!memory_.write(map::kGenerationId, id)) return fail("the generation id is not in RAM");
  return {};
}

Result<void> Machine::restore_devices(StateReader& state, bool same) {
  SNUG_TRY(legacy_->restore(state));
  auto ports = SNUG_TRY(state.section(kPciPorts, kVersion));
  pci_ports_->lock()->restore(ports);
  SNUG_TRY(ports.finish());
  auto config = SNUG_TRY(state.section(kPciConfig, kVersion));
  pci_->lock()->restore(config);
  SNUG_TRY(config.finish());
  bars_->apply();
  SNUG_TRY(virtio_->restore(state));
  SNUG_TRY(state.finish());
  if (!same) {
    SNUG_TRY(write_generation());
    legacy_->power.lock()->announce_generation();
  }
  virtio_->wake(true);
  return {};
}

}  // namespace snug
