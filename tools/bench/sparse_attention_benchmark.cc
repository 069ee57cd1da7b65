// Seconds of spatial sparse attention at the sizes of Direct3D-S2 (32 heads of
// 32 channels, 2 of keys, top 8), forward and backward, and of dense attention
// over the same tokens: sparse_attention_benchmark [TOKENS [bf16|fp32 [DENSE
// HEADS]]]. Dense attention is measured on so many of the heads (4), and its
// time multiplied. Tokens are cells of a sphere's surface. Beside what is aimed
// at for 32768 tokens: how many keys a token attends to, and so how much faster
// it could be; and the most memory of both passes, for 8192 tokens and more.
//
// On 2 cores 32768 tokens take some minutes.

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
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
constexpr int64_t kHeads = 32, kKeyHeads = 2, kHeadDim = 32;
const SparseAttentionOptions kOptions = {.top_k = 8, .shifted = true};

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

// Cells, how they lie together, and what is attended with.
struct Problem {
  Problem(Device& device, int64_t count, DType dtype) : tokens(count) {
    int64_t resolution = 0;
    const std::vector<int32_t> voxels = Sphere(tokens, &resolution);
    blocks = PartitionTokens(
        Tensor::FromValues<int32_t>(device, {1, tokens, 3}, voxels),
        Tensor::FromValues<int32_t>(
            device, {1}, std::vector<int32_t>{static_cast<int32_t>(tokens)}),
        resolution);
    const int64_t key_width = 2 * kKeyHeads * kHeadDim;
    const auto operand = [&](int64_t rows, int64_t width) {
      const Shape shape = {1, rows, width};
      return device.dry() ? Tensor::Empty(device, shape, dtype)
                          : RandomTensor(device, shape, dtype);
    };
    q = operand(tokens, kHeads * kHeadDim);
    kv = operand(tokens, key_width);
    compressed = operand(blocks.small.most, key_width);
    gates = operand(tokens, kSparseBranches);
  }

  static SparseAttentionInputs Views(const Tensor& q, const Tensor& kv,
                                     const Tensor& compressed,
                                     const Tensor& gates) {
    const auto part = [](const Tensor& x, int64_t parts, int64_t index) {
      return PackedHeads(x, parts, index, kHeadDim);
    };
    return {part(q, 1, 0),          part(kv, 2, 0),         part(kv, 2, 1),
            part(compressed, 2, 0), part(compressed, 2, 1), gates};
  }
  SparseAttentionResult Forward() const {
    return SparseAttentionForward(Views(q, kv, compressed, gates), blocks,
                                  kOptions);
  }
  // Of an output gradient of the queries' values.
  void Backward(const SparseAttentionResult& forward) const {
    SparseAttentionBackward(
        Views(q, kv, compressed, gates), blocks, kOptions, forward, q,
        Views(Tensor::EmptyLike(q), Tensor::EmptyLike(kv),
              Tensor::EmptyLike(compressed), Tensor::EmptyLike(gates)));
  }

  int64_t tokens;
  SpatialBlocks blocks;
  Tensor q, kv, compressed, gates;
};

// Keys that a token attends to, on average.
double KeysOfToken(const Problem& problem,
                   const SparseAttentionResult& sparse) {
  const auto small = problem.blocks.small.counts.ToVector<int32_t>();
  const auto large = problem.blocks.large.offsets.ToVector<int32_t>();
  const auto windows = problem.blocks.windows.offsets.ToVector<int32_t>();
  double selected = 0, near = 0;
  for (const int32_t block : sparse.selected.ToVector<int32_t>()) {
    if (block >= 0) selected += large[block + 1] - large[block];
  }
  for (size_t i = 0; i + 1 < windows.size(); ++i) {
    near += std::pow(windows[i + 1] - windows[i], 2);
  }
  const auto tokens = static_cast<double>(problem.tokens);
  return small[0] + selected / (tokens * kKeyHeads) + near / tokens;
}

