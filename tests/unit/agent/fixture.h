// A client and the real agent at the two ends of a socket pair: no machine in between. The agent runs in a
// process of its own, as it does in a guest, with the powers over the machine taken away.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>

#include "vmm/agent/exec_session.h"

namespace snug::test {

// A connection to an agent; the process ends with its session.
UniqueFd connect_agent();

// To a command that was kept, once its agent waits there.
UniqueFd connect_kept();

// A pipe that a test reads as a consumer would.
struct Pipe {
  UniqueFd read_end, write_end;
  Pipe();
  std::string read_all();  // once the write end is closed
};

struct Ran {
  ExecEnd end;
  std::string output, errors;
  int status() const { return end.shell_status(); }
};

class AgentTest : public testing::Test {
 protected:
  void SetUp() override;
  // Runs a command to its end, `input` as its input.
  Ran run(const protocol::ExecRequest& request, const std::string& input = "");
  Ran shell(const std::string& line, const std::string& input = "");
  // With streams of the test's own.
  ExecEnd run_on(const protocol::ExecRequest& request, ExecSession::Streams streams);

  std::unique_ptr<EventLoop> loop_;
};

protocol::ExecRequest shell_request(const std::string& line);

}  // namespace snug::test
