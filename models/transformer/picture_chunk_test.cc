// A DiT as a pipeline chunk: which samples a microbatch takes, what it is
// trained on, and how its loss is scaled.

#include "models/transformer/picture_chunk.h"

#include <cmath>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "models/dit/dit.h"
#include "models/objective/rectified_flow.h"
#include "parallel/executor/chunk_pass.h"
#include "parallel/grid/communicators.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/reduction.h"

namespace trireme {
namespace {

using DitChunk = PictureChunk<DitPart>;

constexpr int64_t kSamples = 6;
constexpr int64_t kMicrobatch = 2;

class PictureChunkTest : public testing::Test {
 protected:
  PictureChunkTest() {
    config_.hidden = 16;
    config_.layers = 2;
    config_.heads = 2;
    config_.mlp_hidden = 24;
    config_.classes = 3;
    config_.image = {.channels = 2, .height = 4, .width = 6};
    store_ = std::make_unique<ParameterStore>(device_, DType::kFloat64, 1);
    part_ = std::make_shared<DitPart>(*store_, grid_, config_,
                                      ChunkRequest{.blocks = {0, 2}});
    // A head of zeros predicts zeros whatever it sees.
    const RandomStream random({.seed = 3});
    for (const auto& parameter : store_->parameters()) {
      double* values = parameter->value.data<double>();
      for (int64_t i = 0; i < parameter->value.num_elements(); ++i) {
        values[i] = 0.3 * random.Normal(i);
      }
      parameter->grad =
          Tensor::Zeros(device_, parameter->value.shape(), DType::kFloat64);
    }
    request_.microbatch_size = kMicrobatch;
    batch_.step = 5;
    std::vector<float> pixels(kSamples * 48);
    random.FillNormal(0, pixels);
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < kSamples; ++i) {
      batch_.samples.push_back(40 + i);
      labels.push_back(static_cast<int32_t>(i % 3));
    }
    batch_.fields[kPixelsField].values =
        Tensor::FromValues<float>(device_, {kSamples, 2, 4, 6}, pixels);
    batch_.fields[kLabelField].values =
        Tensor::FromValues<int32_t>(device_, {kSamples}, labels);
  }

  // The loss sum of the samples [begin, end), step by step.
  double ExpectedLoss(int64_t begin, int64_t end) {
    const Batch samples = batch_.Slice(begin, end);
    const ModelInputs noised =
        objective_.Prepare(samples, kPixelsField, DType::kFloat64);
    Tape tape(device_, Tape::Mode::kInference);
    ForwardContext context{tape, parallel_};
    const ShardedVariable prediction = part_->Predict(
        context,
        {.tokens = Patchify(noised.x, 2),
         .sigmas = noised.times,
         .labels = objective_.Condition(samples, kLabelField,
                                        static_cast<int32_t>(config_.classes))},
        Tensor());
    return SquaredErrorSum(prediction.value(), Patchify(noised.target, 2))
        .ToVector<double>()[0];
  }

  // The loss sum of a microbatch; adds its gradients.
  double Train(DitChunk& chunk, int64_t microbatch, double loss_scale = 1) {
    ChunkPass pass(parallel_, chunk, all_resident_, microbatch);
    pass.set_loss_scale(loss_scale);
    pass.Forward({});
    pass.Backward({}, Tape::WeightGradients::kImmediate);
    CHECK_OK(parallel_.status());
    return LossOf(pass);
  }

  static double LossOf(const ChunkPass& pass) {
    CHECK_EQ(pass.losses().size(), size_t{1});
    return Sum(pass.losses()[0].value);
  }

  // Of all parameters, and back to zero.
  double TakeGradientNorm() {
    double squares = 0;
    for (const auto& parameter : store_->parameters()) {
      squares += SumOfSquares(parameter->grad);
      parameter->grad.FillZero();
    }
    return std::sqrt(squares);
  }

