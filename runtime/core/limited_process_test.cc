#include "runtime/core/limited_process.h"

#include <unistd.h>

#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

TEST(LimitedProcessTest, WhatTheWorkReturnsOrFailsWithComesBack) {
  std::string large(1 << 20, 'x');
  const auto result =
      RunLimited([&]() -> absl::StatusOr<std::string> { return large; }, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(*result, large);
  const auto failed = RunLimited(
      []() -> absl::StatusOr<std::string> {
        return InvalidArgument("line {}: a hole", 7);
      },
      {});
  EXPECT_EQ(failed.status(), InvalidArgument("line 7: a hole"));
}

TEST(LimitedProcessTest, ACrashIsAnErrorThatNamesTheSignal) {
  const auto result = RunLimited(
      []() -> absl::StatusOr<std::string> {
        std::raise(SIGSEGV);
        return "";
      },
      {});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(MessageOf(result.status()).find("Segmentation fault"),
            std::string::npos)
      << result.status();
}

// Nothing of the input's is at fault: another try may go well.
TEST(LimitedProcessTest, AnEndByOthersIsNoCrash) {
  for (const int signal : {SIGKILL, SIGTERM, SIGINT}) {
    const auto result = RunLimited(
        [signal]() -> absl::StatusOr<std::string> {
          std::raise(signal);
          return "";
        },
        {});
    EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable)
        << result.status();
  }
}

TEST(LimitedProcessTest, WorkThatClosesItsPipeAndStaysIsEnded) {
  const auto result = RunLimited(
      []() -> absl::StatusOr<std::string> {
        for (int descriptor = 3; descriptor < 256; ++descriptor) {
          close(descriptor);
        }
        while (true) pause();
      },
      {.seconds = 0.2});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted)
      << result.status();
}

// Threads reach the limit of processor time before that of wall time.
TEST(LimitedProcessTest, ProcessorTimeIsNamedAsALimit) {
  const auto result = RunLimited(
      []() -> absl::StatusOr<std::string> {
        const auto spin = [] {
          for (volatile bool forever = true; forever;) {
          }
        };
        std::thread other(spin);
        std::thread another(spin);
        spin();
        return "";
      },
      {.seconds = 1});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted)
      << result.status();
}

TEST(LimitedProcessTest, WorkThatNeverEndsIsEnded) {
  for (const bool spins : {false, true}) {
    const auto result = RunLimited(
        [spins]() -> absl::StatusOr<std::string> {
          while (!spins) pause();
          for (volatile bool forever = true; forever;) {
          }
          return "";
        },
        {.seconds = 0.2});
    EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
  }
}

TEST(LimitedProcessTest, MemoryAndResultsAreBounded) {
  const auto hungry = RunLimited(
      []() -> absl::StatusOr<std::string> {
        const std::vector<char> large(int64_t{1} << 30, 1);
        return std::string(1, large.back());
      },
      {.memory_bytes = 1 << 28});
  EXPECT_FALSE(hungry.ok());
  const auto talkative = RunLimited(
      []() -> absl::StatusOr<std::string> { return std::string(2000, 'x'); },
      {.max_result_bytes = 1000});
  EXPECT_EQ(talkative.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(LimitedProcessTest, ThreadsMayRunWorkAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 20; ++i) {
        const auto result = RunLimited(
            [&]() -> absl::StatusOr<std::string> { return std::to_string(t); },
            {});
        EXPECT_EQ(result.value_or("nothing"), std::to_string(t));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace trireme
