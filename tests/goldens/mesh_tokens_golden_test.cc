// A tiny model of meshes' tokens on one rank against PyTorch, from
// mesh_tokens.safetensors (see generate_mesh_tokens.py): logits, loss and the
// gradient of every parameter, of whole sequences and token by token.

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/mesh_tokens/mesh_decoder.h"
#include "models/transformer/key_value_cache.h"
#include "parallel/functional.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "tests/goldens/golden_file_testing.h"

namespace trireme {
namespace {

constexpr int64_t kBatch = 2;
// Tokens before the padding.
constexpr double kCounted = 11;

// As generate_mesh_tokens.py has it.
MeshDecoderConfig Config() {
  MeshDecoderConfig config;
  config.hidden = 12;
  config.layers = 2;
  config.heads = 3;
  config.tokens = 7;
  config.format = {.bits = 2, .block_bits = 1};
  config.classes = 3;
  return config;
}

class MeshTokensGolden : public testing::Test {
 protected:
  MeshTokensGolden() {
    for (const auto& parameter : store_.parameters()) {
      parameter->value.CopyFrom(
          file_.Golden("mesh_tokens.weights." + parameter->name));
      parameter->grad =
          Tensor::Zeros(device_, parameter->global_shape, DType::kFloat64);
    }
  }

  Tensor Indices(const std::string& name) const {
    const Tensor golden = file_.Golden(name);
    std::vector<int32_t> values;
    for (const double value : Doubles(golden)) {
      values.push_back(static_cast<int32_t>(value));
    }
    return Tensor::FromValues<int32_t>(golden.device(), golden.shape(), values);
  }

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/mesh_tokens.safetensors", device_};
  const MeshDecoderConfig config_ = Config();
  SingleWorld world_;
  const ProcessGrid grid_;
  Communicators communicators_{world_, grid_};
  ParallelContext parallel_{device_, grid_, communicators_};
  ParameterStore store_{device_, DType::kFloat64, /*seed=*/0};
  const MeshDecoderPart part_{
      store_, grid_, config_, {.blocks = {0, config_.layers}}};
};

TEST_F(MeshTokensGolden, LogitsLossAndEveryGradient) {
  Tape tape(device_);
  ForwardContext context{tape, parallel_};
  ShardedVariable x =
      part_.Embed(context, Indices("inputs.tokens"), Indices("inputs.labels"));
  for (int i = 0; i < part_.num_blocks(); ++i) {
    x = part_.RunBlock(context, i, x);
  }
  const ShardedVariable logits = part_.Head(context, x);
  CHECK_OK(parallel_.status());
  ExpectNear(Doubles(logits.value()),
             Doubles(file_.Golden("mesh_tokens.logits")), "logits");
  AddLoss(context,
          CrossEntropyLoss(context, logits,
                           part_.LocalLabels(Indices("inputs.next_tokens"))),
          1 / kCounted, "loss");
  const std::vector<Tape::Loss> losses = tape.TakeLosses();
  ExpectNear({losses.at(0).weight * Doubles(losses.at(0).value)[0]},
             Doubles(file_.Golden("mesh_tokens.loss")), "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  for (const auto& parameter : store_.parameters()) {
    ExpectNear(Doubles(parameter->grad),
               Doubles(file_.Golden("mesh_tokens.grad." + parameter->name)),
               parameter->name);
  }
}

// What is drawn comes from the model that was trained: a cache that is one
// place off gives sequences as well.
TEST_F(MeshTokensGolden, OneTokenAfterAnotherGivesTheSameLogits) {
  const std::vector<double> expected =
      Doubles(file_.Golden("mesh_tokens.logits"));
  const std::vector<double> tokens = Doubles(file_.Golden("inputs.tokens"));
  KeyValueCache cache(config_.tokens);
  for (int64_t place = 0; place < config_.tokens; ++place) {
    std::vector<int32_t> before(kBatch);
    std::vector<double> of_place;
    for (int64_t row = 0; row < kBatch; ++row) {
      const int64_t at = row * config_.tokens + place;
      if (place > 0) before[row] = static_cast<int32_t>(tokens[at - 1]);
      const auto begin = expected.begin() + at * config_.vocabulary();
      of_place.insert(of_place.end(), begin, begin + config_.vocabulary());
    }
    Tape tape(device_, Tape::Mode::kInference);
    ForwardContext context{tape, parallel_};
    ShardedVariable x = part_.EmbedOne(
        context, Tensor::FromValues<int32_t>(device_, {kBatch}, before),
        Indices("inputs.labels"), cache);
    for (int i = 0; i < part_.num_blocks(); ++i) {
      x = part_.RunBlockOnOne(context, i, cache, x);
    }
    ExpectNear(Doubles(part_.Head(context, x).value()), of_place,
               "logits at " + std::to_string(place));
    cache.Advance();
  }
  CHECK_OK(parallel_.status());
}

}  // namespace
}  // namespace trireme
