#include <omp.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "benchmark/benchmark.h"
#include "fmt/format.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/normalization.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"
#include "runtime/optim/adamw.h"
#include "tools/bench/kernels.h"
#include "tools/bench/random.h"

namespace trireme {
namespace {

constexpr int64_t kSamples = 8, kTokens = 256, kHidden = 384, kHeadDim = 64;
constexpr int64_t kWeights = 4 * kHidden * kHidden;

// One op: what a run does, and the bytes it reads and writes.
struct FusedOp {
  std::function<void()> run;
  int64_t bytes;
};

using MakeOp = std::function<FusedOp(Device&, DType)>;

struct NamedOp {
  const char* name;
  MakeOp make;
};

Tensor Activations(Device& device, DType dtype, int64_t width = kHidden) {
  return RandomTensor(device, {kSamples, kTokens, width}, dtype);
}

Tensor PerSample(Device& device, DType dtype) {
  return RandomTensor(device, {kSamples, kHidden}, dtype);
}

FusedOp Memcpy(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype);
  const Tensor y = Tensor::EmptyLike(x);
  return {[=] {
            const int threads = omp_get_max_threads();
            const int64_t bytes = x.bytes() / threads;
            const auto* from = static_cast<const char*>(x.raw_data());
            auto* to = static_cast<char*>(y.raw_data());
#pragma omp parallel for num_threads(threads)
            for (int i = 0; i < threads; ++i) {
              std::memcpy(to + i * bytes, from + i * bytes, bytes);
            }
          },
          2 * x.bytes()};
}

FusedOp NormModulate(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype);
  const Tensor scale = PerSample(device, dtype);
  const Tensor shift = PerSample(device, dtype);
  return {
      [=] { NormModulateForward(NormKind::kLayer, x, &scale, &shift, 1e-6); },
      2 * x.bytes()};
}

FusedOp NormModulateGradient(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype);
  const Tensor scale = PerSample(device, dtype);
  const Tensor shift = PerSample(device, dtype);
  const NormResult forward =
      NormModulateForward(NormKind::kLayer, x, &scale, &shift, 1e-6);
  return {[=] {
            NormModulateBackward(NormKind::kLayer, x, forward, &scale,
                                 forward.out, Tensor());
          },
          3 * x.bytes()};
}

// Of the queries and keys in qkv.
struct HeadsNormRope {
  HeadsNormRope(Device& device, DType dtype)
      : qkv(Activations(device, dtype, 3 * kHidden)),
        out(Tensor::EmptyLike(qkv)),
        weight(RandomTensor(device, {kHeadDim}, dtype)),
        rope([&] {
          std::vector<double> positions;
          for (int64_t token = 0; token < kTokens; ++token) {
            positions.push_back(static_cast<double>(token / 16));
            positions.push_back(static_cast<double>(token % 16));
          }
          return MakeRopeTable(device, std::array<int64_t, 2>{32, 32},
                               positions, 1e4, DType::kFloat32);
        }()) {}

  Tensor qkv, out, weight;
  RopeTable rope;
};

FusedOp QkNormRope(Device& device, DType dtype) {
  const HeadsNormRope op(device, dtype);
  return {[=] {
            for (int part : {0, 1}) {
              HeadsNormRopeForward(PackedHeads(op.qkv, 3, part, kHeadDim),
                                   &op.weight, &op.rope, 1e-6,
                                   PackedHeads(op.out, 3, part, kHeadDim));
            }
          },
          2 * 2 * op.qkv.bytes() / 3};
}

FusedOp QkNormRopeGradient(Device& device, DType dtype) {
  const HeadsNormRope op(device, dtype);
  const HeadsView x = PackedHeads(op.qkv, 3, 0, kHeadDim);
  const HeadsView out = PackedHeads(op.out, 3, 0, kHeadDim);
  const Tensor rstd = HeadsNormRopeForward(x, &op.weight, &op.rope, 1e-6, out);
  const Tensor grad_weight = Tensor::Zeros(device, {kHeadDim}, DType::kFloat32);
  return {[=] {
            for (int part : {0, 1}) {
              HeadsNormRopeBackward(
                  PackedHeads(op.qkv, 3, part, kHeadDim), &op.weight, &op.rope,
                  rstd, PackedHeads(op.qkv, 3, part, kHeadDim),
                  PackedHeads(op.out, 3, part, kHeadDim), &grad_weight);
            }
          },
          3 * 2 * op.qkv.bytes() / 3};
}

