// Which tokens each rank holds: a token held twice or never is a wrong picture
// without any error.

#include "models/transformer/token_layout.h"

#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

TokenLayout LayoutOf(int64_t tokens, int tp, int cp, int rank,
                     bool over_context, bool over_tensor) {
  const auto grid = ProcessGrid::Create({.tp = tp, .cp = cp}, {}, rank);
  CHECK_OK(grid.status());
  return LayOutTokens(tokens, *grid, over_context, over_tensor);
}

TEST(TokenLayoutTest, RanksHoldEveryTokenOnceAndEquallyMany) {
  CpuDevice device(1 << 20);
  for (const int64_t tokens : {1, 12, 13, 23}) {
    std::vector<float> values(2 * tokens * 3);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(i + 1);
    }
    const Tensor whole =
        Tensor::FromValues<float>(device, {2, tokens, 3}, values);
    int64_t held = 0;
    for (int rank = 0; rank < 6; ++rank) {
      // tp 2 varies fastest: the ranks of one chunk of cp are neighbours.
      const TokenLayout layout = LayoutOf(tokens, 2, 3, rank, true, true);
      EXPECT_EQ(layout.padded, (tokens + 5) / 6 * 6);
      EXPECT_EQ(layout.local.count, layout.padded / 6);
      EXPECT_EQ(layout.local.begin, rank * layout.local.count);
      EXPECT_EQ(layout.attention.count, layout.padded / 3);
      EXPECT_EQ(layout.attention.begin, rank / 2 * layout.attention.count);
      held += layout.valid_local();
      const auto local = LocalTokens(whole, layout).ToVector<float>();
      for (int64_t i = 0; i < static_cast<int64_t>(local.size()); ++i) {
        const int64_t sample = i / (3 * layout.local.count);
        const int64_t token = i / 3 % layout.local.count + layout.local.begin;
        EXPECT_EQ(local[i], token < tokens
                                ? values[(sample * tokens + token) * 3 + i % 3]
                                : 0);
      }
    }
    EXPECT_EQ(held, tokens);
  }
}

// Views' tokens at one place stay on one rank, whatever there is of padding.
TEST(TokenLayoutTest, TokensThatBelongTogetherAreNotCutApart) {
  const auto grid = ProcessGrid::Create({.tp = 2, .cp = 2}, {}, 3);
  ASSERT_TRUE(grid.ok());
  const TokenLayout layout = LayOutTokens(15, *grid, true, true, 3);
  EXPECT_EQ(layout.padded, 24);
  EXPECT_EQ(layout.local.count, 6);
  EXPECT_EQ(layout.local.begin, 18);
  EXPECT_EQ(layout.valid_local(), 0);
}

TEST(TokenLayoutTest, PartsOfGroupsAreGatheredAndDealtAgain) {
  CpuDevice device(1 << 20);
  // Two samples of three groups of two parts.
  std::vector<float> values;
  for (int i = 0; i < 24; ++i) values.push_back(static_cast<float>(i));
  const Tensor x = Tensor::FromValues<float>(device, {2, 6, 2}, values);
  const Tensor gathered = GatherParts(x, 2);
  EXPECT_EQ(
      gathered.ToVector<float>(),
      (std::vector<float>{0,  1,  4,  5,  8,  9,  2,  3,  6,  7,  10, 11,
                          12, 13, 16, 17, 20, 21, 14, 15, 18, 19, 22, 23}));
  EXPECT_EQ(GatherParts(gathered, 3).ToVector<float>(), values);
}

TEST(TokenLayoutTest, AxesThatDoNotCutLeaveTokensWhole) {
  const TokenLayout whole = LayoutOf(7, 2, 3, 5, false, false);
  EXPECT_EQ(whole.local.count, 7);
  EXPECT_EQ(whole.local.begin, 0);
  EXPECT_FALSE(whole.has_padding());
  // Every rank of cp holds the whole text; tp cuts it between layers.
  const TokenLayout text = LayoutOf(7, 2, 3, 5, false, true);
  EXPECT_EQ(text.padded, 8);
  EXPECT_EQ(text.attention.count, 8);
  EXPECT_EQ(text.local.begin, 4);
  EXPECT_EQ(text.valid_local(), 3);
}

}  // namespace
}  // namespace trireme