// The most bytes of a forward and a backward pass, of a device that computes
// nothing.
int64_t PeakBytes(int64_t tokens, DType dtype) {
  CpuDevice device(int64_t{1} << 40, CpuDevice::Mode::kDry);
  const Problem problem(device, tokens, dtype);
  problem.Backward(problem.Forward());
  return device.Statistics().peak_bytes;
}

void Print(const char* pass, double sparse, double dense, double aim) {
  std::printf(
      "%s: sparse %.2f s, dense %.2f s: %.1f times as fast (aimed at for 32768 "
      "tokens: %.0f, %s)\n",
      pass, sparse, dense, dense / sparse, aim,
      dense / sparse >= aim ? "reached" : "NOT REACHED");
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  const std::span<char*> arguments(argv, argc);
  const int64_t tokens = argc > 1 ? std::atoll(arguments[1]) : 32768;
  const DType dtype = argc > 2 && std::string(arguments[2]) == "fp32"
                          ? DType::kFloat32
                          : DType::kBFloat16;
  const int64_t dense_heads = argc > 3 ? std::atoll(arguments[3]) : 4;
  if (tokens < 1 || dense_heads < kKeyHeads || dense_heads > kHeads ||
      dense_heads % kKeyHeads != 0) {
    std::fprintf(
        stderr,
        "found %lld tokens and %lld dense heads, expected 1 or more, "
        "and a multiple of %lld up to %lld\n",
        static_cast<long long>(tokens), static_cast<long long>(dense_heads),
        static_cast<long long>(kKeyHeads), static_cast<long long>(kHeads));
    return 2;
  }
  for (const int64_t count : {8192, 16384, 32768, 131072}) {
    const int64_t bytes = PeakBytes(count, dtype);
    std::printf("%lld tokens: at most %.1f MiB, %.0f bytes a token\n",
                static_cast<long long>(count),
                static_cast<double>(bytes) / (1 << 20),
                static_cast<double>(bytes) / static_cast<double>(count));
  }
  CpuDevice device(int64_t{16} << 30);
  const Problem problem(device, tokens, dtype);
  SparseAttentionResult sparse;
  const double sparse_forward = SecondsOf([&] { sparse = problem.Forward(); });
  const double sparse_backward = SecondsOf([&] { problem.Backward(sparse); });
  const double keys = KeysOfToken(problem, sparse);
  std::printf(
      "%lld tokens, %d blocks of 4^3 and %d of 8^3, %d threads; a token "
      "attends "
      "to %.0f keys: at most %.1f times as fast\n",
      static_cast<long long>(tokens),
      problem.blocks.small.counts.ToVector<int32_t>()[0],
      problem.blocks.large.counts.ToVector<int32_t>()[0], omp_get_max_threads(),
      keys, static_cast<double>(tokens) / keys);
  const Tensor q =
      RandomTensor(device, {1, tokens, dense_heads * kHeadDim}, dtype);
  const Tensor dq = Tensor::EmptyLike(q);
  const Tensor dkv = Tensor::EmptyLike(problem.kv);
  const HeadsView queries = PackedHeads(q, 1, 0, kHeadDim);
  const HeadsView k = PackedHeads(problem.kv, 2, 0, kHeadDim);
  const HeadsView v = PackedHeads(problem.kv, 2, 1, kHeadDim);
  const double scale = 1 / std::sqrt(double{kHeadDim});
  const double times =
      static_cast<double>(kHeads) / static_cast<double>(dense_heads);
  std::printf("dense attention: %lld of %lld heads are measured\n",
              static_cast<long long>(dense_heads),
              static_cast<long long>(kHeads));
  AttentionResult dense;
  const double dense_forward =
      SecondsOf([&] { dense = AttentionForward(queries, k, v, scale); });
  Print("forward", sparse_forward, times * dense_forward, kAimedForward);
  const double dense_backward = SecondsOf([&] {
    AttentionBackward(
        queries, k, v, dense, q, scale, {}, PackedHeads(dq, 1, 0, kHeadDim),
        PackedHeads(dkv, 2, 0, kHeadDim), PackedHeads(dkv, 2, 1, kHeadDim));
  });
  Print("backward", sparse_backward, times * dense_backward, kAimedBackward);
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::Main(argc, argv); }
