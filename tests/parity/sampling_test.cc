// What a model draws does not depend on how many ranks draw it, and takes the
// memory that was predicted.

#include <cmath>
#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/data/field_readers.h"
#include "runtime/comm/single.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan/plan.h"
#include "scheduler/plan/stage_ranks.h"
#include "tests/parity/tiny_job.h"
#include "trainer/sampling/sampler.h"

namespace trireme {
namespace {

// As if trained: no weight is zero, keyed by its name and place.
class RandomTensors final : public TensorSource {
 public:
  absl::Status Check(const std::string&, const Shape&) const override {
    return absl::OkStatus();
  }
  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override {
    const RandomStream stream({.seed = std::hash<std::string>()(name)});
    std::vector<float> noise(values.size());
    stream.FillNormal(begin, noise);
    for (size_t i = 0; i < noise.size(); ++i) values[i] = 0.2 * noise[i];
  }
};

// More than a batch, so that two replicas draw.
constexpr int64_t kSamples = 43;

std::vector<Sample> Prompts(const TrainingSetup& setup) {
  std::vector<Sample> prompts(kSamples);
  for (int64_t i = 0; i < kSamples; ++i) {
    prompts[i].class_id = static_cast<int>(i % setup.family->num_classes());
    for (const FieldSpec& spec : AllFields(*setup.family)) {
      if (spec.name != kTextField) continue;
      prompts[i].text_count = static_cast<int>(spec.shape.dim(0)) - 1;
      prompts[i].text_width = static_cast<int>(spec.shape.dim(1));
      prompts[i].text_tokens.assign(
          prompts[i].text_count * prompts[i].text_width, 0.1F * (i % 7));
    }
  }
  return prompts;
}

std::vector<float> Draw(const TrainingSetup& setup, const Plan& plan) {
  const SamplerOptions options{
      .solver = Solver::kHeun, .steps = 3, .guidance = 2};
  std::vector<float> drawn;
  std::mutex mutex;
  RunThreadRanks(
      static_cast<int>(NumRanks(plan)),
      [&](CommunicatorFactory& factory, int rank) {
        CpuDevice device(int64_t{1} << 40);
        const auto sampler = Sampler::Create(setup, plan, device, factory);
        CHECK_OK(sampler.status());
        CHECK_OK((*sampler)->LoadWeights(RandomTensors()));
        const auto samples = (*sampler)->Draw(options, 7, Prompts(setup));
        CHECK_OK(samples.status());
        const auto predicted =
            Sampler::PredictMemory(setup, plan, rank, options, kSamples);
        CHECK_OK(predicted.status());
        const std::lock_guard lock(mutex);
        EXPECT_EQ(device.Statistics().peak_bytes, predicted->peak_bytes)
            << "rank " << rank;
        if (rank == 0) {
          drawn = *samples;
        } else {
          EXPECT_TRUE(samples->empty());
        }
      });
  return drawn;
}

std::vector<float> Draw(const GridCase& grid) {
  return Draw(SetupOf(grid), PlanOf(grid));
}

class SamplingTest : public testing::TestWithParam<GridCase> {};

TEST_P(SamplingTest, PicturesEqualThoseOfOneRank) {
  const std::vector<float> expected = Draw(OneRank(GetParam()));
  const std::vector<float> found = Draw(GetParam());
  ASSERT_EQ(found.size(), expected.size());
  const bool pipeline_alone =
      GetParam().ranks() == static_cast<int64_t>(GetParam().pp);
  for (size_t i = 0; i < found.size(); ++i) {
    if (pipeline_alone) {
      ASSERT_EQ(found[i], expected[i]) << i;
    } else {
      ASSERT_NEAR(found[i], expected[i], 1e-6 * (1 + std::abs(expected[i])))
          << i;
    }
  }
}

// Of whom no two make a whole replica: each is a stage of its own.
TEST(SkipSamplingTest, StagesOfUnlikeNumbersOfRanksDrawAsOneRankDoes) {
  const GridCase seven_blocks = {.layers = 7};
  const TrainingSetup setup = SetupOf(seven_blocks);
  const auto plan =
      ResolvePlan(PlanFromText("microbatches: 2 skip { stage_ranks: [3, 2, 2] "
                               "  stages_per_microbatch: 2 }"),
                  {.world_size = 7,
                   .global_batch = 12,
                   .num_blocks = 7,
                   .heads = setup.family->Shape().heads});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(Draw(setup, *plan), Draw(OneRank(seven_blocks)));
  // With fewer blocks some ranks would have none.
  Plan fewer = *plan;
  fewer.clear_stages();
  for (int stage = 0; stage < 3; ++stage) fewer.add_stages()->set_blocks(2);
  CpuDevice device(int64_t{1} << 40);
  SingleWorld world;
  EXPECT_NE(MessageOf(Sampler::Create(setup, fewer, device, world).status())
                .find("plan.skip.stage_ranks: found 7 ranks"),
            std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Grids, SamplingTest,
    testing::Values(
        GridCase{.pp = 2}, GridCase{.pp = 3, .layers = 6},
        GridCase{.pp = 2, .plan = PlanFromText("schedule: ZB_V")},
        GridCase{.pp = 2,
                 .layers = 9,
                 .triposg = CrossCondition::Kind::kClass,
                 .plan = PlanFromText("schedule: ZB_V")},
        GridCase{.pp = 2,
                 .layers = 8,
                 .plan = PlanFromText("schedule: INTERLEAVED")},
        GridCase{.tp = 2, .pp = 2, .text = Text::kCross},
        GridCase{.tp = 2,
                 .cp = 2,
                 .text = Text::kJoint,
                 .height = 6,
                 .plan = PlanFromText("sequence_parallel: true")},
        // 12 tokens, of which cp 8 leaves some ranks none.
        GridCase{.cp = 8, .height = 6, .token_set = true},
        GridCase{
            .pp = 2, .dp = 2, .plan = PlanFromText("sharding: PARAMETERS")},
        GridCase{.dp = 2, .plan = PlanFromText("sharding: OPTIMIZER")},
        // Sequences, token by token.
        GridCase{.tp = 2,
                 .pp = 2,
                 .mesh_tokens = true,
                 .plan = PlanFromText("sequence_parallel: true")},
        GridCase{.cp = 2, .height = 6, .mesh_tokens = true},
        GridCase{.dp = 2,
                 .mesh_tokens = true,
                 .plan = PlanFromText("sharding: PARAMETERS")}),
    [](const auto& info) { return info.param.Name(); });

}  // namespace
}  // namespace trireme
