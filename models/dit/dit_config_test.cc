// Sizes of a DiT and its FLOPs.

#include "models/dit/dit_config.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

// Latents of 256 x 256 pictures.
DitConfig Resolved(Dit::Preset preset) {
  Dit dit;
  dit.set_preset(preset);
  const auto config =
      ResolveDit(dit, {.channels = 4, .height = 32, .width = 32}, 1000);
  CHECK_OK(config.status());
  return *config;
}

TEST(ResolveDitTest, FillsPresetsAndDefaultsAndWritesThemBack) {
  const DitConfig xl = Resolved(Dit::XL);
  EXPECT_EQ(xl.hidden, 1152);
  EXPECT_EQ(xl.layers, 28);
  EXPECT_EQ(xl.heads, 16);
  EXPECT_EQ(xl.mlp_hidden, 4 * 1152);
  EXPECT_EQ(xl.tokens(), 256);
  EXPECT_EQ(xl.classes, 1000);
  EXPECT_TRUE(xl.qk_norm);
  EXPECT_EQ(xl.positions, Dit::ROPE);

  Dit dit;
  dit.set_preset(Dit::S);
  dit.set_layers(3);
  dit.set_qk_norm(false);
  dit.set_positions(Dit::SINCOS);
  dit.set_class_conditional(false);
  const ImageSpec image = {.channels = 1, .height = 28, .width = 28};
  const auto resolved = ResolveDit(dit, image, 10);
  CHECK_OK(resolved.status());
  EXPECT_EQ(resolved->hidden, 384);
  EXPECT_EQ(resolved->layers, 3);
  EXPECT_EQ(resolved->classes, 0);
  Dit filled;
  FillDit(*resolved, filled);
  const auto again = ResolveDit(filled, image, 10);
  CHECK_OK(again.status());
  EXPECT_EQ(again->layers, 3);
  EXPECT_EQ(again->classes, 0);
  EXPECT_FALSE(again->qk_norm);
  EXPECT_EQ(again->positions, Dit::SINCOS);
}

TEST(ResolveDitTest, ErrorsNameTheField) {
  const auto message = [](const Dit& dit) {
    return std::string(
        ResolveDit(dit, {.channels = 1, .height = 28, .width = 30}, 10)
            .status()
            .message());
  };
  Dit dit;
  EXPECT_EQ(message(dit), "model.dit.hidden: found 0, expected 4 to 131072");
  dit.set_preset(Dit::S);
  dit.set_heads(5);
  EXPECT_EQ(message(dit),
            "model.dit.hidden: found 384, expected a multiple of the 5 heads");
  dit.set_heads(6);
  dit.set_patch(4);
  EXPECT_EQ(message(dit),
            "model.dit.patch: found 4, expected a divisor of the pictures' "
            "30 x 28 pixels");
  dit.set_patch(2);
  dit.set_mlp_ratio(0);
  EXPECT_EQ(message(dit),
            "model.dit.mlp_ratio: found 0, expected more than 0 and at most "
            "64");
  dit.set_mlp_ratio(4);
  dit.set_heads(64);
  EXPECT_EQ(message(dit),
            "model.dit.heads: found 64 heads of 6 channels, expected heads of "
            "a multiple of 4 channels for positions ROPE");
}

// The paper's Gflops count a multiplication and its addition as one. What it
// counts beside the blocks (embeddings, modulations, head) is below 1 %.
TEST(DitTrainingFlops, AreThoseOfThePublishedModels) {
  struct Published {
    Dit::Preset preset;
    double gflops;
  };
  for (const auto& [preset, gflops] :
       {Published{Dit::S, 6.06}, Published{Dit::B, 23.01},
        Published{Dit::L, 80.71}, Published{Dit::XL, 118.64}}) {
    const double counted = DitTrainingFlops(Resolved(preset)) / 3 / 2 * 1e-9;
    EXPECT_LT(counted, gflops);
    EXPECT_GT(counted, 0.99 * gflops) << Dit::Preset_Name(preset);
  }
}

TEST(DitTrainingFlops, ClosedFormWithoutText) {
  const DitConfig xl = Resolved(Dit::XL);
  const double s = 256, h = 1152;
  EXPECT_DOUBLE_EQ(DitTrainingFlops(xl),
                   3 * 28 * (24 * s * h * h + 4 * s * s * h));
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

// Block by block, as models/dit/dit_block.cc multiplies.
TEST(DitTrainingFlops, CountTheProductsOfTextToo) {
  DitConfig config;
  config.hidden = 48;
  config.layers = 3;
  config.heads = 4;
  config.mlp_hidden = 80;
  config.image = {.channels = 3, .height = 12, .width = 8};
  config.text_tokens = 7;
  config.text_width = 10;
  const int64_t s = 24, n = 7, h = 48, f = 80;

  config.text_attention = Dit::CROSS;
  const double block = Flops(Stream(s, h, f)) + Flops({{s, h, s}, {s, s, h}}) +
                       Flops({{s, h, h}, {n, h, 2 * h}, {s, h, h}}) +
                       Flops({{s, h, n}, {s, n, h}});
  EXPECT_DOUBLE_EQ(DitTrainingFlops(config), 3 * 3 * block);

  config.text_attention = Dit::JOINT;
  const double joint = Flops(Stream(s, h, f)) + Flops(Stream(n, h, f)) +
                       Flops({{s + n, h, s + n}, {s + n, s + n, h}});
  // The last block reads the text as keys and values and does not change it.
  const double last = Flops(Stream(s, h, f)) + Flops({{n, h, 2 * h}}) +
                      Flops({{s, h, s + n}, {s, s + n, h}});
  EXPECT_DOUBLE_EQ(DitTrainingFlops(config), 3 * (2 * joint + last));
}

TEST(DitTrainingFlops, FormulaHasTheModelsTerms) {
  DitConfig config;
  config.text_tokens = 7;
  config.text_attention = Dit::CROSS;
  EXPECT_NE(BlocksTrainingFlopsFormula(TextOf(config)).find("4 s n h"),
            std::string::npos);
  config.text_attention = Dit::JOINT;
  EXPECT_NE(BlocksTrainingFlopsFormula(TextOf(config)).find("4 s (s + n) h"),
            std::string::npos);
  config.text_tokens = 0;
  EXPECT_EQ(BlocksTrainingFlopsFormula(TextOf(config)).find('n'),
            std::string::npos);
}

}  // namespace
}  // namespace trireme
