// Seconds of spatial sparse attention at the sizes of Direct3D-S2 (32 heads of
// 32 channels, 2 of keys, top 8), forward and backward, and of dense attention
// over the same tokens: sparse_attention_benchmark [TOKENS [bf16|fp32]]. Tokens
// are cells of a sphere's surface. Beside what is aimed at for 32768 tokens.

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "runtime/device/cpu_device.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/sparse_attention.h"
#include "runtime/ops/spatial_blocks.h"
#include "tools/bench/random.h"

namespace trireme {
namespace {

constexpr double kAimedForward = 3;
constexpr double kAimedBackward = 5;
constexpr int64_t kHeads = 32, kKeyHeads = 2, kHeadDim = 32, kTopK = 8;

// The `count` cells nearest to a sphere of about as many.
std::vector<int32_t> Sphere(int64_t count, int64_t* resolution) {
  const double radius = std::sqrt(static_cast<double>(count) / (4 * M_PI));
  *resolution = static_cast<int64_t>(2 * radius) + 10;
  struct Cell {
    double distance;
    int32_t place[3];
  };
  std::vector<Cell> cells;
  for (int32_t z = 0; z < *resolution; ++z) {
    for (int32_t y = 0; y < *resolution; ++y) {
      for (int32_t x = 0; x < *resolution; ++x) {
        const double center = static_cast<double>(*resolution) / 2;
        const double distance = std::abs(
            std::hypot(x + 0.5 - center, y + 0.5 - center, z + 0.5 - center) -
            radius);
        if (distance < 2) cells.push_back({distance, {x, y, z}});
      }
    }
  }
  std::stable_sort(
      cells.begin(), cells.end(),
      [](const Cell& a, const Cell& b) { return a.distance < b.distance; });
  std::vector<int32_t> voxels;
  for (int64_t i = 0; i < count; ++i) {
    voxels.insert(voxels.end(), cells[i].place, cells[i].place + 3);
  }
  return voxels;
}

// Of the second run.
template <typename F>
double SecondsOf(F&& f) {
  f();
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

void Print(const char* pass, double sparse, double dense, double aim) {
  std::printf(
      "%s: sparse %.2f s, dense %.2f s: %.1f times as fast (aimed at for 32768 "
      "tokens: "
      "%.0f, "
      "%s)\n",
      pass, sparse, dense, dense / sparse, aim,
      dense / sparse >= aim ? "reached" : "NOT REACHED");
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  const int64_t tokens = argc > 1 ? std::atoll(argv[1]) : 32768;
  const DType dtype = argc > 2 && std::string(argv[2]) == "fp32"
                          ? DType::kFloat32
                          : DType::kBFloat16;
  CpuDevice device(int64_t{16} << 30);
  int64_t resolution = 0;
  const std::vector<int32_t> voxels = Sphere(tokens, &resolution);
  const std::vector<int32_t> counts = {static_cast<int32_t>(tokens)};
  const SpatialBlocks blocks = PartitionTokens(
      Tensor::FromValues<int32_t>(device, {1, tokens, 3}, voxels),
      Tensor::FromValues<int32_t>(device, {1}, counts), resolution);
  std::printf("%lld tokens, %d blocks of 4^3 and %d of 8^3, %d threads\n",
              static_cast<long long>(tokens),
              blocks.small.counts.ToVector<int32_t>()[0],
              blocks.large.counts.ToVector<int32_t>()[0],
              omp_get_max_threads());
  const auto views = [&](const Tensor& q, const Tensor& kv,
                         const Tensor& compressed, const Tensor& gates) {
    const auto part = [](const Tensor& x, int64_t parts, int64_t index) {
      return PackedHeads(x, parts, index, kHeadDim);
    };
    return SparseAttentionInputs{part(q, 1, 0),          part(kv, 2, 0),
                                 part(kv, 2, 1),         part(compressed, 2, 0),
                                 part(compressed, 2, 1), gates};
  };
  const int64_t key_width = 2 * kKeyHeads * kHeadDim;
  const Tensor q = RandomTensor(device, {1, tokens, kHeads * kHeadDim}, dtype);
  const Tensor kv = RandomTensor(device, {1, tokens, key_width}, dtype);
  const Tensor compressed =
      RandomTensor(device, {1, blocks.small.most, key_width}, dtype);
  const Tensor gates = RandomTensor(device, {1, tokens, 3}, dtype);
  const SparseAttentionInputs inputs = views(q, kv, compressed, gates);
  const SparseAttentionInputs gradients =
      views(Tensor::EmptyLike(q), Tensor::EmptyLike(kv),
            Tensor::EmptyLike(compressed), Tensor::EmptyLike(gates));
  const SparseAttentionOptions options = {.top_k = kTopK, .shifted = true};
  SparseAttentionResult sparse;
  const double sparse_forward = SecondsOf(
      [&] { sparse = SparseAttentionForward(inputs, blocks, options); });
  const double sparse_backward = SecondsOf([&] {
    SparseAttentionBackward(inputs, blocks, options, sparse, q, gradients);
  });
  const double scale = 1 / std::sqrt(double{kHeadDim});
  AttentionResult dense;
  const double dense_forward = SecondsOf(
      [&] { dense = AttentionForward(inputs.q, inputs.k, inputs.v, scale); });
  Print("forward", sparse_forward, dense_forward, kAimedForward);
  const double dense_backward = SecondsOf([&] {
    AttentionBackward(inputs.q, inputs.k, inputs.v, dense, q, scale, {},
                      gradients.q, gradients.k, gradients.v);
  });
  Print("backward", sparse_backward, dense_backward, kAimedBackward);
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::Main(argc, argv); }
