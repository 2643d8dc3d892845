// A VM with one micro-guest in it, without devices: the KVM plumbing alone.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "boot/entry.h"
#include "boot/kernel.h"
#include "vmm/base/checked.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/bus.h"
#include "vmm/core/guest_memory.h"
#include "vmm/kvm/cpuid.h"
#include "vmm/kvm/kvm.h"
#include "vmm/kvm/vcpu.h"
#include "vmm/kvm/vm.h"

namespace snug {

// Where the micro-guests that count put their counts.
constexpr uint64_t kCounter = 0x200000;
constexpr uint64_t kSecondCounter = 0x200008;

inline void expect_ok(const Result<void>& result) { ASSERT_TRUE(result) << result.error().text(); }

// Waits until `condition` holds; false after a bound far beyond what it ever takes.
template <class Condition>
bool eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

class GuestTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("SNUG_IMAGE_MICRO");
    if (folder == nullptr) GTEST_SKIP() << "SNUG_IMAGE_MICRO is not set (guest-images/build micro-guests)";
    folder_ = folder;
    auto kvm = kvm::Kvm::open();
    if (!kvm) GTEST_SKIP() << kvm.error().text();
    kvm_ = std::make_unique<kvm::Kvm>(std::move(*kvm));
  }

  // Loads a micro-guest as snug loads a kernel and makes the VM ready to run it on vCPU 0.
  void load(const std::string& name, uint64_t memory_size = 64 * kMiB) {
    auto memory = GuestMemory::create(memory_size);
    ASSERT_TRUE(memory) << memory.error().text();
    memory_ = std::make_unique<GuestMemory>(std::move(*memory));
    auto vm = kvm::Vm::create(*kvm_);
    ASSERT_TRUE(vm) << vm.error().text();
    vm_ = std::move(*vm);
    expect_ok(vm_->add_memory(*memory_));
    auto file = open_file(folder_ + "/" + name + ".elf", O_RDONLY);
    ASSERT_TRUE(file) << file.error().text();
    auto kernel = boot::load_kernel(file->get(), *memory_);
    ASSERT_TRUE(kernel) << kernel.error().text();
    auto state = boot::prepare_entry(*memory_, *kernel, std::nullopt, "");
    ASSERT_TRUE(state) << state.error().text();
    auto vcpu = kvm::Vcpu::create(*vm_, 0);
    ASSERT_TRUE(vcpu) << vcpu.error().text();
    auto supported = kvm::supported_cpuid(*kvm_);
    ASSERT_TRUE(supported) << supported.error().text();
    expect_ok((*vcpu)->set_cpuid(kvm::guest_cpuid(*supported, {}, 0)));
    expect_ok((*vcpu)->set_state(*state));
    vcpu_ = std::move(*vcpu);
  }

  uint64_t counter(uint64_t gpa = kCounter) const { return memory_->load<uint64_t>(gpa).value_or(0); }

  std::string folder_;
  std::unique_ptr<kvm::Kvm> kvm_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<kvm::Vm> vm_;
  std::unique_ptr<kvm::Vcpu> vcpu_;
};

}  // namespace snug
