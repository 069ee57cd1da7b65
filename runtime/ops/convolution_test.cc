// Convolution, enlargement and group norm against their formulas in fp64.

#include "runtime/ops/convolution.h"

#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/group_norm.h"
#include "runtime/ops/kernels/group_norm.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

class ConvolutionTest : public testing::TestWithParam<DType> {
 protected:
  CpuDevice device_{kPlenty};
};

std::vector<double> Expected(const Tensor& x, const Tensor& weight,
                             const Tensor* bias,
                             const ConvolutionOptions& options,
                             int64_t out_height, int64_t out_width) {
  const std::vector<double> pixels = Doubles(x), factors = Doubles(weight);
  const int64_t channels = x.dim(3), k = weight.dim(2);
  std::vector<double> y;
  for (int64_t n = 0; n < x.dim(0); ++n) {
    for (int64_t i = 0; i < out_height; ++i) {
      for (int64_t j = 0; j < out_width; ++j) {
        for (int64_t o = 0; o < weight.dim(0); ++o) {
          double sum = bias == nullptr ? 0 : Doubles(*bias)[o];
          for (int64_t p = 0; p < k; ++p) {
            for (int64_t q = 0; q < k; ++q) {
              const int64_t row =
                  i * options.stride + p - options.padding_before;
              const int64_t column =
                  j * options.stride + q - options.padding_before;
              if (row < 0 || row >= x.dim(1) || column < 0 ||
                  column >= x.dim(2)) {
                continue;
              }
              for (int64_t c = 0; c < channels; ++c) {
                sum += pixels[((n * x.dim(1) + row) * x.dim(2) + column) *
                                  channels +
                              c] *
                       factors[((o * channels + c) * k + p) * k + q];
              }
            }
          }
          y.push_back(sum);
        }
      }
    }
  }
  return y;
}

// Each convolution of an autoencoder: the usual one, the one between levels,
// whose zeros are below and right of the picture only, and a product by pixel.
TEST_P(ConvolutionTest, IsTheSumOverItsWindow) {
  struct Case {
    int64_t height, width, in, out, kernel;
    ConvolutionOptions options;
    int64_t out_height, out_width;
  };
  const Case cases[] = {
      {9, 7, 3, 8, 3, {.padding_before = 1, .padding_after = 1}, 9, 7},
      {8, 6, 16, 8, 3, {.stride = 2, .padding_after = 1}, 4, 3},
      {7, 5, 4, 5, 3, {.stride = 2, .padding_after = 1}, 3, 2},
      {5, 4, 6, 10, 1, {}, 5, 4},
      {1, 1, 2, 2, 3, {.padding_before = 1, .padding_after = 1}, 1, 1},
  };
  uint32_t seed = 1;
  for (const Case& c : cases) {
    const Tensor x =
        RandomTensor(device_, {2, c.height, c.width, c.in}, GetParam(), ++seed);
    const Tensor weight = RandomTensor(
        device_, {c.out, c.in, c.kernel, c.kernel}, GetParam(), ++seed);
    const Tensor bias = RandomTensor(device_, {c.out}, GetParam(), ++seed);
    for (const Tensor* added : {&bias, static_cast<const Tensor*>(nullptr)}) {
      const Tensor y = Convolve(x, weight, added, c.options);
      ASSERT_EQ(y.shape(), (Shape{2, c.out_height, c.out_width, c.out}));
      // A window has up to 144 products.
      ExpectNear(
          y, Expected(x, weight, added, c.options, c.out_height, c.out_width),
          "convolution", 16);
    }
  }
}

TEST_P(ConvolutionTest, DoublingRepeatsEachPixel) {
  const Tensor x = RandomTensor(device_, {2, 3, 2, 5}, GetParam(), 1);
  const std::vector<double> pixels = Doubles(x);
  const Tensor y = DoubleNearest(x);
  ASSERT_EQ(y.shape(), (Shape{2, 6, 4, 5}));
  const std::vector<double> doubled = Doubles(y);
  size_t at = 0;
  for (int64_t n = 0; n < 2; ++n) {
    for (int64_t i = 0; i < 6; ++i) {
      for (int64_t j = 0; j < 4; ++j) {
        for (int64_t c = 0; c < 5; ++c) {
          EXPECT_EQ(doubled[at++],
                    pixels[((n * 3 + i / 2) * 2 + j / 2) * 5 + c]);
        }
      }
    }
  }
}

// More pixels than one block of sums has.
constexpr int64_t kPixels = kGroupNormBlockPixels + 100;

TEST_P(ConvolutionTest, GroupsAreNormedByTheirOwnPixelsAndChannels) {
  constexpr int64_t kChannels = 12, kGroups = 4, kWidth = kChannels / kGroups;
  constexpr double kEps = 1e-6;
  const Tensor x =
      RandomTensor(device_, {2, kPixels, kChannels}, GetParam(), 1);
  const Tensor weight = RandomTensor(device_, {kChannels}, GetParam(), 2);
  const Tensor bias = RandomTensor(device_, {kChannels}, GetParam(), 3);
  const std::vector<double> values = Doubles(x), scale = Doubles(weight),
                            shift = Doubles(bias);
  std::vector<double> normed(values.size()), activated(values.size());
  for (int64_t n = 0; n < 2; ++n) {
    for (int64_t group = 0; group < kGroups; ++group) {
      double sum = 0, squares = 0;
      const auto for_all = [&](auto&& visit) {
        for (int64_t pixel = 0; pixel < kPixels; ++pixel) {
          for (int64_t c = group * kWidth; c < (group + 1) * kWidth; ++c) {
            visit((n * kPixels + pixel) * kChannels + c, c);
          }
        }
      };
      for_all([&](int64_t i, int64_t) { sum += values[i]; });
      const double mean = sum / (kPixels * kWidth);
      for_all([&](int64_t i, int64_t) {
        squares += (values[i] - mean) * (values[i] - mean);
      });
      const double rstd = 1 / std::sqrt(squares / (kPixels * kWidth) + kEps);
      for_all([&](int64_t i, int64_t c) {
        normed[i] = (values[i] - mean) * rstd * scale[c] + shift[c];
        activated[i] = normed[i] / (1 + std::exp(-normed[i]));
      });
    }
  }
  ExpectNear(GroupNorm(x, kGroups, weight, bias, kEps), normed, "norm", 8);
  ExpectNear(GroupNorm(x, kGroups, weight, bias, kEps, Activation::kSilu),
             activated, "norm and SiLU", 8);
}

INSTANTIATE_TEST_SUITE_P(EveryType, ConvolutionTest,
                         testing::ValuesIn(kFloatingTypes),
                         [](const testing::TestParamInfo<DType>& info) {
                           return std::string(DTypeName(info.param));
                         });

}  // namespace
}  // namespace trireme
