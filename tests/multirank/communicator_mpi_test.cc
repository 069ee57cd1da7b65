// The communicator cases on MPI processes.

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/device/cpu_device.h"
#include "tests/multirank/communicator_cases.h"

namespace trireme {
namespace {

class MpiCommunicatorTest : public testing::TestWithParam<CommunicatorCase> {};

TEST_P(MpiCommunicatorTest, Holds) {
  auto world = MpiWorld::Create(nullptr, nullptr);
  ASSERT_TRUE(world.ok()) << world.status();
  GetParam().run(**world);
}

INSTANTIATE_TEST_SUITE_P(
    All, MpiCommunicatorTest,
    testing::ValuesIn(CommunicatorCases().begin(), CommunicatorCases().end()),
    [](const testing::TestParamInfo<CommunicatorCase>& info) {
      return std::string(info.param.name);
    });

TEST(MpiWorldTest, KnowsItsMachine) {
  auto world = MpiWorld::Create(nullptr, nullptr);
  ASSERT_TRUE(world.ok()) << world.status();
  EXPECT_EQ((*world)->local_size(), (*world)->world_size());
  EXPECT_EQ((*world)->local_rank(), (*world)->world_rank());
  EXPECT_GE((*world)->processor_share().threads, 1);
}

// Else the tests of pipelines without buffers would prove nothing.
TEST(MpiWorldTest, SynchronousSendsWaitForTheirReceive) {
  auto world = MpiWorld::Create(nullptr, nullptr, {.synchronous_sends = true});
  ASSERT_TRUE(world.ok()) << world.status();
  CpuDevice device(1 << 20);
  const Tensor data = Tensor::Zeros(device, {1}, DType::kFloat32);
  std::vector<int> everyone;
  for (int rank = 0; rank < (*world)->world_size(); ++rank) {
    everyone.push_back(rank);
  }
  const auto communicator =
      (*world)->Create(everyone, "world", Progress::kWhileWaiting);
  Event sent;
  if (communicator->rank() == 0) {
    sent = communicator->Send(data, 1, 0, "small");
    for (int i = 0; i < 100; ++i) ASSERT_FALSE(sent.Test());
  }
  communicator->Barrier("before the receive");
  if (communicator->rank() == 1) {
    communicator->Receive(data, 0, 0, "small").Wait();
  }
  sent.Wait();
}

}  // namespace
}  // namespace trireme
