#include "vmm/host/lock_holder.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "vmm/base/unique_fd.h"

namespace snug {
namespace {

bool lock_whole(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

class LockHolder : public testing::Test {
 protected:
  LockHolder() : path_(testing::TempDir() + "/snug-lock-XXXXXX") {
    mine_ = UniqueFd(::mkostemp(path_.data(), O_CLOEXEC));
  }
  ~LockHolder() override { ::unlink(path_.c_str()); }

  std::string path_;
  UniqueFd mine_;
};

TEST_F(LockHolder, NobodyHoldsWhatIsMerelyOpen) {
  const UniqueFd other(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_EQ(lock_holder(mine_.get()), "");
}

TEST_F(LockHolder, IsThisProcess) {
  const UniqueFd other(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(lock_whole(other.get()));
  EXPECT_EQ(lock_holder(mine_.get()), "this one, by another of its disks");
}

TEST_F(LockHolder, IsNamedWithItsCommandLine) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const int fd = ::open(path_.c_str(), O_RDWR);
    const char answer = lock_whole(fd) ? 'y' : 'n';
    if (::write(ready[1], &answer, 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char answer = 0;
  EXPECT_EQ(::read(ready[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  // The test program's own command line: the child has not become another program.
  EXPECT_THAT(lock_holder(mine_.get()),
              testing::AllOf(testing::HasSubstr("unit-host"),
                             testing::HasSubstr("(process " + std::to_string(child))));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
}

}  // namespace
}  // namespace snug
