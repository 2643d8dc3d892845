// A command in the guest, as its client sees it: the request, its streams, signals and end, over a connection
// to the guest's agent. What the agent sends is the guest's: every frame of it may be anything.
//
// Thread: the loop's.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "vmm/agent/stream_end.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/event_loop.h"
#include "vmm/protocol/messages.h"

namespace snug {

struct ExecEnd {
  enum class Kind {
    kEnded,    // the command ran: status says how it ended
    kRefused,  // the agent could not start it: error says why
    kLost,     // nothing is known of its end: error.text says why
  };
  Kind kind = Kind::kLost;
  protocol::ExitStatus status;
  protocol::ErrorMessage error;
  // Of one that ended: why not all of its input was read, or not all that it printed was written; "" when all
  // was. One whose reader has gone away (EPIPE) was not wanted any more.
  std::string stream_error;
  // What a command's caller gets: its own status, 128+N, 125 to 127. A success that lost something is 125.
  int shell_status() const;
};

// Requests that come before the command, on its connection: the command does not begin unless they are done.
struct ExecBefore {
  std::string frames;    // "": none
  size_t answers = 0;    // so many of `done` answer them
  uint16_t version = 0;  // that the agent has to speak
  // They are done, or why not: the session is over then, this takes the place of ended(), and the session may
  // be destroyed.
  std::function<void(const Result<void>&)> done;
};

class ExecSession {
 public:
  struct Streams {
    UniqueFd input;   // none: the command's input is at its end
    UniqueFd output;  // none: thrown away
    UniqueFd errors;
  };
  struct Events {
    std::function<void()> started;
    std::function<void(ExecEnd)> ended;  // once, the outputs written; the session may be destroyed then
    // What is read of the input, ahead of the guest; may be empty.
    std::function<void(std::string_view)> input;
    // What the command prints, by its channel, as it comes and whether or not somebody takes it; may be
    // empty.
    std::function<void(uint8_t channel, std::string_view)> output;
  };

  // Until the command has started.
  static constexpr std::chrono::milliseconds kPatience = std::chrono::seconds(30);

  // `connection`: a stream to the agent. Errors: a command that is too long.
  static Result<std::unique_ptr<ExecSession>> start(EventLoop& loop, UniqueFd connection,
                                                    const protocol::ExecRequest& request, Streams streams,
                                                    Events events,
                                                    std::chrono::milliseconds patience = kPatience,
                                                    ExecBefore before = {});
  // In the place of start(): the command that was kept goes on. `connection`: a stream to the port where it
  // is.
  static Result<std::unique_ptr<ExecSession>> take_up(EventLoop& loop, UniqueFd connection, Streams streams,
                                                      Events events);
  ~ExecSession();

  bool started() const { return state_ == State::kRunning; }
  void signal(int number);
  // The command outlives this session, for take_up(). Nothing happens with an agent that cannot keep it.
  void keep();
  void resize(protocol::WindowSize size);
  // Ends it from this side: `why` is what ended() tells.
  void abandon(const std::string& why);

 private:
  enum class State { kGreeting, kBefore, kStarting, kRunning, kOver };
  struct Output {
    std::unique_ptr<OutputEnd> end;
    protocol::ReceiveWindow window;
    bool ended = false;  // by the agent
  };

  ExecSession(EventLoop& loop, Events events) : loop_(loop), events_(std::move(events)) {}
  Result<void> begin(UniqueFd connection, Streams streams, std::chrono::milliseconds patience);
  void open_streams(Streams streams);
  void on_connection(uint32_t epoll_events);
  bool receive();
  bool take_frame(const protocol::Frame& frame);
  bool take_greeting(const protocol::Frame& frame);
  bool take_answer(const protocol::Frame& frame);
  bool take_running_frame(const protocol::Frame& frame);
  bool take_output(const protocol::Frame& frame);
  void consume(uint8_t channel, size_t count);
  void send();
  void update_watch();
  size_t input_room() const;
  bool lose(const std::string& why);
  void fail_stream(const char* name, int error);
  void maybe_end();
  Output* output_of(uint8_t channel);

  EventLoop& loop_;
  Events events_;
  ExecBefore before_;  // its done() is none once they are
  State state_ = State::kGreeting;
  uint16_t version_ = 0;  // that the agent speaks
  bool gone_ = false;     // the connection
  UniqueFd connection_;
  std::string request_;  // sent when the agent has greeted
  std::string out_;
  protocol::FrameReader reader_;
  protocol::SendWindow input_window_;
  std::array<Output, 2> outputs_;  // kOutput, kErrors
  std::unique_ptr<InputEnd> input_;
  std::optional<ExecEnd> end_;
  std::string stream_error_;
  bool told_ = false;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  EventLoop::Timer patience_;
  EventLoop::Watch watch_;
};

}  // namespace snug
