#include "tests/unit/devices/fakes.h"

#include <array>

#include "vmm/base/endian.h"

namespace snug::test {

void FakeIrqLine::set(bool asserted) {
  EXPECT_NE(asserted, level_) << "the line is set to the level it has";
  if (asserted && !level_) edge_ = true;
  level_ = asserted;
}

uint64_t Ports::in(uint64_t port, size_t width) {
  std::array<std::byte, 8> bytes{};
  const auto data = std::span(bytes).first(width);
  bus_.read(port, data);
  return load_le(data);
}

void Ports::out(uint64_t port, uint64_t value, size_t width) {
  std::array<std::byte, 8> bytes{};
  const auto data = std::span(bytes).first(width);
  store_le(data, value);
  bus_.write(port, data);
}

uint64_t Random::next() {
  state_ ^= state_ >> 12;
  state_ ^= state_ << 25;
  state_ ^= state_ >> 27;
  return state_ * 0x2545f4914f6cdd1d;
}

}  // namespace snug::test
