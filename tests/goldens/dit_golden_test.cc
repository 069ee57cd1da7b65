// A tiny DiT on one rank against the same in PyTorch, from dit.safetensors
// (see generate_dit.py): prediction, loss and the gradient of every parameter.

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/dit/dit.h"
#include "parallel/layers/functional.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/pointwise.h"
#include "tests/goldens/golden_file_testing.h"
#include "tests/goldens/golden_rank_testing.h"
#include "tests/goldens/golden_training_testing.h"

namespace trireme {
namespace {

constexpr char kFile[] = "tests/goldens/dit.safetensors";

struct Variant {
  std::string name;
  Dit::Positions positions = Dit::ROPE;
  bool qk_norm = true;
  int64_t text_tokens = 0;
  Dit::TextAttention text_attention = Dit::CROSS;
  bool set = false;
};

// As generate_dit.py has them.
const Variant kVariants[] = {
    {.name = "class"},
    {.name = "sincos", .positions = Dit::SINCOS, .qk_norm = false},
    {.name = "set", .positions = Dit::NONE, .set = true},
    {.name = "cross", .text_tokens = 4},
    {.name = "joint", .text_tokens = 4, .text_attention = Dit::JOINT}};

DitConfig ConfigOf(const Variant& variant) {
  DitConfig config;
  config.hidden = 16;
  config.layers = 2;
  config.heads = 2;
  config.mlp_hidden = 20;
  config.classes = 5;
  config.image = {.channels = 2, .height = 4, .width = 6};
  if (variant.set) config.set = {.tokens = 6, .channels = 8};
  config.positions = variant.positions;
  config.qk_norm = variant.qk_norm;
  config.text_tokens = variant.text_tokens;
  config.text_width = 6;
  config.text_attention = variant.text_attention;
  return config;
}

// Of the element, and of the largest of its tensor: elements are sums whose
// terms may cancel. The file itself is rounded to fp32.
struct Tolerance {
  double relative;
  double of_largest;
};

Tolerance ToleranceOf(DType dtype) {
  return dtype == DType::kFloat64 ? Tolerance{1e-7, 1e-9}
                                  : Tolerance{1e-5, 5e-6};
}

class DitGolden : public testing::TestWithParam<DType> {
 protected:
  DitGolden() {
    auto file = SafetensorsFile::Open(kFile);
    CHECK_OK(file.status());
    file_ = *std::move(file);
  }

  Tensor Golden(const std::string& name) {
    auto tensor = ReadTensor(*file_, name, device_);
    CHECK_OK(tensor.status());
    return *std::move(tensor);
  }

  Tensor Input(const std::string& name) {
    return Cast(Golden("inputs." + name), GetParam());
  }

  void ExpectGolden(const Tensor& got, const std::string& name) {
    const Tensor golden = Golden(name);
    ASSERT_EQ(got.num_elements(), golden.num_elements()) << name;
    ASSERT_EQ(got.dtype(), GetParam()) << name;
    const std::vector<double> values = Doubles(got), expected = Doubles(golden);
    double largest = 0;
    for (const double value : expected) {
      largest = std::max(largest, std::abs(value));
    }
    const Tolerance tolerance = ToleranceOf(GetParam());
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(values[i], expected[i],
                  tolerance.relative * std::abs(expected[i]) +
                      tolerance.of_largest * largest)
          << name << ", element " << i << " of " << golden.shape();
    }
  }

  CpuDevice device_{int64_t{1} << 28};
  std::unique_ptr<SafetensorsFile> file_;
};

// A model that differs from the published one in one place still trains; only
// a second implementation tells.
TEST_P(DitGolden, PredictionLossAndEveryGradient) {
  const DType dtype = GetParam();
  for (const Variant& variant : kVariants) {
    SCOPED_TRACE(variant.name);
    const DitConfig config = ConfigOf(variant);
    SingleWorld world;
    const ProcessGrid grid;
    Communicators communicators(world, grid);
    ParallelContext parallel(device_, grid, communicators);
    ParameterStore store(device_, dtype, /*seed=*/0);
    const DitPart part(store, grid, config, {.blocks = {0, config.layers}});
    for (const auto& parameter : store.parameters()) {
      const Tensor weight = Golden("weights." + parameter->name);
      ASSERT_EQ(weight.shape(), parameter->global_shape) << parameter->name;
      parameter->value.CopyFrom(Cast(weight, dtype));
      parameter->grad = Tensor::Zeros(device_, weight.shape(), dtype);
    }

    DitInputs inputs{.tokens = Input("tokens"),
                     .sigmas = Input("sigmas"),
                     .labels = Golden("inputs.labels")};
    Tensor text_counts;
    if (config.text_tokens > 0) {
      inputs.text = Input("text");
      text_counts = Golden("inputs.text_counts");
    }
    Tape tape(device_);
    ForwardContext context{tape, parallel};
    const ShardedVariable prediction =
        part.Predict(context, inputs, text_counts);
    ExpectGolden(prediction.value(), variant.name + ".y");

    const Tensor target = Input("target");
    const double factor = 1.0 / static_cast<double>(target.num_elements());
    const ShardedVariable loss = SquaredErrorLoss(context, prediction, target);
    ExpectGolden(Scale(loss.value(), factor), variant.name + ".loss");
    CHECK_OK(parallel.status());

    AddLoss(context, loss, factor, "loss");
    tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
    std::set<std::string> compared;
    for (const auto& parameter : store.parameters()) {
      const std::string name = variant.name + ".grad." + parameter->name;
      ExpectGolden(parameter->grad, name);
      compared.insert(name);
    }
    for (const auto& [name, entry] : file_->tensors()) {
      if (name.rfind(variant.name + ".grad.", 0) == 0) {
        EXPECT_EQ(compared.count(name), 1u) << name;
      }
    }
  }
}

class DitTraining : public testing::TestWithParam<Variant> {};

TEST_P(DitTraining, LossesOfAHundredSteps) {
  CpuDevice device(int64_t{1} << 28);
  const GoldenFile file(kFile, device);
  const DitConfig config = ConfigOf(GetParam());
  GoldenRank rank(device);
  const DitPart part(rank.store, rank.grid, config,
                     {.blocks = {0, config.layers}});
  rank.SetWeights(rank.OwnNames(file, "weights."));
  DitInputs inputs{.labels = file.Integers("inputs.labels")};
  Tensor text_counts;
  if (config.text_tokens > 0) {
    inputs.text = file.Golden("inputs.text");
    text_counts = file.Integers("inputs.text_counts");
  }
  const Tensor clean = file.Golden("inputs.target");
  ExpectTraining(
      "dit_" + GetParam().name, rank,
      [&](ForwardContext& context, GoldenDraws& draws) {
        const GoldenDraws::Flow flow = draws.DrawFlow(clean);
        inputs.tokens = flow.x;
        inputs.sigmas = flow.sigmas;
        AddLoss(context,
                SquaredErrorLoss(context,
                                 part.Predict(context, inputs, text_counts),
                                 flow.velocity),
                1.0 / static_cast<double>(clean.num_elements()), "loss");
      });
}

INSTANTIATE_TEST_SUITE_P(Variants, DitTraining, testing::ValuesIn(kVariants),
                         [](const testing::TestParamInfo<Variant>& info) {
                           return info.param.name;
                         });

INSTANTIATE_TEST_SUITE_P(Types, DitGolden,
                         testing::Values(DType::kFloat32, DType::kFloat64),
                         [](const testing::TestParamInfo<DType>& info) {
                           return std::string(DTypeName(info.param));
                         });

}  // namespace
}  // namespace trireme
