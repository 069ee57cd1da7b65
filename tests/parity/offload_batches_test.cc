// A device that exchanges several blocks at once, as Superpipeline is read to
// say: when k' places are free, k' blocks come. Trireme's own lists exchange
// one at a time; here the executor carries out lists of the other kind, on a
// clock that goes on by what each instruction is said to take.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "parallel/executor/emulated_compute.h"
#include "runtime/comm/dry.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/program/validator.h"
#include "tests/parity/offloaded_mlp.h"

namespace trireme {
namespace {

constexpr int32_t kBlocks = 24;
constexpr int32_t kNone = -1;
constexpr double kForward = 1, kBackward = 2, kCopy = 0.9;
constexpr int64_t kLimitBytes = std::numeric_limits<int64_t>::max();

// What a block that has come waits for: its own copy, or all that came with it.
enum class Wait { kOwnCopy, kBatch };

// Writes a step of one microbatch: forward all blocks come, backward those that
// are not there from the forward, in batches of so many as soon as there are as
// many places for them.
class BatchedList {
 public:
  BatchedList(int32_t places, int32_t batch, Wait wait)
      : places_(places), wait_(wait) {
    for (int32_t unit = 0; unit < kBlocks; ++unit) arrivals_.push_back(unit);
    for (int32_t unit = kBlocks - places - 1; unit >= 0; --unit) {
      arrivals_.push_back(unit);
    }
    // The backward's first batch begins with its first block.
    for (const auto& [begin, end] :
         {std::pair(0, kBlocks),
          std::pair(kBlocks, static_cast<int32_t>(arrivals_.size()))}) {
      for (int32_t at = begin; at < end; at += batch) {
        batches_.push_back(std::min(at + batch, end));
      }
    }
  }

  Program Write() {
    Bring();
    for (int32_t unit = 0; unit < kBlocks; ++unit) {
      Compute(InstructionKind::kForward, unit);
      // The last ones begin the backward.
      if (unit < kBlocks - places_) Release(unit);
    }
    std::vector<int32_t> saves;
    for (int32_t unit = kBlocks - 1; unit >= 0; --unit) {
      const size_t made = saves.size();
      const int32_t buffer = made < Offload::kGradientBuffers
                                 ? kNone
                                 : saves[made - Offload::kGradientBuffers];
      const int32_t computed =
          Compute(InstructionKind::kBackward, unit, buffer);
      saves.push_back(Append(
          MakeUnitCopy(InstructionKind::kSaveGradients, Unit{.unit = unit},
                       /*microbatch=*/0),
          {computed}));
      Release(unit);
    }
    std::vector<int32_t> last = saves;
    for (int32_t bucket = 0; bucket < kBlocks; ++bucket) {
      last.push_back(
          Append(MakeBucket(InstructionKind::kReduceGradients, 0, bucket),
                 {saves[bucket], computed_}));
    }
    Append(MakeClipGradients(), std::move(last));
    Program program;
    program.ranks = {std::move(list_)};
    program.stages = {{.rank = 0, .chunk = 0}};
    program.microbatches = 1;
    program.buckets = {kBlocks};
    program.offload = Offload{.units = {kBlocks}, .resident_units = places_};
    return program;
  }

 private:
  int32_t Append(Instruction instruction, std::vector<int32_t> depends_on) {
    for (const int32_t on : depends_on) {
      if (on != kNone) instruction.depends_on.push_back(on);
    }
    list_.push_back(std::move(instruction));
    return static_cast<int32_t>(list_.size()) - 1;
  }

  // Batches for which there are places.
  void Bring() {
    while (next_batch_ < batches_.size() &&
           batches_[next_batch_] <=
               places_ + static_cast<int32_t>(releases_.size())) {
      const int32_t end = batches_[next_batch_++];
      const int32_t begin = arrived_;
      for (; arrived_ < end; ++arrived_) {
        const int32_t unit = arrivals_[arrived_];
        int32_t updated = kNone;
        // All of a batch begin when the last of its places is free.
        const int32_t place =
            arrived_ < places_ ? kNone : releases_[arrived_ - places_];
        const int32_t last =
            end <= places_ ? kNone : releases_[end - places_ - 1];
        if (arrived_ < kBlocks) {
          Instruction update = MakeBucket(InstructionKind::kUpdate, /*chunk=*/0,
                                          kBlocks - 1 - unit);
          update.unit = unit;
          update.resource = Resource::kHost;
          updated = Append(std::move(update), {});
        }
        fetched_[unit] =
            Append(MakeUnitCopy(InstructionKind::kFetch, Unit{.unit = unit}),
                   {updated, place, last});
      }
      if (wait_ == Wait::kOwnCopy) continue;
      for (int32_t at = begin; at < end; ++at) {
        awaited_[arrivals_[at]] = fetched_[arrivals_[end - 1]];
      }
    }
  }

