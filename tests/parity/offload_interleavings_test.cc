// A thousand orders of copies and computation, and ten thousand in the full
// matrix (45 s of processor), in one process: small steps on devices whose
// streams overtake one another by a seed, and whose places are NaN, or out of
// reach, while nobody is to use them.

#include <bit>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/asynchronous_cpu_device_testing.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/program/offload_pass.h"
#include "scheduler/program/program_builder.h"
#include "scheduler/schedules/orders.h"
#include "tests/parity/covering.h"
#include "tests/parity/offloaded_mlp.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 40;
constexpr int kBlocks = 4, kMicrobatches = 2;
// Each step of each seed is an order of its own.
constexpr int kSteps = 25;

// By step: the bits of the loss and of the norm of its gradients.
using Record = std::vector<uint64_t>;

// With one place copies and computation take turns, with two they do not.
Program ListOf(int seed) {
  const int places = 1 + seed % 2;
  const bool unit_major = seed % 3 == 0;
  return OffloadUnits(
      BuildProgram(unit_major ? GPipeOrder(1, kMicrobatches)
                              : OneFOneBOrder(1, kMicrobatches),
                   OneStagePerRank(1), kMicrobatches, {kBlocks}),
      places, {.unit_major = unit_major});
}

Record Train(const Program& program, Device& device,
             CommunicatorFactory& world) {
  Record record;
  CpuDevice home(kLimitBytes);
  OffloadedMlp mlp(device, home, world, {.blocks = kBlocks},
                   program.offload->resident_units, kMicrobatches);
  const auto executor = mlp.MakeExecutor(program);
  for (int step = 1; step <= kSteps; ++step) {
    const auto result =
        executor->RunStep({.step = step, .learning_rate = 0.01});
    CHECK_OK(result.status());
    record.push_back(std::bit_cast<uint64_t>(result->losses.at("loss")));
    record.push_back(std::bit_cast<uint64_t>(result->gradient_norm));
  }
  executor->FinishUpdates();
  return record;
}

TEST(OffloadInterleavingsTest, NoneChangesABit) {
  using enum AsynchronousCpuDevice::FreedMemory;
  SingleWorld world;
  // As many kinds of lists as ListOf makes.
  std::vector<Record> expected;
  for (int seed = 0; seed < 6; ++seed) {
    CpuDevice device(kLimitBytes);
    expected.push_back(Train(ListOf(seed), device, world));
  }
  const int seeds = TestsEveryCase() ? 400 : 40;
  for (int seed = 0; seed < seeds; ++seed) {
    AsynchronousCpuDevice device(kLimitBytes, static_cast<uint64_t>(seed),
                                 seed % 7 == 0 ? kProtected : kPoisoned);
    ASSERT_EQ(Train(ListOf(seed), device, world), expected[seed % 6])
        << "seed " << seed;
  }
}

}  // namespace
}  // namespace trireme
