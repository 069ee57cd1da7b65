#include "runtime/core/stop_signals.h"

#include <csignal>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(StopSignalsTest, TheFirstIsNoted) {
  StopSignals signals;
  EXPECT_EQ(signals.received(), 0);
  std::raise(SIGTERM);
  EXPECT_EQ(signals.received(), SIGTERM);
  std::raise(SIGUSR1);
  EXPECT_EQ(signals.received(), SIGTERM);
}

TEST(StopSignalsDeathTest, ASecondOneEndsTheProcess) {
  EXPECT_EXIT(
      {
        StopSignals signals;
        std::raise(SIGTERM);
        std::raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
}

TEST(StopSignalsDeathTest, WithoutTheObjectSignalsActAsBefore) {
  EXPECT_EXIT(
      {
        { StopSignals signals; }
        std::raise(SIGTERM);
      },
      testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace trireme