  CpuDevice device_{int64_t{1} << 28};
  SingleWorld world_;
  ProcessGrid grid_;
  Communicators communicators_{world_, grid_};
  ParallelContext parallel_{device_, grid_, communicators_};
  AllResident all_resident_;
  DitConfig config_;
  std::unique_ptr<ParameterStore> store_;
  std::shared_ptr<DitPart> part_;
  ChunkRequest request_;
  RectifiedFlowObjective objective_{
      {.condition_drop = 0.5}, /*seed=*/11, /*global_batch=*/4 * kSamples};
  StepInputs inputs_;
  Batch batch_;
};

// A microbatch that took others' samples would train on some twice.
TEST_F(PictureChunkTest, MicrobatchesTakeTheirSamplesInOrder) {
  request_.first_microbatch = 7;
  DitChunk chunk(part_, request_, DType::kFloat64, inputs_);
  inputs_.Set(batch_, objective_);
  for (int64_t i = 0; i < kSamples / kMicrobatch; ++i) {
    EXPECT_NEAR(Train(chunk, 7 + i),
                ExpectedLoss(i * kMicrobatch, (i + 1) * kMicrobatch), 1e-9);
  }
}

// The loss is a mean over the whole job's batch, however it is cut.
TEST_F(PictureChunkTest, LossIsAMeanOverTheGlobalBatch) {
  DitChunk small(part_, request_, DType::kFloat64, inputs_);
  inputs_.Set(batch_, objective_);
  ChunkPass pass(parallel_, small, all_resident_, /*microbatch=*/0);
  pass.Forward({});
  EXPECT_DOUBLE_EQ(pass.losses().at(0).weight,
                   1.0 / (4 * kSamples * 2 * 4 * 6));
  double sum = 0;
  for (int64_t i = 0; i < kSamples / kMicrobatch; ++i) sum += Train(small, i);
  const double norm = TakeGradientNorm();

  request_.microbatch_size = kSamples;
  DitChunk whole(part_, request_, DType::kFloat64, inputs_);
  inputs_.Set(batch_, objective_);
  EXPECT_NEAR(Train(whole, 0), sum, 1e-9);
  EXPECT_NEAR(TakeGradientNorm(), norm, 1e-10 * norm);
}

TEST_F(PictureChunkTest, LossScaleMultipliesGradientsNotTheLoss) {
  DitChunk chunk(part_, request_, DType::kFloat64, inputs_);
  inputs_.Set(batch_, objective_);
  const double loss = Train(chunk, 0);
  const double norm = TakeGradientNorm();
  EXPECT_GT(norm, 0);
  EXPECT_EQ(Train(chunk, 0, /*loss_scale=*/1024), loss);
  EXPECT_DOUBLE_EQ(TakeGradientNorm(), 1024 * norm);
}

// What a stage sends is what the next one expects, and two of them give the
// loss of the whole model.
TEST_F(PictureChunkTest, TwoStagesGiveTheLossOfOne) {
  ParameterStore first_store(device_, DType::kFloat64, 1);
  ParameterStore last_store(device_, DType::kFloat64, 1);
  const ChunkRequest first_request = {.blocks = {0, 1},
                                      .microbatch_size = kMicrobatch};
  const ChunkRequest last_request = {.blocks = {1, 2},
                                     .microbatch_size = kMicrobatch};
  DitChunk first(
      std::make_shared<DitPart>(first_store, grid_, config_, first_request),
      first_request, DType::kFloat64, inputs_);
  DitChunk last(
      std::make_shared<DitPart>(last_store, grid_, config_, last_request),
      last_request, DType::kFloat64, inputs_);
  for (ParameterStore* store : {&first_store, &last_store}) {
    for (const auto& parameter : store->parameters()) {
      for (const auto& of_whole : store_->parameters()) {
        if (of_whole->name == parameter->name) {
          parameter->value.CopyFrom(of_whole->value);
        }
      }
    }
  }
  inputs_.Set(batch_, objective_);
  EXPECT_EQ(first.num_units(), 2);
  EXPECT_TRUE(first.Boundary(0).empty());
  EXPECT_TRUE(last.Boundary(last.num_units()).empty());
  const std::vector<BoundarySpec> sent = first.Boundary(first.num_units());
  const std::vector<BoundarySpec> expected = last.Boundary(0);
  ASSERT_EQ(sent.size(), expected.size());
  for (size_t i = 0; i < sent.size(); ++i) {
    EXPECT_EQ(sent[i].shape, expected[i].shape);
    EXPECT_EQ(sent[i].dtype, expected[i].dtype);
    EXPECT_EQ(sent[i].states, expected[i].states);
  }
  ChunkPass first_pass(parallel_, first, all_resident_, /*microbatch=*/1);
  ChunkPass last_pass(parallel_, last, all_resident_, /*microbatch=*/1);
  EXPECT_TRUE(last_pass.Forward(first_pass.Forward({})).empty());
  CHECK_OK(parallel_.status());
  EXPECT_TRUE(first_pass.losses().empty());
  EXPECT_NEAR(LossOf(last_pass), ExpectedLoss(kMicrobatch, 2 * kMicrobatch),
              1e-9);
}

}  // namespace
}  // namespace trireme
