// Classic BPF as the kernel runs it for seccomp, as far as our filters use it.
#pragma once

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include <array>
#include <cstring>
#include <span>
#include <stdexcept>

namespace snug::jail {

inline seccomp_data call_of(long number, std::array<uint64_t, 6> arguments = {}) {
  seccomp_data data{};
  data.nr = static_cast<int>(number);
  data.arch = AUDIT_ARCH_X86_64;
  for (size_t i = 0; i < arguments.size(); ++i) data.args[i] = arguments[i];
  return data;
}

// The answer to a call. Throws where the kernel would not take the program.
inline uint32_t evaluate(std::span<const sock_filter> program, const seccomp_data& call) {
  uint32_t value = 0;
  for (size_t at = 0; at < program.size(); ++at) {
    const sock_filter& now = program[at];
    const auto branch = [&](bool taken) { at += taken ? now.jt : now.jf; };
    switch (now.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        if (now.k % 4 != 0 || now.k + 4 > sizeof call) throw std::out_of_range("load");
        std::memcpy(&value, reinterpret_cast<const char*>(&call) + now.k, sizeof value);
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        value &= now.k;
        break;
      case BPF_JMP | BPF_JA:
        at += now.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        branch(value == now.k);
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        branch((value & now.k) != 0);
        break;
      case BPF_RET | BPF_K:
        return now.k;
      default:
        throw std::out_of_range("instruction");
    }
  }
  throw std::out_of_range("behind the end");
}

}  // namespace snug::jail
