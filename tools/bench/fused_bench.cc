#include <omp.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "benchmark/benchmark.h"
#include "fmt/format.h"
#include "runtime/ops/adamw.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/normalization.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"
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

FusedOp MemcpyAs(Device& device, int64_t bytes) {
  return {MemcpyOf(device, bytes), bytes / 2 * 2};
}

FusedOp Memcpy(Device& device, DType dtype) {
  return MemcpyAs(device, 2 * Activations(device, dtype).bytes());
}

MakeOp NormModulate(NormKind kind) {
  return [kind](Device& device, DType dtype) -> FusedOp {
    const Tensor x = Activations(device, dtype);
    const Tensor scale = PerSample(device, dtype);
    const Tensor shift = PerSample(device, dtype);
    return {[=] { NormModulateForward(kind, x, &scale, &shift, 1e-6); },
            2 * x.bytes()};
  };
}

MakeOp NormModulateGradient(NormKind kind) {
  return [kind](Device& device, DType dtype) -> FusedOp {
    const Tensor x = Activations(device, dtype);
    const Tensor scale = PerSample(device, dtype);
    const Tensor shift = PerSample(device, dtype);
    const NormResult forward =
        NormModulateForward(kind, x, &scale, &shift, 1e-6);
    return {[=] {
              NormModulateBackward(kind, x, forward, &scale, forward.out,
                                   Tensor());
            },
            3 * x.bytes()};
  };
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

FusedOp Rope(Device& device, DType dtype) {
  const HeadsNormRope op(device, dtype);
  return {[=] {
            for (int part : {0, 1}) {
              HeadsNormRopeForward(PackedHeads(op.qkv, 3, part, kHeadDim),
                                   nullptr, &op.rope, 1e-6,
                                   PackedHeads(op.out, 3, part, kHeadDim));
            }
          },
          2 * 2 * op.qkv.bytes() / 3};
}

FusedOp RopeGradient(Device& device, DType dtype) {
  const HeadsNormRope op(device, dtype);
  return {[=] {
            for (int part : {0, 1}) {
              const HeadsView x = PackedHeads(op.qkv, 3, part, kHeadDim);
              HeadsNormRopeBackward(x, nullptr, &op.rope, Tensor(), x,
                                    PackedHeads(op.out, 3, part, kHeadDim),
                                    nullptr);
            }
          },
          2 * 2 * op.qkv.bytes() / 3};
}

MakeOp Activate(Activation activation) {
  return [activation](Device& device, DType dtype) -> FusedOp {
    const Tensor x = Activations(device, dtype, 4 * kHidden);
    return {[=] { ActivationForward(activation, x); }, 2 * x.bytes()};
  };
}

MakeOp ActivateGradient(Activation activation) {
  return [activation](Device& device, DType dtype) -> FusedOp {
    const Tensor x = Activations(device, dtype, 4 * kHidden);
    return {[=] { ActivationBackward(activation, x, x); }, 3 * x.bytes()};
  };
}

// An MLP of as many parameters as one of 4·hidden without gate.
constexpr int64_t kSwiGluHidden = 8 * kHidden / 3;

FusedOp SwiGlu(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype, 2 * kSwiGluHidden);
  return {[=] { SwiGluForward(x); }, x.bytes() + x.bytes() / 2};
}

FusedOp SwiGluGradient(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype, 2 * kSwiGluHidden);
  const Tensor slope = Activations(device, dtype, kSwiGluHidden);
  return {[=] { SwiGluBackward(x, slope); }, 2 * x.bytes() + slope.bytes()};
}

FusedOp Softmax(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype);
  return {[=] { SoftmaxForward(x); }, 2 * x.bytes()};
}

FusedOp SoftmaxGradient(Device& device, DType dtype) {
  const Tensor y = SoftmaxForward(Activations(device, dtype));
  return {[=] { SoftmaxBackward(y, y); }, 3 * y.bytes()};
}

FusedOp SquaredError(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype), y = Activations(device, dtype);
  return {[=] { SquaredErrorSum(x, y); }, 2 * x.bytes()};
}

FusedOp SquaredErrorGradient(Device& device, DType dtype) {
  const Tensor x = Activations(device, dtype), y = Activations(device, dtype);
  return {[=] { SquaredErrorBackward(x, y, 0.5); }, 3 * x.bytes()};
}

// Of as many rows as there are tokens, and ImageNet's classes.
struct Classification {
  Classification(Device& device, DType dtype)
      : logits(RandomTensor(device, {kSamples * kTokens, kClasses}, dtype)) {
    std::vector<int32_t> classes(kSamples * kTokens);
    for (size_t i = 0; i < classes.size(); ++i) {
      classes[i] = static_cast<int32_t>(i * 7 % kClasses);
    }
    labels = Tensor::FromValues<int32_t>(device, {kSamples * kTokens}, classes);
  }

