// The loss of held-out samples of several sizes, or of unlike numbers of
// tokens, does not depend on the grid, nor on how many a batch has, and takes
// the memory that was predicted.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "models/data/bucketed_dataset.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "tests/parity/tiny_job.h"
#include "trainer/evaluation/validation.h"
#include "trainer/rank/rank_model.h"

namespace trireme {
namespace {

constexpr int64_t kSteps = 2;
constexpr int64_t kMeasured = 17;
// Of as many samples: eleven of the first size, seven and five of the others.
constexpr int64_t kHeights[] = {8, 8, 6, 4, 8, 6, 8, 4, 8, 6, 8, 6,
                                8, 4, 8, 6, 8, 4, 8, 6, 8, 4, 6};

// Latents of random means, drawn anew by whoever reads them.
class SizedLatents final : public Dataset {
 public:
  // `alike`: all of the first size.
  SizedLatents(const PictureSize& first, int64_t channels, bool alike)
      : first_(first), channels_(channels), alike_(alike) {}

  int64_t size() const override { return std::size(kHeights); }
  int64_t num_classes() const override { return 10; }
  std::string class_name(int64_t class_id) const override {
    return std::to_string(class_id);
  }
  absl::StatusOr<Sample> ReadParts(int64_t index,
                                   const SampleParts& parts) const override {
    Sample sample;
    sample.class_id = static_cast<int>(index % 10);
    sample.text_count = static_cast<int>(index % 4);
    sample.text_width = 6;
    sample.text_tokens.assign(sample.text_count * 6, 0.1F * index);
    if (!parts.image) return sample;
    sample.latents.size = {alike_ ? first_.height : kHeights[index],
                           first_.width};
    const int64_t elements = channels_ * sample.latents.size.pixels();
    sample.latents.mean.resize(elements);
    sample.latents.deviation.assign(elements, 0.5F);
    RandomStream({.seed = 5, .sample = static_cast<uint64_t>(index)})
        .FillNormal(0, std::span(sample.latents.mean));
    return sample;
  }

 private:
  PictureSize first_;
  int64_t channels_;
  bool alike_;
};

// Voxels, and sequences of tokens, as many as the model has at most or fewer.
class UnlikeSamples final : public Dataset {
 public:
  explicit UnlikeSamples(const ModelFamily& family)
      : samples_(family.samples()), grammar_(family.grammar()) {}

  int64_t size() const override { return std::size(kHeights); }
  int64_t num_classes() const override { return 10; }
  std::string class_name(int64_t class_id) const override {
    return std::to_string(class_id);
  }
  absl::StatusOr<Sample> ReadParts(
      int64_t index, const SampleParts& /*parts*/) const override {
    const int64_t most = samples_.shape.dim(0);
    const int64_t count = 1 + index * 7 % most;
    Sample sample;
    sample.class_id = static_cast<int>(index % 10);
    if (grammar_ != nullptr) {
      for (int64_t i = 1; i < count; ++i) {
        sample.mesh_tokens.push_back(static_cast<int32_t>(
            (i * i + index) % std::min<int64_t>(grammar_->vocabulary(), 4)));
      }
      sample.mesh_tokens.push_back(grammar_->end());
      return sample;
    }
    for (int64_t i = 0; i < count; ++i) {
      for (const int64_t place : {i % 16, index % 8, i / 16}) {
        sample.voxels.push_back(static_cast<int32_t>(place));
      }
    }
    sample.token_set.resize(count * samples_.shape.dim(1));
    RandomStream({.seed = 5, .sample = static_cast<uint64_t>(index)})
        .FillNormal(0, std::span(sample.token_set));
    return sample;
  }

