// The communicator cases on threads, and how mistakes of ranks are reported.

#include <chrono>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/device/cpu_device.h"
#include "tests/multirank/communicator_cases.h"

namespace trireme {
namespace {

using Parameters = std::tuple<CommunicatorCase, int>;

class ThreadCommunicatorTest : public testing::TestWithParam<Parameters> {};

TEST_P(ThreadCommunicatorTest, Holds) {
  const auto& [the_case, ranks] = GetParam();
  RunThreadRanks(ranks, [&run = the_case.run](CommunicatorFactory& factory,
                                              int) { run(factory); });
}

INSTANTIATE_TEST_SUITE_P(
    All, ThreadCommunicatorTest,
    testing::Combine(testing::ValuesIn(CommunicatorCases().begin(),
                                       CommunicatorCases().end()),
                     testing::Values(1, 2, 3, 4)),
    [](const testing::TestParamInfo<Parameters>& info) {
      return std::get<0>(info.param).name +
             std::to_string(std::get<1>(info.param));
    });

void RunPair(void (*body)(Communicator& world, const Tensor& data),
             std::chrono::milliseconds deadline = std::chrono::minutes(1)) {
  RunThreadRanks(
      2,
      [&](CommunicatorFactory& factory, int) {
        const auto world = factory.Create(std::vector{0, 1}, "pair");
        CpuDevice device(1 << 20);
        body(*world, Tensor::Zeros(device, {4}, DType::kFloat32));
      },
      deadline);
}

// A hang without a word is the worst failure of a parallel program.
TEST(ThreadWorldDeathTest, ReportsWhatRanksDisagreeAbout) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(RunPair([](Communicator& world, const Tensor& data) {
                 if (world.rank() == 0) {
                   world.AllReduce(data, ReduceOp::kSum, "gradients").Wait();
                 } else {
                   world.Broadcast(data, 0, "parameters").Wait();
                 }
               }),
               "ranks of 'pair' disagree(.|\n)*"
               "verdict: rank 0 started all-reduce 'gradients', rank 1 "
               "broadcast 'parameters'");
}

TEST(ThreadWorldDeathTest, ReportsARankThatHasReturned) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(RunPair([](Communicator& world, const Tensor& data) {
                 if (world.rank() == 0) return;
                 world.AllReduce(data, ReduceOp::kSum, "gradients").Wait();
               }),
               "rank 1 of 'pair'.* waits in all-reduce 'gradients' for rank"
               "(.|\n)*0 +- +finished(.|\n)*verdict: rank 0 has not started");
}

TEST(ThreadWorldDeathTest, ReportsADeadlock) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      RunPair(
          [](Communicator& world, const Tensor& data) {
            world.Receive(data, 1 - world.rank(), 3, "activation").Wait();
          },
          std::chrono::milliseconds(50)),
      "deadline of 50 ms passed.*receive 'activation'(.|\n)*"
      "verdict: ranks wait for one another in a circle: 0 in receive");
}

}  // namespace
}  // namespace trireme