  int32_t Compute(InstructionKind kind, int32_t unit, int32_t buffer = kNone) {
    Instruction compute = MakeCompute(kind, /*microbatch=*/0, /*chunk=*/0);
    compute.unit = unit;
    computed_ = Append(std::move(compute),
                       {computed_, fetched_[unit], awaited_[unit], buffer});
    return computed_;
  }

  void Release(int32_t unit) {
    releases_.push_back(
        Append(MakeUnitCopy(InstructionKind::kRelease, Unit{.unit = unit}),
               {computed_}));
    Bring();
  }

  const int32_t places_;
  const Wait wait_;
  std::vector<int32_t> arrivals_;  // units
  std::vector<int32_t> batches_;   // ends among the arrivals
  size_t next_batch_ = 0;
  int32_t arrived_ = 0;
  std::vector<int32_t> releases_;  // instructions
  std::vector<Instruction> list_;
  // By unit: what brought it, and the last of what came with it.
  std::vector<int32_t> fetched_ = std::vector<int32_t>(kBlocks, kNone);
  std::vector<int32_t> awaited_ = std::vector<int32_t>(kBlocks, kNone);
  int32_t computed_ = kNone;
};

// What a step takes on a device with so many places, and what it copies.
struct Step {
  double seconds = 0;
  CopiedBytes copied;
};

Step StepOf(const Program& program) {
  CpuDevice device(kLimitBytes, CpuDevice::Mode::kDry);
  CpuDevice home(kLimitBytes, CpuDevice::Mode::kDry);
  DryWorld world(/*world_rank=*/0, /*world_size=*/1);
  OffloadedMlp mlp(device, home, world, {.blocks = kBlocks},
                   program.offload->resident_units, /*microbatches=*/1);
  EmulatedCompute compute(EmulatedCompute::Time::kVirtual);
  for (int unit = 0; unit < kBlocks; ++unit) {
    compute.SetUnit(/*chunk=*/0, unit,
                    {.forward = kForward, .backward_input = kBackward});
    compute.SetBeside(/*chunk=*/0, unit, {.fetch_s = kCopy});
  }
  const auto executor = mlp.MakeExecutor(program);
  executor->set_emulated_compute(&compute);
  CHECK_OK(executor->RunStep({.step = 1}).status());
  return {compute.Now(), mlp.copied()};
}

// The rows of the table that reviews of Superpipeline led to: of k places k'
// are exchanged at once, and 72 is what computation alone takes. What comes
// before the first block can compute is not counted.
TEST(OffloadBatchesTest, APassTakesWhatTheModelOfSuperpipelineSays) {
  struct Row {
    int32_t places = 0;
    int32_t batch = 0;
    double own_copy_s = 0;
    double batch_s = 0;
  };
  for (const auto& [places, batch, own_copy_s, batch_s] :
       {Row{2, 1, 72, 72}, Row{3, 2, 72, 80.8}, Row{2, 2, 91.8, 111.6},
        Row{4, 3, 72, 88.1}}) {
    for (const Wait wait : {Wait::kOwnCopy, Wait::kBatch}) {
      const bool own = wait == Wait::kOwnCopy;
      SCOPED_TRACE(fmt::format("{} places, {} at once, {} is awaited", places,
                               batch, own ? "the own copy" : "the batch"));
      const Program program = BatchedList(places, batch, wait).Write();
      ASSERT_TRUE(ValidateProgram(program).ok()) << ValidateProgram(program);
      const Step step = StepOf(program);
      EXPECT_NEAR(step.seconds,
                  (own ? own_copy_s : batch_s) + kCopy * (own ? 1 : batch),
                  1e-6);
      // 2 (N - k), and the first ones.
      const int64_t block = step.copied.to_home / kBlocks;
      EXPECT_EQ(step.copied.to_device, (2 * kBlocks - places) * block);
    }
  }
}

}  // namespace
}  // namespace trireme
