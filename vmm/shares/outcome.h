// What an operation came to: a value, or the errno value that is the guest's answer.
#pragma once

#include <cerrno>
#include <tl/expected.hpp>
#include <utility>

#include "vmm/base/result.h"  // SNUG_TRY

namespace snug {

template <class T = void>
using Outcome = tl::expected<T, int>;

inline tl::unexpected<int> refuse(int error_number) { return tl::unexpected<int>(error_number); }

namespace detail {
template <class T>
T take(Outcome<T>&& outcome) {
  return std::move(*outcome);
}
inline void take(Outcome<>&&) {}
}  // namespace detail

// Of a system call that returns -1 with errno.
inline Outcome<> outcome_of(long result) {
  if (result < 0) return refuse(errno);
  return {};
}

}  // namespace snug