  static constexpr int64_t kClasses = 1000;
  Tensor logits, labels;
};

FusedOp CrossEntropy(Device& device, DType dtype) {
  const Classification op(device, dtype);
  return {[=] { CrossEntropySum(op.logits, op.labels); }, op.logits.bytes()};
}

FusedOp CrossEntropyGradient(Device& device, DType dtype) {
  const Classification op(device, dtype);
  return {[=] { CrossEntropyBackward(op.logits, op.labels, 0.5); },
          2 * op.logits.bytes()};
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

FusedOp Ema(Device& device, DType) {
  const Tensor master = RandomTensor(device, {kWeights}, DType::kFloat32);
  const Tensor average = RandomTensor(device, {kWeights}, DType::kFloat32);
  return {[=] { EmaStep(0.999, master, average); }, 3 * master.bytes()};
}

const std::vector<NamedOp>& Ops() {
  static const auto& ops = *new std::vector<NamedOp>{
      {"norm_modulate", NormModulate(NormKind::kLayer)},
      {"norm_modulate_gradient", NormModulateGradient(NormKind::kLayer)},
      {"rms_norm_modulate", NormModulate(NormKind::kRms)},
      {"rms_norm_modulate_gradient", NormModulateGradient(NormKind::kRms)},
      {"qk_norm_rope", QkNormRope},
      {"qk_norm_rope_gradient", QkNormRopeGradient},
      {"rope", Rope},
      {"rope_gradient", RopeGradient},
      {"gelu", Activate(Activation::kGeluTanh)},
      {"gelu_gradient", ActivateGradient(Activation::kGeluTanh)},
      {"silu", Activate(Activation::kSilu)},
      {"silu_gradient", ActivateGradient(Activation::kSilu)},
      {"swiglu", SwiGlu},
      {"swiglu_gradient", SwiGluGradient},
      {"gated_residual", GatedResidual},
      {"gated_residual_gradient", GatedResidualGradient},
      {"softmax", Softmax},
      {"softmax_gradient", SoftmaxGradient},
      {"squared_error", SquaredError},
      {"squared_error_gradient", SquaredErrorGradient},
      {"cross_entropy", CrossEntropy},
      {"cross_entropy_gradient", CrossEntropyGradient},
      {"bias_gradient", BiasGradient},
      {"gradient_norm", GradientNorm},
      {"adamw", AdamW},
      {"ema", Ema},
  };
  return ops;
}

std::string Key(const BenchSetting& setting, const char* name) {
  return fmt::format("{}.{}", setting.Prefix("fused"), name);
}

// Of the memcpy that an op is compared with: of as many bytes, measured right
// after it.
std::string MemcpyKey(const BenchSetting& setting, const char* name) {
  return Key(setting, name) + ".memcpy";
}

void Register(const BenchSetting& setting, const std::string& key,
              const MakeOp& make) {
  benchmark::RegisterBenchmark(
      key.c_str(), [setting, make](benchmark::State& state) {
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

}  // namespace

std::function<void()> MemcpyOf(Device& device, int64_t bytes) {
  const Tensor x = Tensor::Zeros(device, {bytes / 2}, DType::kUint8);
  const Tensor y = Tensor::EmptyLike(x);
  return [=] {
    const int threads = omp_get_max_threads();
    const auto* from = static_cast<const char*>(x.raw_data());
    auto* to = static_cast<char*>(y.raw_data());
#pragma omp parallel for num_threads(threads)
    for (int i = 0; i < threads; ++i) {
      const int64_t begin = x.bytes() * i / threads;
      const int64_t end = x.bytes() * (i + 1) / threads;
      std::memcpy(to + begin, from + begin, end - begin);
    }
  };
}

void RegisterFusedBenchmarks(const BenchSetting& setting) {
  Register(setting, Key(setting, "memcpy"), Memcpy);
  for (const NamedOp& op : Ops()) {
    Register(setting, Key(setting, op.name), op.make);
    Register(setting, MemcpyKey(setting, op.name),
             [make = op.make](Device& device, DType dtype) {
               return MemcpyAs(device, make(device, dtype).bytes);
             });
  }
}

void AddFractionsOfMemcpy(const BenchSetting& setting, Figures* figures) {
  for (const NamedOp& op : Ops()) {
    const std::string key = Key(setting, op.name);
    const std::optional<double> rate = Find(*figures, key + ".gb_per_s");
    const std::optional<double> copy =
        Find(*figures, MemcpyKey(setting, op.name) + ".gb_per_s");
    if (rate.has_value() && copy.has_value()) {
      (*figures)[key + ".of_memcpy"] = *rate / *copy;
    }
  }
}

}  // namespace trireme
