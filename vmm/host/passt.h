// The process that connects a guest to the network without privileges: passt, a translator between the
// guest's Ethernet frames and sockets of the host. Frames go over a socket pair, each behind its length.
//
// Thread: the event loop's. The process ends with this object, and by itself when its socket closes, which
// happens however snug ends.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>

#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/spec/spec.h"

namespace snug {

class Passt {
 public:
  // Starts it and does not wait for it. Errors: passt is not installed, cannot be started; a port that is
  // taken already or that this user may not open.
  static Result<Passt> start(const NetSpec& net);
  // It takes some ms, or half a second on a busy host; more than a minute was seen where three guests that
  // booted had one processor.
  static constexpr std::chrono::seconds kReadyPatience{120};
  // Waits until it is at work, its ports open. Before take_socket(), and once. Errors: what it said before
  // it ended; it is silent.
  Result<void> wait_until_ready(const MacAddress& guest);
  Passt(Passt&& other) noexcept;
  Passt& operator=(Passt&&) = delete;
  ~Passt();

  // The guest's end of the frames. Once.
  UniqueFd take_socket() { return std::move(socket_); }
  // Becomes readable when the process has ended.
  int process_fd() const { return process_fd_.get(); }
  // Becomes readable when it says something: then hear(), or it will wait for ever to be heard. False: no
  // more will come.
  int output_fd() const { return output_.get(); }
  bool hear();
  // Ends it, soon.
  void kill();
  // After its end: what it said last and how it ended. For a person.
  std::string last_words();

 private:
  Passt(pid_t pid, UniqueFd process_fd, UniqueFd socket, UniqueFd output)
      : pid_(pid),
        process_fd_(std::move(process_fd)),
        socket_(std::move(socket)),
        output_(std::move(output)) {}

  pid_t pid_ = -1;
  UniqueFd process_fd_;
  UniqueFd socket_;
  UniqueFd output_;
  std::string said_;  // the last lines, one behind the other
};

// Where `name` is on PATH; "" when nowhere.
std::string find_program(const std::string& name);

}  // namespace snug
