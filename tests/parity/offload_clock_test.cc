// What a step with offload takes when the executor itself carries out its list,
// on a clock that goes on by what each instruction is said to take.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "parallel/executor/emulated_compute.h"
#include "runtime/comm/dry.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/program/instruction_costs.h"
#include "scheduler/simulator/simulator.h"
#include "tests/parity/tiny_job.h"
#include "trainer/rank/rank_model.h"

namespace trireme {
namespace {

constexpr int32_t kBlocks = 24;
constexpr double kForward = 1, kBackward = 2;

// Seconds of a step, as the executor carries it out and as the simulator says.
struct Step {
  double executed_s = 0;
  double simulated_s = 0;
};

// Of so many microbatches, of which a block takes 1 forward and 2 backward, and
// what `unit` says beside them.
Step StepOf(int32_t resident_units, int32_t microbatches, UnitCost unit) {
  unit.forward_s = kForward;
  unit.backward_s = kBackward;
  GridCase grid{
      .dtype = DType::kFloat32, .layers = kBlocks, .batch = microbatches};
  grid.plan = PlanFromText(
      fmt::format("microbatches: {} offload {{ resident_units: {} }}",
                  microbatches, resident_units)
          .c_str());
  CpuDevice device(std::numeric_limits<int64_t>::max(), CpuDevice::Mode::kDry);
  DryWorld world(/*rank=*/0, /*size=*/1);
  const auto model =
      RankModel::Build(SetupOf(grid), PlanOf(grid), device, world);
  CHECK_OK(model.status());
  EmulatedCompute compute(EmulatedCompute::Time::kVirtual);
  // Embedding and head take no time.
  DeviceArithmetic seconds;
  seconds.pieces.resize(ModelPiece(ModelPiece::kBlock).index() + 1);
  seconds.pieces.back() = {.forward_s = kForward, .backward_s = kBackward};
  (*model)->EmulateCompute(seconds, compute);
  for (int block = 0; block < kBlocks; ++block) {
    compute.SetBeside(/*chunk=*/0, block, unit);
  }
  Step step;
  CHECK_OK((*model)->Step((*model)->DryBatch(), {.step = 1}).status());
  step.executed_s = compute.Now();
  CostModel costs;
  ChunkCost chunk;
  chunk.units.assign(kBlocks, unit);
  costs.chunks.push_back({chunk});
  const auto simulation = Simulate((*model)->program(), costs);
  CHECK_OK(simulation.status());
  step.simulated_s = simulation->step_s;
  return step;
}

// 24 blocks take 72 where copies hide: with two places a copy of 0.9 does. One
// of 2 makes the link the bottleneck, and places buy time. The rows with k' = 1
// of the table that reviews of Superpipeline led to; what a microbatch takes
// that finds on the device what the one before it has left.
TEST(OffloadClockTest, AMicrobatchTakesWhatTheModelOfSuperpipelineSays) {
  struct Row {
    int32_t places = 0;
    double copy_s = 0;
    double pass_s = 0;
  };
  for (const auto& [places, copy_s, pass_s] :
       {Row{2, 0.9, 72}, Row{3, 0.9, 72}, Row{4, 0.9, 72}, Row{2, 2, 94},
        Row{8, 2, 82}, Row{16, 2, 72}, Row{1, 0.9, 72 + 2 * 23 * 0.9}}) {
    SCOPED_TRACE(fmt::format("{} places, copies of {} s", places, copy_s));
    const Step two = StepOf(places, 2, {.fetch_s = copy_s});
    const Step three = StepOf(places, 3, {.fetch_s = copy_s});
    EXPECT_NEAR(three.executed_s - two.executed_s, pass_s, 1e-6);
    EXPECT_NEAR(two.executed_s, two.simulated_s, 1e-6);
    EXPECT_NEAR(three.executed_s, three.simulated_s, 1e-6);
  }
}

// One that waits for copies both ways, and for the host's updates.
TEST(OffloadClockTest, AStepOfAnyBottleneckTakesWhatIsPredicted) {
  for (const int32_t microbatches : {1, 2}) {
    for (const double fetch_s : {0.5, 3.0}) {
      for (const double save_s : {0.5, 5.0}) {
        for (const double update_s : {0.5, 4.0}) {
          SCOPED_TRACE(fmt::format("{} microbatches, {} s in, {} s out, {} s",
                                   microbatches, fetch_s, save_s, update_s));
          const Step step = StepOf(/*resident_units=*/2, microbatches,
                                   {.fetch_s = fetch_s,
                                    .save_gradients_s = save_s,
                                    .update_s = update_s});
          EXPECT_NEAR(step.executed_s, step.simulated_s,
                      0.05 * step.simulated_s);
          // No exact step is shorter: T_b + max(T_f, T_A).
          EXPECT_GE(step.executed_s, kBlocks * (microbatches * kBackward +
                                                (microbatches - 1) * kForward +
                                                std::max(kForward, update_s)));
        }
      }
    }
  }
}

}  // namespace
}  // namespace trireme
