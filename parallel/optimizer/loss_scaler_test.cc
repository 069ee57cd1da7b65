#include "parallel/optimizer/loss_scaler.h"

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(LossScaler, HalvesAfterAsManyOverflowsAsTheHysteresis) {
  LossScaler scaler({.enabled = true, .initial = 8, .hysteresis = 2});
  scaler.Update(false);
  EXPECT_EQ(scaler.state().scale, 8);
  scaler.Update(false);
  EXPECT_EQ(scaler.state().scale, 4);
  scaler.Update(true);
  scaler.Update(false);
  EXPECT_EQ(scaler.state().scale, 4);
  scaler.Update(false);
  EXPECT_EQ(scaler.state().scale, 2);
  EXPECT_EQ(scaler.state().skipped_steps, 4);
}

TEST(LossScaler, DoublesAfterARunOfCleanStepsOnly) {
  LossScaler scaler(
      {.enabled = true, .initial = 4, .growth_interval = 3, .hysteresis = 1});
  scaler.Update(true);
  scaler.Update(true);
  scaler.Update(false);
  EXPECT_EQ(scaler.state().scale, 2);
  for (int i = 0; i < 3; ++i) scaler.Update(true);
  EXPECT_EQ(scaler.state().scale, 4);
}

TEST(LossScaler, StopsAtTheMinimum) {
  LossScaler scaler(
      {.enabled = true, .initial = 2, .hysteresis = 1, .minimum = 1});
  for (int i = 0; i < 5; ++i) scaler.Update(false);
  EXPECT_EQ(scaler.state().scale, 1);
}

TEST(LossScaler, DoesNothingWhereItIsNotEnabled) {
  LossScaler scaler({.enabled = false});
  scaler.Update(false);
  EXPECT_EQ(scaler.state().scale, 1);
  EXPECT_EQ(scaler.state().skipped_steps, 0);
}

}  // namespace
}  // namespace trireme
