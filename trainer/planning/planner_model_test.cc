// The recorded pieces of a model against what is known of a DiT by formulas.

#include <cstdint>
#include <map>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "models/dit/dit_family.h"
#include "models/objective/rectified_flow.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "trainer/planning/model_shape_of.h"
#include "trainer/planning/recorded_pieces.h"
#include "trainer/rank/training_setup.h"

namespace trireme {
namespace {

using Behind = PieceCollective::Behind;

enum class Text { kNone, kCross, kJoint };

struct Case {
  Text text = Text::kNone;
  int tp = 1;
  int cp = 1;
  int ulysses = 1;
  bool sequence_parallel = false;
  int64_t height = 16;

  std::string Name() const {
    return fmt::format("{}_tp{}_cp{}_ulysses{}{}_height{}",
                       text == Text::kNone    ? "class"
                       : text == Text::kCross ? "cross"
                                              : "joint",
                       tp, cp, ulysses, sequence_parallel ? "_sequence" : "",
                       height);
  }
};

// Between two that are run (trainer/planning/chunk_figures.h).
constexpr int64_t kMicrobatch = 6;

class PlannerModelTest : public testing::TestWithParam<Case> {
 protected:
  PlannerModelTest() {
    DitConfig config;
    config.hidden = 32;
    config.layers = 5;
    config.heads = 8;
    config.mlp_hidden = 96;
    config.classes = 10;
    config.image = {.channels = 1, .height = GetParam().height, .width = 8};
    if (GetParam().text != Text::kNone) {
      config.text_tokens = 5;
      config.text_width = 6;
      config.text_attention =
          GetParam().text == Text::kCross ? Dit::CROSS : Dit::JOINT;
    }
    setup_.family = MakeDitFamily(config);
    setup_.objective = std::make_shared<RectifiedFlowObjective>(
        RectifiedFlowConfig(), /*seed=*/0, kMicrobatch);
    setup_.dtype = DType::kBFloat16;
  }

  BlockSplit Split() const {
    return {.tp = GetParam().tp,
            .cp = GetParam().cp,
            .ulysses = GetParam().ulysses,
            .sequence_parallel = GetParam().sequence_parallel,
            .microbatch_size = kMicrobatch};
  }

  ModelPieces Recorded(bool deferred = false,
                       Plan::Recompute recompute = Plan::NONE) const {
    return PieceRecorder(setup_).Record(Split(), recompute, deferred);
  }
  ModelPieces ByFormulas() const {
    const ModelShape shape = ModelShapeOf(setup_);
    return TransformerPieces(
        shape, {.modulation_parameters = 6 * shape.hidden * (shape.hidden + 1)},
        Split(), Plan::NONE);
  }

  TrainingSetup setup_;
};

struct Count {
  int forward = 0;
  int backward = 0;

