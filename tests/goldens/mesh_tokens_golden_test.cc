// A tiny model of meshes' tokens on one rank against PyTorch, from
// mesh_tokens.safetensors (see generate_mesh_tokens.py): logits, loss and the
// gradient of every parameter, of whole sequences and token by token.

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/mesh_tokens/mesh_decoder.h"
#include "models/transformer/key_value_cache.h"
#include "parallel/layers/functional.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "tests/goldens/golden_file_testing.h"
#include "tests/goldens/golden_rank_testing.h"
#include "tests/goldens/golden_training_testing.h"

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
    rank_.SetWeights(rank_.OwnNames(file_, "mesh_tokens.weights."));
  }

  ShardedVariable Logits(ForwardContext& context, const Tensor& tokens) const {
    ShardedVariable x =
        part_.Embed(context, tokens, file_.Integers("inputs.labels"));
    for (int i = 0; i < part_.num_blocks(); ++i) {
      x = part_.RunBlock(context, i, x);
    }
    return part_.Head(context, x);
  }
  void AddCrossEntropy(ForwardContext& context, const ShardedVariable& logits,
                       const Tensor& next_tokens) const {
    AddLoss(context,
            CrossEntropyLoss(context, logits, part_.LocalLabels(next_tokens)),
            1 / kCounted, "loss");
  }
  // The sequences whose tokens are so many further on, by sequence.
  Tensor Moved(const std::string& name, const std::vector<double>& moved) {
    std::vector<int32_t> values = file_.Integers(name).ToVector<int32_t>();
    const auto vocabulary = static_cast<int32_t>(config_.vocabulary());
    for (size_t i = 0; i < values.size(); ++i) {
      if (values[i] < 0) continue;
      values[i] = (values[i] + static_cast<int32_t>(moved[i / config_.tokens] *
                                                    vocabulary)) %
                  vocabulary;
    }
    return Tensor::FromValues<int32_t>(device_, {kBatch, config_.tokens},
                                       values);
  }

  CpuDevice device_{int64_t{1} << 28};
  GoldenFile file_{"tests/goldens/mesh_tokens.safetensors", device_};
  const MeshDecoderConfig config_ = Config();
  GoldenRank rank_{device_};
  const MeshDecoderPart part_{
      rank_.store, rank_.grid, config_, {.blocks = {0, config_.layers}}};
};

TEST_F(MeshTokensGolden, LogitsLossAndEveryGradient) {
  Tape tape(device_);
  ForwardContext context{tape, rank_.parallel};
  const ShardedVariable logits =
      Logits(context, file_.Integers("inputs.tokens"));
  CHECK_OK(rank_.parallel.status());
  ExpectNear(Doubles(logits.value()),
             Doubles(file_.Golden("mesh_tokens.logits")), "logits");
  AddCrossEntropy(context, logits, file_.Integers("inputs.next_tokens"));
  ExpectNear({WeightedSum(tape)}, Doubles(file_.Golden("mesh_tokens.loss")),
             "loss");
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  rank_.ExpectGradients(rank_.OwnNames(file_, "mesh_tokens.grad."));
}

TEST_F(MeshTokensGolden, LossesOfAHundredSteps) {
  ExpectTraining(
      "mesh_tokens", rank_, [&](ForwardContext& context, GoldenDraws& draws) {
        const std::vector<double> moved = draws.Uniform(kBatch);
        AddCrossEntropy(context, Logits(context, Moved("inputs.tokens", moved)),
                        Moved("inputs.next_tokens", moved));
      });
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
    ForwardContext context{tape, rank_.parallel};
    ShardedVariable x = part_.EmbedOne(
        context, Tensor::FromValues<int32_t>(device_, {kBatch}, before),
        file_.Integers("inputs.labels"), cache);
    for (int i = 0; i < part_.num_blocks(); ++i) {
      x = part_.RunBlockOnOne(context, i, cache, x);
    }
    ExpectNear(Doubles(part_.Head(context, x).value()), of_place,
               "logits at " + std::to_string(place));
    cache.Advance();
  }
  CHECK_OK(rank_.parallel.status());
}

}  // namespace
}  // namespace trireme
