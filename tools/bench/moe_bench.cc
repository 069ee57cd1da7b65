#include <omp.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "fmt/format.h"
#include "moe/moe_layer.h"
#include "parallel/grid/communicators.h"
#include "runtime/comm/single.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/grouped_matmul.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/reduction.h"
#include "runtime/ops/routing.h"
#include "tools/bench/kernels.h"
#include "tools/bench/random.h"

namespace trireme {
namespace {

using ExpertKind = MoeConfig::ExpertKind;

struct LayerShape {
  const char* name;
  int64_t tokens;
  int64_t width;
  MoeConfig moe;

  int64_t rows() const { return tokens * moe.top_k; }
  // Of the product into the experts.
  int64_t inner() const {
    return moe.kind == ExpertKind::kSwiGlu ? 2 * moe.expert_hidden
                                           : moe.expert_hidden;
  }
  double flops() const {
    return 2.0 *
           static_cast<double>(rows() * width * (inner() + moe.expert_hidden));
  }
};

// HiDream-I1's layer, and that of Tutel's examples, with fewer tokens.
const LayerShape kShapes[] = {
    {"hidream", 256, 2560, {.experts = 4, .top_k = 2, .expert_hidden = 6912}},
    {"tutel",
     512,
     2048,
     {.experts = 2,
      .top_k = 2,
      .expert_hidden = 2048,
      .kind = ExpertKind::kGelu}},
    {"many_experts",
     1024,
     512,
     {.experts = 64, .top_k = 8, .expert_hidden = 256}}};

// How often tokens choose each expert: all alike, as an untrained router sends
// them, or the n-th 1/n times as often as the first.
enum class Spread { kEven, kNatural, kZipf };

const char* NameOf(Spread spread) {
  switch (spread) {
    case Spread::kEven:
      return "even";
    case Spread::kNatural:
      return "natural";
    case Spread::kZipf:
      break;
  }
  return "zipf";
}

constexpr Spread kSpreads[] = {Spread::kEven, Spread::kNatural, Spread::kZipf};

// fp32 [t, experts]: of tokens and a router of noise.
Tensor Scores(const Tensor& x, const Tensor& router) {
  return SoftmaxForward(MatMul(
      x, router, nullptr, {.transpose_b = true, .out_dtype = DType::kFloat32}));
}

// int32 [t, k], without an expert twice for a token.
Tensor Routes(Device& device, const LayerShape& shape, Spread spread) {
  if (spread == Spread::kNatural) {
    return TopK(Scores(RandomTensor(device, {shape.tokens, shape.width},
                                    DType::kFloat32),
                       RandomTensor(device, {shape.moe.experts, shape.width},
                                    DType::kFloat32)),
                shape.moe.top_k);
  }
  const int64_t experts = shape.moe.experts, k = shape.moe.top_k;
  std::vector<double> taken(experts, 0);
  std::vector<int32_t> routes;
  for (int64_t token = 0; token < shape.tokens; ++token) {
    std::vector<bool> has(experts, false);
    for (int64_t choice = 0; choice < k; ++choice) {
      int64_t best = -1;
      for (int64_t e = 0; e < experts; ++e) {
        if (!has[e] && (best < 0 || taken[e] < taken[best])) best = e;
      }
      has[best] = true;
      taken[best] +=
          spread == Spread::kEven ? 1 : static_cast<double>(best + 1);
      routes.push_back(static_cast<int32_t>(best));
    }
  }
  return Tensor::FromValues<int32_t>(device, {shape.tokens, k}, routes);
}

// The layer alone on its grid.
class Layer {
 public:
  Layer(Device& device, DType dtype, const LayerShape& shape)
      : device_(device),
        communicators_(world_, grid_),
        parallel_(device, grid_, communicators_),
        store_(device, dtype, /*seed=*/0),
        layer_(store_, grid_, "moe", shape.width, shape.moe),
        x_(RandomTensor(device, {shape.tokens, shape.width}, dtype)),
        weights_(RandomTensor(device, {shape.tokens, shape.moe.top_k},
                              DType::kFloat32)),
        most_of_expert_(shape.tokens) {
    for (const auto& parameter : store_.parameters()) {
      parameter->grad =
          Tensor::Zeros(device, parameter->value.shape(), DType::kFloat32);
    }
  }

