// A folder for copies within this machine, through the client and the real agent.
#pragma once

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/unit/agent/fixture.h"
#include "vmm/agent/copy.h"

namespace snug::test {

enum class Way { kPut, kGet };

class CopyTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "snug-copy-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  // rm knows folders that are deeper than a path is long, and these may be closed.
  void TearDown() override {
    const std::string command = "chmod -R u+rwx " + folder_ + " 2>/dev/null; rm -rf " + folder_;
    EXPECT_EQ(::system(command.c_str()), 0);
  }

  std::string in(const std::string& name) const { return folder_ + "/" + name; }
  void write(const std::string& name, const std::string& content) { std::ofstream(in(name)) << content; }
  std::string read(const std::string& name) const {
    std::ifstream file(in(name));
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  struct stat status(const std::string& name) const {
    struct stat status {};
    EXPECT_EQ(::lstat(in(name).c_str(), &status), 0) << name;
    return status;
  }
  mode_t mode(const std::string& name) const { return status(name).st_mode & 07777; }

  // What one copy came to: "" or its error; and its problems.
  struct Copied {
    std::string error;
    std::vector<std::string> failed, left_out;
    bool all() const { return error.empty() && failed.empty() && left_out.empty(); }
    friend std::ostream& operator<<(std::ostream& out, const Copied& copied) {
      out << "error '" << copied.error << "'";
      for (const auto* list : {&copied.failed, &copied.left_out})
        for (const std::string& text : *list) out << ", " << text;
      return out;
    }
  };
  // Paths as they are, when they are absolute.
  Copied copy(Way way, const std::string& from, const std::string& to, bool owners = false) const {
    Copied copied;
    CopyOptions options;
    options.owners = owners;
    options.on_problem = [&](const protocol::Problem& problem) {
      (problem.left_out ? copied.left_out : copied.failed).push_back(problem.text);
    };
    const auto path = [&](const std::string& name) { return name.starts_with('/') ? name : in(name); };
    const auto done = way == Way::kPut ? copy_to_guest(connect_agent(), path(from), path(to), options)
                                       : copy_from_guest(connect_agent(), path(from), path(to), options);
    if (!done) copied.error = done.error().message;
    return copied;
  }

  std::string folder_;
};

// Each of these is to be so in both directions.
class BothWays : public CopyTest, public testing::WithParamInterface<Way> {
 protected:
  using CopyTest::copy;
  Copied copy(const std::string& from, const std::string& to, bool owners = false) const {
    return CopyTest::copy(GetParam(), from, to, owners);
  }
};

}  // namespace snug::test
