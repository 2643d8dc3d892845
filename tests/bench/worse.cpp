// snug made worse on purpose, for the test of the regression guard: the same program, which does what the
// variable SNUG_WORSE says besides its work.
//   exits        keeps no writes to the clock's index register back, so that each of them is an exit
//   leak         1 MiB that is never used again
//   spin=NUMBER  so many instructions more
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "vmm/kvm/uapi.h"

namespace {

constexpr uint64_t kClockIndex = 0x70;
constexpr size_t kLeak = size_t{1} << 20;
constexpr size_t kPage = 4096;

std::string_view wanted() {
  const char* value = std::getenv("SNUG_WORSE");  // NOLINT(concurrency-mt-unsafe): nobody changes it
  return value != nullptr ? value : "";
}

// Two instructions a pass.
void spin(uint64_t instructions) {
  uint64_t passes = instructions / 2;
  asm volatile("1: dec %0; jnz 1b" : "+r"(passes));
}

[[gnu::constructor]] void waste() {
  const std::string_view what = wanted();
  if (what == "leak") {
    // Written through a volatile pointer: the compiler may leave out what nobody reads.
    auto* lost = static_cast<volatile char*>(std::malloc(kLeak));
    for (size_t i = 0; i < kLeak; i += kPage) lost[i] = 1;
  } else if (what.starts_with("spin=")) {
    spin(std::strtoull(what.data() + 5, nullptr, 10));
  }
}

}  // namespace

// The linker leads every call of ioctl here (--wrap).
extern "C" int __real_ioctl(int fd, unsigned long request, ...);
extern "C" int __wrap_ioctl(int fd, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  if (request == KVM_REGISTER_COALESCED_MMIO && wanted() == "exits" &&
      static_cast<const kvm_coalesced_mmio_zone*>(argument)->addr == kClockIndex)
    return 0;
  return __real_ioctl(fd, request, argument);
}
