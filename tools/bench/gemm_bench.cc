#include <omp.h>

#include <array>
#include <cmath>

#include "benchmark/benchmark.h"
#include "fmt/format.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/attention.h"
#include "runtime/ops/matmul.h"
#include "tools/bench/kernels.h"
#include "tools/bench/random.h"

namespace trireme {
namespace {

constexpr int64_t kSamples = 8, kTokens = 256, kHeads = 6, kHeadDim = 64;
constexpr int64_t kRows = kSamples * kTokens;

struct Linear {
  const char* name;
  int64_t in, out;
};

constexpr std::array<Linear, 4> kLinears = {{{"qkv", 384, 1152},
                                             {"proj", 384, 384},
                                             {"up", 384, 1536},
                                             {"down", 1536, 384}}};
constexpr std::array<const char*, 3> kPasses = {"forward", "input_gradient",
                                                "weight_gradient"};

double Flops(const Linear& linear) {
  return 2.0 * kRows * linear.in * linear.out;
}

std::string Key(const BenchSetting& setting, const Linear& linear,
                const char* pass) {
  return fmt::format("{}.{}_{}", setting.Prefix("gemm"), linear.name, pass);
}

void Rate(benchmark::State& state, double flops) {
  state.counters["gflops"] = benchmark::Counter(
      flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void RunLinear(benchmark::State& state, const BenchSetting& setting,
               const Linear& linear, const std::string& pass) {
  omp_set_num_threads(setting.threads);
  Device& device = *setting.device;
  const Tensor x = RandomTensor(device, {kRows, linear.in}, setting.dtype);
  const Tensor w = RandomTensor(device, {linear.out, linear.in}, setting.dtype);
  const Tensor dy = RandomTensor(device, {kRows, linear.out}, setting.dtype);
  const Tensor dw =
      Tensor::Zeros(device, {linear.out, linear.in}, DType::kFloat32);
  for (auto _ : state) {
    if (pass == "forward") {
      benchmark::DoNotOptimize(
          MatMul(x, w, nullptr, {.transpose_b = true}).raw_data());
    } else if (pass == "input_gradient") {
      benchmark::DoNotOptimize(MatMul(dy, w).raw_data());
    } else {
      MatMulAccumulate(dy, x, {.transpose_a = true}, dw);
    }
  }
  Rate(state, Flops(linear));
}

void RunAttention(benchmark::State& state, const BenchSetting& setting,
                  bool backward) {
  omp_set_num_threads(setting.threads);
  Device& device = *setting.device;
  const Shape packed{kSamples, kTokens, 3 * kHeads * kHeadDim};
  const Tensor qkv = RandomTensor(device, packed, setting.dtype);
  const Tensor gradient = Tensor::EmptyLike(qkv);
  const double scale = 1 / std::sqrt(double{kHeadDim});
  auto part = [](const Tensor& x, int64_t index) {
    return PackedHeads(x, 3, index, kHeadDim);
  };
  AttentionResult result =
      AttentionForward(part(qkv, 0), part(qkv, 1), part(qkv, 2), scale);
  for (auto _ : state) {
    if (backward) {
      AttentionBackward(part(qkv, 0), part(qkv, 1), part(qkv, 2), result,
                        result.out, scale, {}, part(gradient, 0),
                        part(gradient, 1), part(gradient, 2));
    } else {
      result =
          AttentionForward(part(qkv, 0), part(qkv, 1), part(qkv, 2), scale);
    }
  }
  const double product = 2.0 * kSamples * kHeads * kTokens * kTokens * kHeadDim;
  Rate(state, product * (backward ? 5 : 2));
}

}  // namespace

std::string BenchSetting::Prefix(const std::string& name) const {
  return fmt::format("{}.{}.threads{}", name, DTypeName(dtype), threads);
}

void RegisterGemmBenchmarks(const BenchSetting& setting) {
  for (const Linear& linear : kLinears) {
    for (const char* pass : kPasses) {
      benchmark::RegisterBenchmark(Key(setting, linear, pass).c_str(),
                                   [=](benchmark::State& state) {
                                     RunLinear(state, setting, linear, pass);
                                   });
    }
  }
  for (bool backward : {false, true}) {
    benchmark::RegisterBenchmark(
        fmt::format("{}.{}", setting.Prefix("attention"),
                    backward ? "backward" : "forward")
            .c_str(),
        [=](benchmark::State& state) {
          RunAttention(state, setting, backward);
        });
  }
}

void AddGemmCeiling(const BenchSetting& setting, Figures* figures) {
  double flops = 0;
  double seconds = 0;
  for (const Linear& linear : kLinears) {
    for (const char* pass : kPasses) {
      const std::optional<double> gflops =
          Find(*figures, Key(setting, linear, pass) + ".gflops");
      if (!gflops.has_value()) return;
      flops += Flops(linear);
      seconds += Flops(linear) * 1e-9 / *gflops;
    }
  }
  (*figures)[setting.Prefix("gemm") + ".gflops"] = flops * 1e-9 / seconds;
}

}  // namespace trireme
