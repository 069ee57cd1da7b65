// The planner's view of a job against the model itself.

#include "trainer/planning/model_shape_of.h"

#include <memory>
#include <string>
#include <utility>

#include "gtest/gtest.h"
#include "models/dit/dit_config.h"
#include "models/dit/dit_family.h"
#include "models/mesh_tokens/mesh_decoder_config.h"
#include "models/mesh_tokens/mesh_decoder_family.h"
#include "models/mmdit/mmdit_config.h"
#include "models/mmdit/mmdit_family.h"
#include "models/objective/next_token.h"
#include "models/objective/rectified_flow.h"
#include "models/transformer/embeddings.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "trainer/preflight/describe.h"

namespace trireme {
namespace {

DitConfig ConfigWith(int64_t text_tokens, Dit::TextAttention attention) {
  DitConfig config;
  config.hidden = 48;
  config.layers = 3;
  config.heads = 4;
  config.mlp_hidden = 80;
  config.classes = 10;
  config.image = {.channels = 3, .height = 12, .width = 8};
  config.text_tokens = text_tokens;
  config.text_width = 10;
  config.text_attention = attention;
  return config;
}

TrainingSetup SetupOf(std::shared_ptr<const ModelFamily> family) {
  TrainingSetup setup;
  setup.family = std::move(family);
  setup.objective = std::make_shared<RectifiedFlowObjective>(
      RectifiedFlowConfig(), /*seed=*/0, /*global_batch=*/1);
  return setup;
}

// FLOPs of a kind among a block's kernels.
double FlopsOf(const std::vector<PieceKernel>& kernels,
               PieceKernel::Kind kind) {
  double flops = 0;
  for (const PieceKernel& kernel : kernels) {
    if (kernel.kind == kind) flops += kernel.flops * kernel.count;
  }
  return flops;
}

MmditConfig MmditOf(Mmdit::Preset preset) {
  Mmdit mmdit;
  mmdit.set_preset(preset);
  if (preset == Mmdit::TINY) {
    mmdit.mutable_text()->set_tokens(5);
    mmdit.mutable_text()->mutable_bytes();
  }
  const auto config = ResolveMmdit(mmdit, /*channels=*/16, /*resolution=*/32);
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

// A matrix product of [m, k] by [k, n].
struct Product {
  int64_t m, k, n;
};

double Flops(const std::vector<Product>& products) {
  double sum = 0;
  for (const auto& [m, k, n] : products) {
    sum += 2.0 * static_cast<double>(m * k * n);
  }
  return sum;
}

// Of `rows` tokens: what a stream does with them beside the attention.
std::vector<Product> Stream(int64_t rows, int64_t h, int64_t f) {
  return {{rows, h, 3 * h}, {rows, h, h}, {rows, h, f}, {rows, f, h}};
}

double TrainingFlopsOf(const DitConfig& config) {
  return ModelTrainingFlops(ModelShapeOf(SetupOf(MakeDitFamily(config))));
}

// Of what is before and after a DiT's blocks. Pictures, captions and times have
// no gradients: what reads them multiplies twice and not three times.
double EndFlops(const DitConfig& config) {
  const int64_t s = config.tokens(), n = config.text_tokens, h = config.hidden,
                c = config.token_channels();
  return 2 * Flops({{s, c, h},
                    {n, config.text_width, h},
                    {1, kScalarChannels, h}}) +
         3 * Flops({{1, h, h}, {1, h, 2 * h}, {s, h, c}});
}

// The planner takes for FP8 what multiplies in it: all layers of a block but
// its modulations, forward and for their inputs' gradients.
TEST(ModelShapeOf, ProductsInFloat8AreToldApart) {
  using Kind = PieceKernel::Kind;
  const int64_t s = 24, h = 48, f = 80;
  TrainingSetup setup = SetupOf(MakeDitFamily(ConfigWith(0, Dit::CROSS)));
  const auto kernels_of = [](const TrainingSetup& of) {
    return PiecesOf(ModelShapeOf(of), {}, Plan::NONE, false).blocks[0].kernels;
  };
  const PieceKernels whole = kernels_of(setup);
  setup.float8 = {.layers = {"blocks.*"}, .except = {"*.modulation"}};
  const PieceKernels fp8 = kernels_of(setup);
  const double layers = Flops(Stream(s, h, f));
  for (const auto pass :
       {&PieceKernels::forward, &PieceKernels::backward_input}) {
    EXPECT_EQ(FlopsOf(whole.*pass, Kind::kFloat8Product), 0);
    EXPECT_DOUBLE_EQ(FlopsOf(fp8.*pass, Kind::kFloat8Product), layers);
    EXPECT_DOUBLE_EQ(FlopsOf(fp8.*pass, Kind::kProduct),
                     FlopsOf(whole.*pass, Kind::kProduct) - layers);
  }
  EXPECT_EQ(FlopsOf(fp8.backward_weight, Kind::kFloat8Product), 0);

  // With scales of earlier steps gradients of weights are among them, and no
  // pass looks for scales.
  setup.float8.history = 16;
  const PieceKernels delayed = kernels_of(setup);
  const auto bytes_beside_products = [](const PieceKernels& of) {
    double bytes = 0;
    for (const PieceKernel& kernel : of.forward) {
      if (kernel.kind != Kind::kElementwise) continue;
      bytes += kernel.bytes * kernel.count;
    }
    return bytes;
  };
  for (const auto pass : {&PieceKernels::forward, &PieceKernels::backward_input,
                          &PieceKernels::backward_weight}) {
    EXPECT_DOUBLE_EQ(FlopsOf(delayed.*pass, Kind::kFloat8Product), layers);
  }
  EXPECT_LT(bytes_beside_products(delayed), bytes_beside_products(fp8));
  EXPECT_GT(bytes_beside_products(delayed), bytes_beside_products(whole));
}

// Wrong model FLOPs are a wrong MFU, and stages cut in the wrong place.
TEST(ModelShapeOf, FlopsAreThoseOfADitsProducts) {
  const int64_t s = 24, n = 7, h = 48, f = 80;
  const double ends = EndFlops(ConfigWith(0, Dit::CROSS));
  const double text_ends = EndFlops(ConfigWith(n, Dit::CROSS));
  EXPECT_GT(text_ends, ends);
  const double modulation = Flops({{1, h, 6 * h}});
  const double plain = Flops(Stream(s, h, f)) + Flops({{s, h, s}, {s, s, h}});
  EXPECT_DOUBLE_EQ(TrainingFlopsOf(ConfigWith(0, Dit::CROSS)),
                   3 * 3 * (plain + modulation) + ends);

  const double cross = Flops({{s, h, h}, {n, h, 2 * h}, {s, h, h}}) +
                       Flops({{s, h, n}, {s, n, h}});
  EXPECT_DOUBLE_EQ(TrainingFlopsOf(ConfigWith(n, Dit::CROSS)),
                   3 * 3 * (plain + cross + modulation) + text_ends);

  const double joint = Flops(Stream(s, h, f)) + Flops(Stream(n, h, f)) +
                       Flops({{s + n, h, s + n}, {s + n, s + n, h}});
  // The last block reads the text as keys and values and does not change it;
  // the little that its attention computes of it is not in this formula.
  const double last = Flops(Stream(s, h, f)) + Flops({{n, h, 2 * h}}) +
                      Flops({{s, h, s + n}, {s, s + n, h}});
  const double found = TrainingFlopsOf(ConfigWith(n, Dit::JOINT));
  EXPECT_NEAR((found - text_ends) /
                  (3 * (2 * (joint + 2 * modulation) + last + 2 * modulation)),
              1, 0.02);
}

// 24 l s h² and 2 s h V as for any GPT, times three; of attention's scores,
// which published counts take to be s², those that a token sees.
TEST(ModelShapeOf, FlopsAreThoseOfAGptsProducts) {
  MeshDecoderConfig config = {.hidden = 48, .layers = 5, .heads = 4};
  config.tokens = 40;
  config.format = {.bits = 3, .block_bits = 1};
  TrainingSetup setup;
  setup.family = MakeMeshDecoderFamily(config);
  setup.objective = std::make_shared<NextTokenObjective>(/*global_batch=*/1);
  const double l = 5, s = 40, h = 48;
  const auto vocabulary = static_cast<double>(config.vocabulary());
  EXPECT_DOUBLE_EQ(ModelTrainingFlops(ModelShapeOf(setup)),
                   3 * (l * (24 * s * h * h + 4 * s * (s + 1) / 2 * h) +
                        2 * s * h * vocabulary));
}

// Of four blocks two have experts: a router, the two SwiGLUs of each token and
// one for all.
TEST(ModelShapeOf, FlopsAreThoseOfTheExpertsOfATokenAndNoOthers) {
  DitConfig config = ConfigWith(0, Dit::CROSS);
  config.layers = 4;
  config.moe = {
      .experts = 6, .top_k = 2, .expert_hidden = 20, .shared_hidden = 16};
  config.moe_every = 2;
  const int64_t s = 24, h = 48, f = 80;
  const double attention =
      Flops({{s, h, 3 * h}, {s, h, h}, {s, h, s}, {s, s, h}});
  const double mlp = Flops({{s, h, f}, {s, f, h}});
  const double experts = Flops({{s, h, 6}, {s, h, 2 * 16}, {s, 16, h}}) +
                         2 * Flops({{s, h, 2 * 20}, {s, 20, h}});
  const double modulations = Flops({{1, h, 6 * h}});
  EXPECT_DOUBLE_EQ(TrainingFlopsOf(config),
                   3 * (4 * (attention + modulations) + 2 * mlp + 2 * experts) +
                       EndFlops(config));
}

// The paper's Gflops count a multiplication and its addition as one, and no
// conditioning.
TEST(ModelShapeOf, FlopsAreThoseOfThePublishedModels) {
  struct Published {
    Dit::Preset preset;
    double gflops;
  };
  for (const auto& [preset, gflops] :
       {Published{Dit::S, 6.06}, Published{Dit::B, 23.01},
        Published{Dit::L, 80.71}, Published{Dit::XL, 118.64}}) {
    Dit dit;
    dit.set_preset(preset);
    const auto config = ResolveDit(
        dit, {.channels = 4, .height = 32, .width = 32}, /*classes=*/1000);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_NEAR(TrainingFlopsOf(*config) / 3 / 2 * 1e-9 / gflops, 1, 0.01)
        << Dit::Preset_Name(preset);
  }
}

// Too few parameters are a plan that does not fit.
TEST(ModelShapeOf, PlannerCountsTheModelsParameters) {
  const std::pair<std::string, std::shared_ptr<const ModelFamily>> families[] =
      {{"class", MakeDitFamily(ConfigWith(0, Dit::CROSS))},
       {"cross text", MakeDitFamily(ConfigWith(9, Dit::CROSS))},
       {"joint text", MakeDitFamily(ConfigWith(9, Dit::JOINT))},
       {"SD3.5 medium", MakeMmditFamily(MmditOf(Mmdit::SD35_MEDIUM))},
       {"FLUX.1", MakeMmditFamily(MmditOf(Mmdit::FLUX1_DEV))},
       {"tiny MMDiT", MakeMmditFamily(MmditOf(Mmdit::TINY))}};
  for (const auto& [name, family] : families) {
    const TrainingSetup setup = SetupOf(family);
    EXPECT_EQ(ModelParameters(ModelShapeOf(setup)), CountParameters(setup))
        << name;
  }
}

// Blocks of two kinds that are costed as one cut stages in the wrong place.
TEST(ModelShapeOf, SingleBlocksAreNotDualOnes) {
  const ModelShape flux =
      ModelShapeOf(SetupOf(MakeMmditFamily(MmditOf(Mmdit::FLUX1_DEV))));
  ASSERT_EQ(flux.block_runs.size(), 3u);
  EXPECT_EQ(flux.block_runs[0].count, 19);
  EXPECT_EQ(flux.block_runs[1].count, 37);
  const ModelPieces pieces = PiecesOf(flux, {}, Plan::NONE, false);
  // A dual block has parameters for two streams (18 h^2 each with its
  // modulation), a single one 15 h^2 for both.
  const double h = 3072;
  EXPECT_NEAR(static_cast<double>(pieces.blocks[0].parameters) / (h * h), 36,
              0.1);
  EXPECT_NEAR(static_cast<double>(pieces.blocks[1].parameters) / (h * h), 15,
              0.1);
  // Text and picture still are two tensors between them.
  EXPECT_GT(pieces.blocks[1].message_bytes, 0);
}

}  // namespace
}  // namespace trireme
