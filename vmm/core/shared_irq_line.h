// Several sources on one level-triggered line, as INTx of PCI devices are: asserted while any of them asserts
// it.
//
// Thread: input() during set-up, the inputs from any. Must outlive its inputs.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include "vmm/core/interrupt.h"

namespace snug {

class SharedIrqLine {
 public:
  explicit SharedIrqLine(std::unique_ptr<IrqLine> output) : output_(std::move(output)) {}

  std::unique_ptr<IrqLine> input() { return std::make_unique<Input>(*this); }

 private:
  class Input final : public IrqLine {
   public:
    explicit Input(SharedIrqLine& line) : line_(line) {}
    ~Input() override { set(false); }
    void set(bool asserted) override {
      if (asserted == asserted_) return;
      asserted_ = asserted;
      line_.change(asserted ? 1 : -1);
    }

   private:
    SharedIrqLine& line_;
    bool asserted_ = false;
  };

  void change(int by) {
    std::lock_guard lock(mutex_);
    asserting_ += by;
    output_->set(asserting_ > 0);
  }

  std::mutex mutex_;
  int asserting_ = 0;
  std::unique_ptr<IrqLine> output_;
};

}  // namespace snug