 private:
  FieldSpec samples_;
  const TokenGrammar* grammar_;
};

std::unique_ptr<Dataset> HeldOut(const TrainingSetup& setup) {
  const Shape shape = setup.family->samples().shape;
  if (setup.family->classifies()) {
    return std::make_unique<SizedLatents>(
        PictureSize{shape.dim(1), shape.dim(2)}, shape.dim(0), /*alike=*/true);
  }
  if (setup.buckets.empty()) {
    return std::make_unique<UnlikeSamples>(*setup.family);
  }
  std::vector<PictureSize> sizes;
  for (const SizedFamily& sized : setup.buckets) sizes.push_back(sized.size);
  auto dataset =
      PutIntoBuckets(std::make_unique<SizedLatents>(sizes.front(), shape.dim(0),
                                                    /*alike=*/false),
                     sizes, SmallerPictures::kRefuse);
  CHECK_OK(dataset.status());
  return *std::move(dataset);
}

// Of the model after `steps` of training.
Measured Measure(const GridCase& grid, int64_t steps) {
  const TrainingSetup setup = SetupOf(grid);
  const Plan plan = PlanOf(grid);
  const BatchSource source = RandomBatches(setup);
  const std::unique_ptr<Dataset> held_out = HeldOut(setup);
  Job job;
  job.mutable_validation()->set_samples(kMeasured);
  job.mutable_data()->set_decode_threads(1);
  std::mutex mutex;
  Measured found;
  RunThreadRanks(
      static_cast<int>(grid.ranks()),
      [&](CommunicatorFactory& factory, int rank) {
        CpuDevice device(int64_t{1} << 40);
        Validation validation(*held_out, job, setup);
        auto built = RankModel::Build(
            setup, plan, device, factory, RankModel::kNoLimit,
            [&](RankModel& dry) { return validation.Rehearse(dry); });
        CHECK_OK(built.status());
        RankModel& model = **built;
        validation.Begin(model);
        for (int64_t step = 1; step <= steps; ++step) {
          const auto batch =
              source(device, step, model.first_sample(), model.local_batch());
          CHECK_OK(batch.status());
          CHECK_OK(model.Step(*batch, {.step = step, .learning_rate = 2e-3})
                       .status());
        }
        const auto loss = validation.Measure();
        CHECK_OK(loss.status());
        // The same a second time.
        const auto again = validation.Measure();
        CHECK_OK(again.status());
        EXPECT_EQ(again->loss, loss->loss);
        const std::lock_guard lock(mutex);
        if (grid.pp == 1) {
          EXPECT_LE(
              static_cast<double>(device.Statistics().peak_bytes),
              1.01 * static_cast<double>(model.predicted_memory().peak_bytes))
              << "rank " << rank;
        }
        if (rank == 0) found = *loss;
      });
  return found;
}

void ExpectNear(const Measured& found, const Measured& expected,
                double tolerance) {
  EXPECT_NEAR(found.loss, expected.loss, tolerance * expected.loss);
  ASSERT_EQ(found.by_size.size(), expected.by_size.size());
  for (size_t i = 0; i < found.by_size.size(); ++i) {
    EXPECT_EQ(found.by_size[i].size, expected.by_size[i].size);
    EXPECT_EQ(found.by_size[i].samples, expected.by_size[i].samples);
    EXPECT_NEAR(found.by_size[i].loss, expected.by_size[i].loss,
                tolerance * expected.by_size[i].loss);
  }
}

GridCase Sized(GridCase grid, const char* plan = "") {
  grid.plan = PlanFromText(plan);
  grid.other_heights = {6, 4};
  grid.layers = 3;
  grid.single_layers = 1;
  return grid;
}

class ValidationParityTest : public testing::TestWithParam<GridCase> {};

TEST_P(ValidationParityTest, LossesOfEachSizeEqualThoseOfOneRank) {
  const GridCase grid = GetParam();
  // Samples are rounded to fp32 on their way.
  ExpectNear(Measure(grid, kSteps), Measure(OneRank(grid), kSteps), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(
    Grids, ValidationParityTest,
    testing::Values(
        Sized({.tp = 2, .positions = Dit::SINCOS}, "sequence_parallel: true"),
        Sized({.pp = 3, .dp = 2}, "sharding: PARAMETERS"),
        Sized({.cp = 2, .dp = 2}),
        Sized({.pp = 2}, "offload { resident_units: 1 }"),
        GridCase{.tp = 2,
                 .dp = 2,
                 .layers = 2,
                 .sparse_dit = CrossCondition::Kind::kClass},
        GridCase{.cp = 2,
                 .pp = 2,
                 .layers = 2,
                 .sparse_dit = CrossCondition::Kind::kClass},
        GridCase{.cp = 2, .dp = 2, .layers = 2, .mesh_tokens = true},
        GridCase{.tp = 2, .pp = 2, .layers = 2, .mesh_tokens = true}),
    [](const auto& info) { return info.param.Name(); });

// What fills a batch up counts for nothing, and noise is a sample's own.
TEST(ValidationTest, AnotherBatchMeasuresTheSame) {
  const Measured expected = Measure(Sized({}), 0);
  EXPECT_EQ(expected.by_size.size(), 3u);
  double sum = 0;
  int64_t samples = 0;
  for (const Measured::OfSize& sized : expected.by_size) {
    EXPECT_GT(sized.loss, 0);
    EXPECT_GE(sized.samples, 3);
    sum += sized.loss * static_cast<double>(sized.samples);
    samples += sized.samples;
  }
  EXPECT_EQ(samples, kMeasured);
  EXPECT_NEAR(expected.loss, sum / kMeasured, 1e-12 * expected.loss);
  for (const int64_t batch : {1, 2, 16}) {
    ExpectNear(Measure(Sized({.batch = batch}), 0), expected, 1e-9);
  }
}

// Branches are left out of samples that train, of no others.
TEST(ValidationTest, NothingIsLeftOutOfHeldOutSamples) {
  GridCase grid{.batch = 4, .swin = true};
  const Measured expected = Measure(grid, 0);
  grid.drop_path = 0.5;
  EXPECT_EQ(Measure(grid, 0).loss, expected.loss);
}

// A mean of the means of batches would let a short sample count for more in one
// batch than in another.
TEST(ValidationTest, AnotherBatchOfUnlikeSamplesMeasuresTheSame) {
  GridCase voxels{.layers = 2, .sparse_dit = CrossCondition::Kind::kClass};
  GridCase meshes{.layers = 2, .mesh_tokens = true};
  for (GridCase* const grid : {&voxels, &meshes}) {
    const Measured expected = Measure(*grid, 0);
    EXPECT_GT(expected.counted, kMeasured);
    for (const int64_t batch : {1, 2, 16}) {
      grid->batch = batch;
      const Measured found = Measure(*grid, 0);
      EXPECT_EQ(found.counted, expected.counted);
      EXPECT_NEAR(found.loss, expected.loss, 1e-9 * expected.loss) << batch;
    }
  }
}

}  // namespace
}  // namespace trireme