FusedOp Gelu(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype, 4 * kHidden);
  return {[=] { ActivationForward(Activation::kGeluTanh, x); }, 2 * x.bytes()};
}

FusedOp GeluGradient(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype, 4 * kHidden);
  return {[=] { ActivationBackward(Activation::kGeluTanh, x, x); },
          3 * x.bytes()};
}

FusedOp GatedResidual(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype);
  const Tensor y = Activations(device, dtype);
  const Tensor gate = PerSample(device, dtype);
  return {[=] { GatedResidualForward(x, gate, y); }, 3 * x.bytes()};
}

FusedOp GatedResidualGradient(Device& device, DType dtype) {
  const Tensor y = Activations(device, dtype);
  const Tensor gate = PerSample(device, dtype);
  return {[=] { GatedResidualBackward(gate, y, y); }, 3 * y.bytes()};
}

FusedOp BiasGradient(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype, 4 * kHidden);
  const Tensor sums = Tensor::Zeros(device, {4 * kHidden}, DType::kFloat32);
  return {[=] { AccumulateColumnSums(x, sums); }, x.bytes()};
}

FusedOp GradientNorm(Device& device, DType) {
  const Tensor x = RandomTensor(device, {kWeights}, DType::kFloat32);
  return {[=] { benchmark::DoNotOptimize(SumOfSquares(x)); }, x.bytes()};
}

FusedOp AdamW(Device& device, DType dtype) {
  auto make = [&] { return RandomTensor(device, {kWeights}, DType::kFloat32); };
  const Tensor grad = make(), master = make(), m = make(), v = make();
  for (int64_t i = 0; i < kWeights; ++i) {
    v.data<float>()[i] = std::abs(v.data<float>()[i]);
  }
  const Tensor value = dtype == DType::kFloat32
                           ? master
                           : RandomTensor(device, {kWeights}, dtype);
  return {[=] { AdamWStep({}, grad, master, m, v, value); },
          7 * grad.bytes() + (dtype == DType::kFloat32 ? 0 : value.bytes())};
}

const std::vector<NamedOp>& Ops() {
  static const auto& ops = *new std::vector<NamedOp>{
      {"memcpy", Memcpy},
      {"norm_modulate", NormModulate},
      {"norm_modulate_gradient", NormModulateGradient},
      {"qk_norm_rope", QkNormRope},
      {"qk_norm_rope_gradient", QkNormRopeGradient},
      {"gelu", Gelu},
      {"gelu_gradient", GeluGradient},
      {"gated_residual", GatedResidual},
      {"gated_residual_gradient", GatedResidualGradient},
      {"bias_gradient", BiasGradient},
      {"gradient_norm", GradientNorm},
      {"adamw", AdamW},
  };
  return ops;
}

std::string Key(const BenchSetting& setting, const char* name) {
  return fmt::format("{}.{}", setting.Prefix("fused"), name);
}

}  // namespace

void RegisterFusedBenchmarks(const BenchSetting& setting) {
  for (const NamedOp& op : Ops()) {
    benchmark::RegisterBenchmark(
        Key(setting, op.name).c_str(),
        [setting, make = op.make](benchmark::State& state) {
          omp_set_num_threads(setting.threads);
          const FusedOp op = make(*setting.device, setting.dtype);
          for (auto _ : state) {
            op.run();
            benchmark::ClobberMemory();
          }
          state.counters["gb_per_s"] =
              benchmark::Counter(static_cast<double>(op.bytes) * 1e-9,
                                 benchmark::Counter::kIsIterationInvariantRate);
        });
  }
}

void AddFractionsOfMemcpy(const BenchSetting& setting, Figures* figures) {
  const std::optional<double> copy =
      Find(*figures, Key(setting, "memcpy") + ".gb_per_s");
  if (!copy.has_value()) return;
  for (const NamedOp& op : Ops()) {
    const std::string key = Key(setting, op.name);
    const std::optional<double> rate = Find(*figures, key + ".gb_per_s");
    if (rate.has_value()) (*figures)[key + ".of_memcpy"] = *rate / *copy;
  }
}

}  // namespace trireme
