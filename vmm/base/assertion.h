// For our own bugs only: never reachable by anything a guest, a file or a person can send.
#pragma once

namespace snug {

// Prints the failed condition with its place, runs the abort hook and aborts.
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line) noexcept;

// Whether that has happened, in any thread: abort() is under way. Async-signal-safe.
bool assertion_has_failed() noexcept;

// Called before abort (the console puts the terminal back here). One hook; nullptr removes it.
// Async-signal-safe functions only.
void set_abort_hook(void (*hook)() noexcept) noexcept;

}  // namespace snug

#define SNUG_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::snug::assertion_failed(#condition, __FILE__, __LINE__))
