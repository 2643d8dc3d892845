// A machine's end of the talk with whoever sends it to another place: words come in, JSON goes back, a packet
// each (vmm/control/openapi.json, /v1/send). As long as the other end is there somebody sees to the machine.
//
// Thread: the loop's.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"

namespace snug {

enum class SendWord { kRound, kStandStill, kStay };
// Nothing: there is no such word.
std::optional<SendWord> send_word(std::string_view text);

class SendTalk {
 public:
  struct Events {
    std::function<void(SendWord)> word;
    // Nobody is there any more, or what came is no word: nothing follows. It may destroy this.
    std::function<void()> gone;
  };
  // Errors: `socket` is none that can be waited for.
  static Result<std::unique_ptr<SendTalk>> create(EventLoop& loop, UniqueFd socket, Events events);

  // False: it has not gone out, and the other side waits in vain.
  bool say(std::string_view json);

 private:
  SendTalk(UniqueFd socket, Events events) : socket_(std::move(socket)), events_(std::move(events)) {}
  void on_event();

  UniqueFd socket_;
  Events events_;
  EventLoop::Watch watch_;
};

}  // namespace snug