  friend bool operator==(const Count&, const Count&) = default;
  friend void PrintTo(const Count& count, std::ostream* out) {
    *out << count.forward << " forward, " << count.backward << " backward";
  }
};

// By group, kind and bytes.
using Counts = std::map<std::tuple<int, int, int64_t>, Count>;

Counts CountsOf(const std::vector<PieceCollective>& list) {
  Counts counts;
  for (const PieceCollective& collective : list) {
    Count& count =
        counts[{static_cast<int>(collective.group),
                static_cast<int>(collective.kind), collective.bytes}];
    count.forward += collective.forward;
    count.backward += collective.backward;
  }
  return counts;
}

// What is hidden of all, in shares of the products and in ring steps.
std::pair<double, int> HiddenOf(const std::vector<PieceCollective>& list) {
  double products = 0;
  int steps = 0;
  for (const PieceCollective& collective : list) {
    if (collective.behind == Behind::kProduct) {
      products += collective.backward * collective.product_share;
    }
    if (collective.behind == Behind::kAttention &&
        collective.kind == PieceCollective::Kind::kRingStep) {
      steps += collective.forward + collective.backward;
    }
  }
  return {products, steps};
}

// A collective that the planner does not know of makes every plan with it look
// faster than it is.
TEST_P(PlannerModelTest, CollectivesAreThoseOfTheFormulas) {
  const ModelPieces recorded = Recorded();
  const ModelPieces expected = ByFormulas();
  EXPECT_EQ(CountsOf(recorded.blocks[0].collectives),
            CountsOf(expected.blocks[0].collectives));
  EXPECT_EQ(CountsOf(recorded.embedding.collectives),
            CountsOf(expected.embedding.collectives));
  EXPECT_EQ(CountsOf(recorded.chunk.collectives), Counts());
  EXPECT_EQ(CountsOf(recorded.head.collectives),
            CountsOf(expected.head.collectives));
}

// One that is taken for hidden, and is not, does too.
TEST_P(PlannerModelTest, WhatHidesThemIsThatOfTheFormulas) {
  const auto [products, steps] = HiddenOf(Recorded().blocks[0].collectives);
  const auto [expected, expected_steps] =
      HiddenOf(ByFormulas().blocks[0].collectives);
  // The formulas leave out the modulations.
  EXPECT_NEAR(products, expected, 0.1 * expected);
  EXPECT_EQ(steps, expected_steps);
}

// Recomputation and weight gradients that are put off move collectives, and
// add none.
TEST_P(PlannerModelTest, EveryPassOrderHasTheSameCollectives) {
  const Counts once = CountsOf(Recorded().blocks[0].collectives);
  EXPECT_EQ(CountsOf(Recorded(/*deferred=*/true).blocks[0].collectives), once);
  EXPECT_EQ(CountsOf(Recorded(false, Plan::FULL).blocks[0].collectives), once);
}

TEST_P(PlannerModelTest, MessagesAndParametersAreThoseOfTheFormulas) {
  const ModelPieces recorded = Recorded();
  const ModelPieces expected = ByFormulas();
  EXPECT_EQ(recorded.blocks[0].message_bytes, expected.blocks[0].message_bytes);
  // The formulas leave out the weights of the heads' norms.
  EXPECT_NEAR(static_cast<double>(recorded.blocks[0].parameters) /
                  static_cast<double>(expected.blocks[0].parameters),
              1, 0.02);
}

// The time of a block is that of its products: they are what is multiplied.
TEST_P(PlannerModelTest, ProductsAreThoseOfTheFormulas) {
  const PieceKernels recorded = Recorded().blocks[0].kernels;
  const PieceKernels expected = ByFormulas().blocks[0].kernels;
  const auto products = [](const std::vector<PieceKernel>& kernels) {
    return ProductFlops(kernels) - AttentionFlops(kernels);
  };
  // Modulations, and tokens that fill up: 4 beside 20.
  const double most = GetParam().height == 10 ? 0.5 : 0.25;
  EXPECT_NEAR(products(recorded.forward) / products(expected.forward), 1, most);
  EXPECT_NEAR(
      AttentionFlops(recorded.forward) / AttentionFlops(expected.forward), 1,
      most);
  EXPECT_NEAR(products(recorded.backward_weight) / products(recorded.forward),
              1, 0.01);
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const Text text : {Text::kNone, Text::kCross, Text::kJoint}) {
    for (const int tp : {1, 2}) {
      for (const auto& [cp, ulysses] : {std::pair(1, 1), std::pair(2, 1),
                                        std::pair(2, 2), std::pair(4, 2)}) {
        for (const bool sequence : {false, true}) {
          if (sequence && tp == 1) continue;
          cases.push_back({.text = text,
                           .tp = tp,
                           .cp = cp,
                           .ulysses = ulysses,
                           .sequence_parallel = sequence});
        }
      }
    }
  }
  // 20 tokens: not to be divided without padding.
  cases.push_back({.tp = 2, .cp = 4, .sequence_parallel = true, .height = 10});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Splits, PlannerModelTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.Name(); });

}  // namespace
}  // namespace trireme