  void Forward(const Tensor& routes) {
    Tape tape(device_, Tape::Mode::kInference);
    Run(tape, routes);
  }
  void ForwardAndBackward(const Tensor& routes) {
    Tape tape(device_);
    const Variable outputs[] = {Run(tape, routes)};
    tape.Backward(outputs, {x_}, Tape::WeightGradients::kImmediate);
  }

 private:
  Variable Run(Tape& tape, const Tensor& routes) {
    ForwardContext context{tape, parallel_};
    Routing routing;
    routing.weights = tape.Leaf(weights_);
    routing.experts = routes;
    routing.most_of_expert = most_of_expert_;
    return layer_.ThroughExperts(context, tape.Leaf(x_), routing,
                                 /*beside=*/[] {});
  }

  Device& device_;
  SingleWorld world_;
  const ProcessGrid grid_;
  Communicators communicators_;
  ParallelContext parallel_;
  ParameterStore store_;
  const MoeLayer layer_;
  const Tensor x_, weights_;
  const int64_t most_of_expert_;
};

// The layer's products as those of a dense one of the active width.
std::function<void()> DenseForward(Device& device, DType dtype,
                                   const LayerShape& shape) {
  const Tensor x = RandomTensor(device, {shape.rows(), shape.width}, dtype);
  const Tensor h =
      RandomTensor(device, {shape.rows(), shape.moe.expert_hidden}, dtype);
  const Tensor in = RandomTensor(device, {shape.inner(), shape.width}, dtype);
  const Tensor out =
      RandomTensor(device, {shape.width, shape.moe.expert_hidden}, dtype);
  return [=] {
    MatMul(x, in, nullptr, {.transpose_b = true});
    MatMul(h, out, nullptr, {.transpose_b = true});
  };
}

std::function<void()> DenseBackward(Device& device, DType dtype,
                                    const LayerShape& shape) {
  const int64_t hidden = shape.moe.expert_hidden;
  const Tensor x = RandomTensor(device, {shape.rows(), shape.width}, dtype);
  const Tensor inner =
      RandomTensor(device, {shape.rows(), shape.inner()}, dtype);
  const Tensor h = RandomTensor(device, {shape.rows(), hidden}, dtype);
  const Tensor in = RandomTensor(device, {shape.inner(), shape.width}, dtype);
  const Tensor out = RandomTensor(device, {shape.width, hidden}, dtype);
  const Tensor of_in = Tensor::Zeros(device, in.shape(), DType::kFloat32);
  const Tensor of_out = Tensor::Zeros(device, out.shape(), DType::kFloat32);
  return [=] {
    MatMul(x, out);
    MatMulAccumulate(x, h, {.transpose_a = true}, of_out);
    MatMul(inner, in);
    MatMulAccumulate(inner, x, {.transpose_a = true}, of_in);
  };
}

struct Phase {
  std::function<void()> run;
  double flops = 0;
  int64_t bytes = 0;  // read and written
};

struct NamedPhase {
  std::string name;
  std::function<Phase(Device&, DType)> make;
};

Tensor TokensOf(Device& device, DType dtype, const LayerShape& shape) {
  return RandomTensor(device, {shape.tokens, shape.width}, dtype);
}

SortedRoutes EvenRoutes(Device& device, const LayerShape& shape) {
  return SortRoutes(Routes(device, shape, Spread::kEven), shape.moe.experts);
}

// The tokens, and the scores written and read once.
int64_t RouteBytes(DType dtype, const LayerShape& shape) {
  return shape.tokens * (shape.width * DTypeSize(dtype) +
                         2 * shape.moe.experts * DTypeSize(DType::kFloat32));
}

Phase Route(Device& device, DType dtype, const LayerShape& shape) {
  const Tensor x = TokensOf(device, dtype, shape);
  const Tensor router =
      RandomTensor(device, {shape.moe.experts, shape.width}, dtype);
  return {.run =
              [=] {
                SortRoutes(TopK(Scores(x, router), shape.moe.top_k),
                           shape.moe.experts);
              },
          .flops = 2 * static_cast<double>(shape.tokens * shape.moe.experts *
                                           shape.width),
          .bytes = RouteBytes(dtype, shape)};
}

Phase Permute(Device& device, DType dtype, const LayerShape& shape) {
  const Tensor x = TokensOf(device, dtype, shape);
  const SortedRoutes sorted = EvenRoutes(device, shape);
  return {.run = [=] { GatherRows(x, sorted.tokens); },
          .bytes = 2 * shape.moe.top_k * x.bytes()};
}

Phase Combine(Device& device, DType dtype, const LayerShape& shape) {
  const Tensor rows = RandomTensor(device, {shape.rows(), shape.width}, dtype);
  const SortedRoutes sorted = EvenRoutes(device, shape);
  return {.run = [=] { SumRows(rows, sorted.places); },
          .bytes = rows.bytes() + rows.bytes() / shape.moe.top_k};
}

// The same sums in the order of the rows, as they come from the experts: what
// the fixed order of a token's choices costs is the difference.
Phase Scatter(Device& device, DType dtype, const LayerShape& shape) {
  const Tensor rows = RandomTensor(device, {shape.rows(), shape.width}, dtype);
  const SortedRoutes sorted = EvenRoutes(device, shape);
  const Tensor sums =
      Tensor::Zeros(device, {shape.tokens, shape.width}, ComputeDType(dtype));
  return {.run = [=] { ScatterAddRows(rows, sorted.tokens, sums); },
          .bytes = rows.bytes() + 2 * sums.bytes()};
}

struct Products {
  std::vector<int64_t> counts;
  Tensor x, inner, h;
  Tensor in, out;        // [experts, .., ..]
  Tensor of_in, of_out;  // their gradients
};

Products ProductsOf(Device& device, DType dtype, const LayerShape& shape) {
  const int64_t experts = shape.moe.experts, hidden = shape.moe.expert_hidden;
  const auto noise = [&](const Shape& of) {
    return RandomTensor(device, of, dtype);
  };
  Products made = {.counts = EvenRoutes(device, shape).counts,
                   .x = noise({shape.rows(), shape.width}),
                   .inner = noise({shape.rows(), shape.inner()}),
                   .h = noise({shape.rows(), hidden}),
                   .in = noise({experts, shape.inner(), shape.width}),
                   .out = noise({experts, shape.width, hidden})};
  made.of_in = Tensor::Zeros(device, made.in.shape(), DType::kFloat32);
  made.of_out = Tensor::Zeros(device, made.out.shape(), DType::kFloat32);
  return made;
}

// The experts' products alone, over ragged rows.
Phase ProductsForward(Device& device, DType dtype, const LayerShape& shape) {
  return {.run =
              [of = ProductsOf(device, dtype, shape)] {
                GroupedMatMul(of.x, of.in, of.counts, /*transpose=*/true);
                GroupedMatMul(of.h, of.out, of.counts, /*transpose=*/true);
              },
          .flops = shape.flops()};
}

Phase ProductsBackward(Device& device, DType dtype, const LayerShape& shape) {
  return {.run =
              [of = ProductsOf(device, dtype, shape)] {
                GroupedMatMul(of.x, of.out, of.counts, /*transpose=*/false);
                GroupedMatMulAccumulate(of.x, of.h, of.counts, of.of_out);
                GroupedMatMul(of.inner, of.in, of.counts, /*transpose=*/false);
                GroupedMatMulAccumulate(of.inner, of.x, of.counts, of.of_in);
              },
          .flops = 2 * shape.flops()};
}

// What rows are read and written at least, there and back.
int64_t FloorBytes(DType dtype, const LayerShape& shape) {
  return (2 + 2 * shape.moe.top_k) * shape.tokens * shape.width *
         DTypeSize(dtype);
}

std::vector<NamedPhase> Phases(const LayerShape& shape) {
  const auto of = [shape](Phase (*make)(Device&, DType, const LayerShape&)) {
    return
        [=](Device& device, DType dtype) { return make(device, dtype, shape); };
  };
  const auto copy = [shape](int64_t (*bytes)(DType, const LayerShape&)) {
    return [=](Device& device, DType dtype) -> Phase {
      return {.run = MemcpyOf(device, bytes(dtype, shape)),
              .bytes = bytes(dtype, shape)};
    };
  };
  std::vector<NamedPhase> phases = {
      {"route", of(Route)},
      {"route.memcpy", copy(RouteBytes)},
      {"permute", of(Permute)},
      {"permute.memcpy", copy([](DType dtype, const LayerShape& s) {
         return 2 * s.rows() * s.width * DTypeSize(dtype);
       })},
      {"combine", of(Combine)},
      {"combine.any_order", of(Scatter)},
      {"products.forward", of(ProductsForward)},
      {"products.backward", of(ProductsBackward)},
      {"combine.memcpy", copy([](DType dtype, const LayerShape& s) {
         return (s.rows() + s.tokens) * s.width * DTypeSize(dtype);
       })},
      {"floor.rows", copy(FloorBytes)},
      {"floor.forward",
       [shape](Device& device, DType dtype) -> Phase {
         return {.run = DenseForward(device, dtype, shape),
                 .flops = shape.flops()};
       }},
      {"floor.backward", [shape](Device& device, DType dtype) -> Phase {
         return {.run = DenseBackward(device, dtype, shape),
                 .flops = 2 * shape.flops()};
       }}};
  for (const Spread spread : kSpreads) {
    const std::string name = NameOf(spread);
    phases.push_back(
        {name + ".forward", [=](Device& device, DType dtype) -> Phase {
           const auto layer = std::make_shared<Layer>(device, dtype, shape);
           const Tensor routes = Routes(device, shape, spread);
           return {.run = [=] { layer->Forward(routes); },
                   .flops = shape.flops()};
         }});
    phases.push_back(
        {name + ".step", [=](Device& device, DType dtype) -> Phase {
           const auto layer = std::make_shared<Layer>(device, dtype, shape);
           const Tensor routes = Routes(device, shape, spread);
           return {.run = [=] { layer->ForwardAndBackward(routes); },
                   .flops = 3 * shape.flops()};
         }});
  }
  return phases;
}

std::string Key(const BenchSetting& setting, const LayerShape& shape,
                const std::string& phase) {
  return fmt::format("{}.{}.{}", setting.Prefix("moe"), shape.name, phase);
}

}  // namespace

void RegisterMoeBenchmarks(const BenchSetting& setting) {
  for (const LayerShape& shape : kShapes) {
    for (const NamedPhase& phase : Phases(shape)) {
      benchmark::RegisterBenchmark(
          Key(setting, shape, phase.name).c_str(),
          [setting, make = phase.make](benchmark::State& state) {
            omp_set_num_threads(setting.threads);
            const Phase made = make(*setting.device, setting.dtype);
            for (auto _ : state) {
              made.run();
              benchmark::ClobberMemory();
            }
            const auto rate = [](double amount) {
              return benchmark::Counter(
                  amount * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
            };
            if (made.flops > 0) state.counters["gflops"] = rate(made.flops);
            if (made.bytes > 0) {
              state.counters["gb_per_s"] =
                  rate(static_cast<double>(made.bytes));
            }
          });
    }
  }
}

void AddFractionsOfFloor(const BenchSetting& setting, Figures* figures) {
  for (const LayerShape& shape : kShapes) {
    const auto seconds = [&](const std::string& phase) {
      return Find(*figures, Key(setting, shape, phase) + ".s");
    };
    const auto rows = seconds("floor.rows");
    const auto forward = seconds("floor.forward");
    const auto backward = seconds("floor.backward");
    const auto add = [&](const std::string& phase, const std::string& of,
                         std::optional<double> floor) {
      const auto taken = seconds(phase);
      if (!taken.has_value() || !floor.has_value()) return;
      (*figures)[Key(setting, shape, phase) + of] = *floor / *taken;
    };
    for (const char* copied : {"route", "permute", "combine"}) {
      add(copied, ".of_memcpy", seconds(std::string(copied) + ".memcpy"));
    }
    add("products.forward", ".of_floor", forward);
    add("products.backward", ".of_floor", backward);
    const auto combine = seconds("combine");
    const auto any_order = seconds("combine.any_order");
    const auto step = seconds("even.step");
    if (combine.has_value() && any_order.has_value() && step.has_value()) {
      (*figures)[Key(setting, shape, "fixed_order") + ".of_step"] =
          (*combine - *any_order) / *step;
    }
    if (!rows.has_value() || !forward.has_value()) continue;
    for (const Spread spread : kSpreads) {
      const std::string name = NameOf(spread);
      add(name + ".forward", ".of_floor", *rows + *forward);
      if (!backward.has_value()) continue;
      add(name + ".step", ".of_floor", 2 * *rows + *forward + *backward);
    }
  }
}

}  // namespace trireme
