#include "runtime/ops/cpu/group_norm_kernels.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace trireme {
namespace {

// The sums over a block's pixels of each channel and of its square.
template <typename T>
void SumBlock(const GroupNormArguments& a, const T* x, int64_t pixels,
              double* sums) {
  double* squares = sums + a.channels;
  std::fill_n(sums, 2 * a.channels, 0.0);
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    const T* row = x + pixel * a.channels;
    for (int64_t c = 0; c < a.channels; ++c) {
      const double value = static_cast<ComputeType<T>>(row[c]);
      sums[c] += value;
      squares[c] += value * value;
    }
  }
}

// y = x·scale[c] + shift[c] before the activation.
template <typename C>
struct Map {
  std::vector<C> scale;
  std::vector<C> shift;
};

// Of one sample, from the sums of its blocks, added in their order.
template <typename T>
Map<ComputeType<T>> MapOf(const GroupNormArguments& a, const double* sums) {
  using C = ComputeType<T>;
  const auto* weight = static_cast<const T*>(a.weight);
  const auto* bias = static_cast<const T*>(a.bias);
  const int64_t blocks = GroupNormBlocks(a.pixels);
  const int64_t width = a.channels / a.groups;
  const auto count = static_cast<double>(a.pixels * width);
  Map<C> map{std::vector<C>(a.channels), std::vector<C>(a.channels)};
  for (int64_t group = 0; group < a.groups; ++group) {
    double sum = 0, squares = 0;
    for (int64_t block = 0; block < blocks; ++block) {
      const double* of_block = sums + block * 2 * a.channels;
      for (int64_t c = group * width; c < (group + 1) * width; ++c) {
        sum += of_block[c];
        squares += of_block[a.channels + c];
      }
    }
    const double mean = sum / count;
    const double variance = std::max(squares / count - mean * mean, 0.0);
    const double rstd = 1 / std::sqrt(variance + a.eps);
    for (int64_t c = group * width; c < (group + 1) * width; ++c) {
      const double scale = static_cast<C>(weight[c]) * rstd;
      map.scale[c] = static_cast<C>(scale);
      map.shift[c] = static_cast<C>(static_cast<C>(bias[c]) - mean * scale);
    }
  }
  return map;
}

template <typename T>
void Apply(const GroupNormArguments& a, const Map<ComputeType<T>>& map,
           const T* x, int64_t pixels, T* y) {
  using C = ComputeType<T>;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (int64_t c = 0; c < a.channels; ++c) {
      const int64_t i = pixel * a.channels + c;
      C value = static_cast<C>(x[i]) * map.scale[c] + map.shift[c];
      if (a.activation == Activation::kSilu) {
        value /= C{1} + std::exp(-value);
      }
      y[i] = static_cast<T>(value);
    }
  }
}

template <typename T>
void Forward(const GroupNormArguments& a, T* y) {
  const auto* x = static_cast<const T*>(a.x);
  const int64_t blocks = GroupNormBlocks(a.pixels);
  const auto for_blocks = [&](auto&& visit) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a.batch * blocks; ++i) {
      const int64_t sample = i / blocks;
      const int64_t first = i % blocks * kGroupNormBlockPixels;
      visit(i, sample, (sample * a.pixels + first) * a.channels,
            std::min(kGroupNormBlockPixels, a.pixels - first));
    }
  };
  for_blocks([&](int64_t block, int64_t, int64_t at, int64_t pixels) {
    SumBlock(a, x + at, pixels, a.block_sums + block * 2 * a.channels);
  });
  std::vector<Map<ComputeType<T>>> maps;
  for (int64_t sample = 0; sample < a.batch; ++sample) {
    maps.push_back(
        MapOf<T>(a, a.block_sums + sample * blocks * 2 * a.channels));
  }
  for_blocks([&](int64_t, int64_t sample, int64_t at, int64_t pixels) {
    Apply(a, maps[sample], x + at, pixels, y + at);
  });
}

}  // namespace

void GroupNormKernel(const GroupNormArguments& arguments, void* y) {
  DispatchFloating(arguments.dtype, [&]<typename T>(T) {
    Forward(arguments, static_cast<T*>(y));
  });
}

}  // namespace trireme
