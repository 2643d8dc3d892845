// The UART under any sequence of register accesses and console input. An operation is one byte, its low two
// bits the kind: 0 write a register, 1 read one (bits 2-4: which), 2 input of as many bytes as bits 2-7 say,
// 3 a wide access or a reset.
#include <array>

#include "devices/legacy/serial.h"
#include "tests/fuzz/devices/input.h"

namespace snug::fuzz {
namespace {

class Line final : public IrqLine {
 public:
  void set(bool asserted) override {
    FUZZ_CHECK(asserted != level);
    level = asserted;
  }
  bool level = false;
};

class Output final : public SerialOutput {
 public:
  void transmit(std::span<const std::byte> bytes) override { count += bytes.size(); }
  uint64_t count = 0;
};

class Harness {
 public:
  Harness() {
    serial_.on_input_space([this] {
      FUZZ_CHECK(refused_);
      refused_ = false;
    });
    serial_.on_opened([this] { ++opened_; });
  }

  void run(Input& input) {
    while (!input.empty()) {
      step(input);
      check();
    }
  }

 private:
  void step(Input& input) {
    const uint8_t op = input.take8();
    const unsigned reg = (op >> 2) & 7;
    std::array<std::byte, 8> bytes{};
    switch (op & 3) {
      case 0: {
        const auto value = std::byte{input.take8()};
        serial_.write(reg, {&value, 1});
        break;
      }
      case 1:
        serial_.read(reg, std::span(bytes).first(1));
        break;
      case 2: {
        const auto offered = input.take_bytes(op >> 2);
        const size_t taken = serial_.receive(offered);
        FUZZ_CHECK(taken <= offered.size());
        if (taken < offered.size()) refused_ = true;
        break;
      }
      default:
        if ((op & 0x80) == 0) {
          serial_.read(reg, std::span(bytes).first(8 - reg));
        } else if (op != 0xff) {
          const auto data = input.take_bytes(8 - reg);
          serial_.write(reg, data);
        } else {
          serial_.reset();
          opened_ = 0;
        }
        break;
    }
  }

  void check() {
    const SerialState& state = serial_.state();
    FUZZ_CHECK(state.rx_count <= (state.fifo_enabled ? SerialState::kFifoSize : 1));
    FUZZ_CHECK(state.rx_head < SerialState::kFifoSize);
    FUZZ_CHECK(output_.count == serial_.stats().bytes_out);
    FUZZ_CHECK(opened_ == (serial_.opened() ? 1u : 0u));
    const bool loopback = (state.mcr & 0x10) != 0;
    // The pump that was refused hears of it as soon as there is room.
    FUZZ_CHECK(!refused_ || state.rx_count > 0 || loopback);
    // Table IV of the data sheet, in one expression.
    const bool pending =
        ((state.ier & 4) != 0 && state.overrun) || ((state.ier & 1) != 0 && state.rx_count > 0) ||
        ((state.ier & 2) != 0 && state.tx_empty_pending) || ((state.ier & 8) != 0 && state.msr_delta != 0);
    FUZZ_CHECK(line_.level == (pending && (state.mcr & 0x08) != 0 && !loopback));
  }

  Line line_;
  Output output_;
  Serial serial_{line_, output_};
  bool refused_ = false;
  unsigned opened_ = 0;
};

}  // namespace
}  // namespace snug::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  snug::fuzz::Input input(data, size);
  snug::fuzz::Harness().run(input);
  return 0;
}
