// What a launch leaves behind: nothing, also of processes that are stopped or
// whose parent was killed.

#include "runtime/core/processes.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trireme {
namespace {

using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// Waits, for long, until it holds.
template <typename Condition>
bool Eventually(Condition condition) {
  for (int i = 0; i < 1000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

// A child with a child of its own, which is told.
struct Family {
  pid_t child = 0;
  pid_t grandchild = 0;
};

Family Start() {
  std::array<int, 2> pipe_ends{};
  EXPECT_EQ(pipe(pipe_ends.data()), 0);
  Family family;
  family.child = fork();
  if (family.child == 0) {
    const pid_t grandchild = fork();
    if (grandchild != 0) {
      [[maybe_unused]] const ssize_t told =
          write(pipe_ends[1], &grandchild, sizeof(grandchild));
    }
    for (;;) pause();
  }
  EXPECT_EQ(read(pipe_ends[0], &family.grandchild, sizeof(pid_t)),
            static_cast<ssize_t>(sizeof(pid_t)));
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  return family;
}

TEST(ProcessesTest, AnOrphanThatIsStoppedIsFoundAndKilled) {
  AdoptOrphans();
  const Family family = Start();
  EXPECT_THAT(DescendantsOf(getpid()),
              UnorderedElementsAre(family.child, family.grandchild));
  EXPECT_FALSE(IsStopped(family.grandchild));
  kill(family.grandchild, SIGSTOP);
  EXPECT_TRUE(Eventually([&] { return IsStopped(family.grandchild); }));
  kill(family.child, SIGKILL);
  ASSERT_EQ(waitpid(family.child, nullptr, 0), family.child);
  KillDescendants(std::chrono::seconds(20));
  EXPECT_THAT(DescendantsOf(getpid()), IsEmpty());
  EXPECT_NE(kill(family.grandchild, 0), 0);
}

// A launch must not take another program for the one that it looks for.
TEST(ProcessesTest, AProcessIsToldFromOneThatHasItsNumberLater) {
  EXPECT_EQ(StartTicksOf(getpid()), StartTicksOf(getpid()));
  ASSERT_TRUE(StartTicksOf(getpid()).has_value());
  // A tick is a hundredth of a second.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  EXPECT_GT(*StartTicksOf(child), *StartTicksOf(getpid()));
  kill(child, SIGKILL);
  EXPECT_TRUE(Eventually([&] { return !StartTicksOf(child).has_value(); }))
      << "dead, and not waited for yet";
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
}

TEST(ProcessesTest, WhoIsGoneIsNotStopped) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_FALSE(IsStopped(child));
  EXPECT_THAT(DescendantsOf(child), IsEmpty());
}

// Who asks for as many as it needs must not take from others what they have.
TEST(ProcessesTest, OpenFilesAreNeverFewerThanBefore) {
  const int64_t before = AllowOpenFiles(0);
  EXPECT_GT(before, 0);
  EXPECT_EQ(AllowOpenFiles(before - 1), before);
  const int64_t most = AllowOpenFiles(INT64_MAX);
  EXPECT_GE(most, before);
  EXPECT_EQ(AllowOpenFiles(0), most);
}

}  // namespace
}  // namespace trireme
