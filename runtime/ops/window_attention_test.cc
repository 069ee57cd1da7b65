// Attention in windows against its formula, pair by pair, in fp64.

#include "runtime/ops/window_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

constexpr int64_t kHeads = 2;
constexpr int64_t kHeadDim = 3;

struct Place {
  int64_t y = 0;
  int64_t x = 0;
};

// Where a token lies in the rolled picture.
Place Rolled(const WindowLayout& layout, int64_t token) {
  const int64_t y = token / layout.width, x = token % layout.width;
  return {(y - layout.shift + layout.height) % layout.height,
          (x - layout.shift + layout.width) % layout.width};
}

// Whether two tokens are in one window, and neighbours in the picture there.
bool Attends(const WindowLayout& layout, int64_t i, int64_t j) {
  const Place a = Rolled(layout, i), b = Rolled(layout, j);
  if (a.y / layout.window != b.y / layout.window ||
      a.x / layout.window != b.x / layout.window) {
    return false;
  }
  // Within a window, rolled rows that follow each other are rows that do.
  const int64_t rows = j / layout.width - i / layout.width;
  const int64_t columns = j % layout.width - i % layout.width;
  return rows == b.y - a.y && columns == b.x - a.x;
}

std::vector<double> Expected(const WindowLayout& layout, const Tensor& qkv,
                             const Tensor& scales, const Tensor& biases) {
  const std::vector<double> packed = Doubles(qkv);
  const std::vector<double> s = Doubles(scales), table = Doubles(biases);
  const int64_t tokens = layout.height * layout.width;
  const int64_t width = kHeads * kHeadDim;
  std::vector<double> out(qkv.dim(0) * tokens * width);
  const auto at = [&](int64_t sample, int64_t token, int64_t part,
                      int64_t head) {
    return packed.data() + ((sample * tokens + token) * 3 + part) * width +
           head * kHeadDim;
  };
  const auto dot = [](const double* a, const double* b) {
    double sum = 0;
    for (int64_t c = 0; c < kHeadDim; ++c) sum += a[c] * b[c];
    return sum;
  };
  for (int64_t sample = 0; sample < qkv.dim(0); ++sample) {
    for (int64_t head = 0; head < kHeads; ++head) {
      const double scale = std::exp(std::min(s[head], std::log(100.0)));
      for (int64_t i = 0; i < tokens; ++i) {
        const double* const q = at(sample, i, 0, head);
        double total = 0;
        std::vector<double> sums(kHeadDim);
        for (int64_t j = 0; j < tokens; ++j) {
          if (!Attends(layout, i, j)) continue;
          const double* const k = at(sample, j, 1, head);
          const int64_t dy = i / layout.width - j / layout.width;
          const int64_t dx = i % layout.width - j % layout.width;
          const int64_t row =
              (dy + layout.window - 1) * (2 * layout.window - 1) + dx +
              layout.window - 1;
          const double bias = table[row * kHeads + head];
          const double weight =
              std::exp(scale * dot(q, k) / std::sqrt(dot(q, q) * dot(k, k)) +
                       16 / (1 + std::exp(-bias)));
          total += weight;
          for (int64_t c = 0; c < kHeadDim; ++c) {
            sums[c] += weight * at(sample, j, 2, head)[c];
          }
        }
        for (int64_t c = 0; c < kHeadDim; ++c) {
          out[(sample * tokens + i) * width + head * kHeadDim + c] =
              sums[c] / total;
        }
      }
    }
  }
  return out;
}

TEST(WindowAttentionTest, IsTheFormulaWhereverWindowsLie) {
  CpuDevice device(kPlenty);
  for (const WindowLayout& layout :
       {WindowLayout{.height = 4, .width = 4, .window = 4},
        WindowLayout{.height = 4, .width = 6, .window = 2},
        WindowLayout{.height = 4, .width = 6, .window = 2, .shift = 1},
        WindowLayout{.height = 6, .width = 3, .window = 3, .shift = 2}}) {
    SCOPED_TRACE(layout.shift);
    const int64_t tokens = layout.height * layout.width;
    for (const DType dtype : kFloatingTypes) {
      Operands in(device, dtype);
      const Tensor qkv = in({2, tokens, 3 * kHeads * kHeadDim});
      const Tensor scales = in({kHeads});
      const Tensor biases = in({layout.differences(), kHeads});
      ExpectNear(WindowAttentionForward(layout, qkv, scales, biases),
                 Expected(layout, qkv, scales, biases), "out",
                 /*slack=*/32);
    }
  }
}

TEST(WindowAttentionTest, ScalesAreBounded) {
  CpuDevice device(kPlenty);
  const WindowLayout layout = {.height = 2, .width = 2, .window = 2};
  Operands in(device, DType::kFloat64);
  const Tensor qkv = in({1, 4, 3 * kHeads * kHeadDim});
  const Tensor biases = in({layout.differences(), kHeads});
  const std::vector<double> above = {7, std::log(100.0) + 1e-3};
  const Tensor scales = Tensor::FromValues<double>(device, {kHeads}, above);
  ExpectNear(WindowAttentionForward(layout, qkv, scales, biases),
             Expected(layout, qkv, scales, biases), "out", /*slack=*/32);
  const WindowAttentionBackwardResult back = WindowAttentionBackward(
      layout, qkv, scales, biases, in({1, 4, kHeads * kHeadDim}));
  EXPECT_EQ(Doubles(back.log_scales), (std::vector<double>{0, 0}));
}

}  // namespace
}  // namespace trireme
