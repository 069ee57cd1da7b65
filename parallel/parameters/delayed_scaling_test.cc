// Scales of FP8 from the steps before: which history gives which scale, that
// ranks agree on it, and what a checkpoint may say of it.

#include "parallel/parameters/delayed_scaling.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <mutex>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"
#include "runtime/ops/float8.h"

namespace trireme {
namespace {

TEST(ExponentWindowTest, ItsLargestIsThatOfTheLastSteps) {
  std::mt19937 random(1);
  for (const int64_t steps : {1, 2, 5, 16}) {
    ExponentWindow window;
    EXPECT_EQ(window.largest(), std::nullopt);
    std::deque<int> last;
    for (int i = 0; i < 300; ++i) {
      last.push_back(static_cast<int>(random() % 9) - 4);
      if (static_cast<int64_t>(last.size()) > steps) last.pop_front();
      window.Push(last.back(), steps);
      ASSERT_EQ(window.largest(), *std::max_element(last.begin(), last.end()));
      ASSERT_TRUE(ExponentWindow::IsWindow(window.entries()));
      // What a checkpoint gives back goes on as if nothing had been.
      window = ExponentWindow(window.entries(), steps);
    }
  }
}

TEST(ExponentWindowTest, WhatIsNoneIsSaid) {
  using Entries = std::vector<ExponentWindow::Entry>;
  EXPECT_TRUE(ExponentWindow::IsWindow({}));
  EXPECT_TRUE(ExponentWindow::IsWindow({{3, 1}, {-2, 1}, {-3, 1024}}));
  for (const Entries& entries :
       {Entries{{3, 0}}, Entries{{3, 1025}}, Entries{{127, 1}},
        Entries{{-127, 1}}, Entries{{3, 1}, {3, 2}}, Entries{{3, 2}, {2, 1}}}) {
    EXPECT_FALSE(ExponentWindow::IsWindow(entries));
  }
}

Parameter LinearWeight(const std::string& name) {
  Parameter parameter;
  parameter.name = name;
  parameter.float8_products = true;
  return parameter;
}

// Two ranks share layer "b"; the second has none of layer "a".
TEST(DelayedScalingTest, AStepsScalesAreWhatTheStepsBeforeNeededAnywhere) {
  constexpr int kRanks = 2;
  std::mutex mutex;
  std::vector<Float8Histories> histories;
  RunThreadRanks(kRanks, [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(int64_t{1} << 20);
    Parameter a = LinearWeight("a"), b = LinearWeight("b");
    Parameter other = LinearWeight("other");
    other.float8_products = false;
    std::vector<Parameter*> parameters = {&other, &b};
    if (rank == 0) parameters.push_back(&a);
    DelayedScaling scaling({.layers = {"*"}, .history = 2, .margin = 1}, device,
                           parameters);
    EXPECT_FALSE(other.float8_delay.active());
    const std::vector<int> everyone = {0, 1};
    const auto world = factory.Create(everyone, "world");
    Control control(*world);
    const auto raise = [&](Parameter& to, Float8Operand operand, float x) {
      const std::vector<float> one = {x};
      RaiseFloat8Needed(Upload<float>(device, {1, 1}, one),
                        to.float8_delay.NeededOf(operand));
    };
    const auto scale = [&](const Parameter& of, Float8Operand operand) {
      return Download<float>(of.float8_delay.ScaleOf(operand))[0];
    };

    // Until there is a history, operands are rounded by rows.
    scaling.BeginStep();
    EXPECT_TRUE(b.float8_delay.active());
    EXPECT_FALSE(
        b.float8_delay.Knows(Float8Operand::kInput, Float8Operand::kWeight));
    raise(b, Float8Operand::kInput, rank == 0 ? 448.0f : -1000.0f);
    raise(b, Float8Operand::kWeight, 1);
    if (rank == 0) raise(a, Float8Operand::kGradient, 448.0f * 0x1p-20f);
    scaling.EndStep(control);

    scaling.BeginStep();
    EXPECT_TRUE(
        b.float8_delay.Knows(Float8Operand::kInput, Float8Operand::kWeight));
    EXPECT_FALSE(
        b.float8_delay.Knows(Float8Operand::kInput, Float8Operand::kGradient));
    // 1,000 takes a scale of 4, the margin another factor of 2.
    EXPECT_EQ(scale(b, Float8Operand::kInput), 8);
    EXPECT_EQ(scale(b, Float8Operand::kWeight), 0x1p-7f);
    if (rank == 0) {
      EXPECT_EQ(scale(a, Float8Operand::kGradient), 0x1p-19f);
    }
    raise(b, Float8Operand::kInput, 1);
    // What is not finite says nothing of steps to come.
    raise(b, Float8Operand::kWeight, std::numeric_limits<float>::infinity());
    scaling.EndStep(control);

    scaling.BeginStep();
    EXPECT_EQ(scale(b, Float8Operand::kInput), 8);
    EXPECT_EQ(scale(b, Float8Operand::kWeight), 0x1p-7f);
    raise(b, Float8Operand::kInput, 1);
    scaling.EndStep(control);

    // Of the last two steps. What nothing came of has what it had.
    scaling.BeginStep();
    EXPECT_EQ(scale(b, Float8Operand::kInput), 0x1p-7f);
    EXPECT_EQ(scale(b, Float8Operand::kWeight), 0x1p-7f);
    if (rank == 0) {
      EXPECT_EQ(scale(a, Float8Operand::kGradient), 0x1p-19f);
    }
    const std::lock_guard lock(mutex);
    histories.push_back(scaling.histories());
  });
  ASSERT_EQ(histories.size(), size_t{kRanks});
  EXPECT_EQ(histories[0], histories[1]);
  EXPECT_EQ(histories[0].size(), 2u);
}

}  // namespace
}  // namespace trireme
