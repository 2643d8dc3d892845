#include "vmm/base/assertion.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace snug {
namespace {
std::atomic<void (*)() noexcept> abort_hook = nullptr;
std::atomic<bool> failed = false;
}  // namespace

void assertion_failed(const char* condition, const char* file, int line) noexcept {
  failed = true;
  if (auto* hook = abort_hook.exchange(nullptr)) hook();
  std::fprintf(stderr, "snug: bug: assertion failed: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

bool assertion_has_failed() noexcept { return failed; }

void set_abort_hook(void (*hook)() noexcept) noexcept { abort_hook = hook; }

}  // namespace snug
