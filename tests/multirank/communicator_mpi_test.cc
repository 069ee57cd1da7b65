// The communicator cases on MPI processes.

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "runtime/comm/mpi/mpi_world.h"
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
  EXPECT_GE((*world)->threads_per_rank(), 1);
}

}  // namespace
}  // namespace trireme
