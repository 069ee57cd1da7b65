#include "models/swin/swin_block.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "fmt/format.h"
#include "runtime/device/host.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr double kNormEps = 1e-5;
constexpr double kInitialScale = 10;

std::string NameOf(int64_t index, std::string_view part) {
  return fmt::format("blocks.{}.{}", index, part);
}

std::vector<ShardedDim> ShardOf(const ProcessGrid& grid, int dim) {
  const int parts = grid.size(Axis::kTensor);
  if (parts == 1) return {};
  return {{Axis::kTensor, dim, parts, grid.coordinate(Axis::kTensor)}};
}

// Queries and values, not keys, plus theirs of bias[2, width].
Variable AddToQueriesAndValues(Tape& tape, const Variable& qkv,
                               Parameter& bias) {
  const int64_t width = bias.value.dim(1);
  const auto part = [width](const Tensor& of, int64_t i) {
    return of.Slice(i, i + 1).Reshape({width});
  };
  const Tensor all =
      Tensor::Zeros(bias.value.device(), {3 * width}, bias.value.dtype(),
                    MemoryCategory::kActivations, "biases");
  WriteSlice(part(bias.value, 0), 0, 0, all);
  WriteSlice(part(bias.value, 1), 0, 2 * width, all);
  return tape.Record(
      "query and value biases", {qkv}, {&bias}, AddBroadcast(qkv.value(), all),
      {}, [&bias, width, part](Tape::Gradients& gradients) {
        const Tensor dy = gradients.TakeOutput();
        gradients.AddWeightGradient(bias, [&bias, width, part, dy] {
          const Tensor sums =
              Tensor::Zeros(dy.device(), {3 * width}, bias.grad.dtype(),
                            MemoryCategory::kWorkspace, "biases");
          AccumulateColumnSums(dy.Reshape({-1, 3 * width}), sums);
          AddInPlace(sums.Slice(0, width), part(bias.grad, 0));
          AddInPlace(sums.Slice(2 * width, 3 * width), part(bias.grad, 1));
        });
        gradients.Accumulate(0, dy);
      });
}

// Copies tokens between samples' grids, of twice `rows` (of all samples) and
// twice `columns`, and squares of four side by side: at rows and columns
// (0, 0), (1, 0), (0, 1) and (1, 1) of each.
enum class Squares { kFromGrid, kToGrid };
void CopySquares(Squares way, int64_t rows, int64_t columns, const Tensor& from,
                 const Tensor& to) {
  const int64_t width = from.num_elements() / (4 * rows * columns);
  for (int64_t part = 0; part < 4; ++part) {
    const RunPlaces grid = {
        .offset = (part % 2 * 2 * columns + part / 2) * width,
        .outer = 4 * columns * width,
        .inner = 2 * width};
    const RunPlaces squares = {.offset = part * width,
                               .outer = 4 * columns * width,
                               .inner = 4 * width};
    const bool from_grid = way == Squares::kFromGrid;
    CopyStrided({.outer = rows,
                 .inner = columns,
                 .run = width,
                 .from = from_grid ? grid : squares,
                 .to = from_grid ? squares : grid},
                from, to);
  }
}

// Of a distance of `tokens` along an axis.
double LogDistance(int64_t tokens, int64_t learnt) {
  const double furthest = static_cast<double>(std::max<int64_t>(learnt - 1, 1));
  const double distance = 8 * static_cast<double>(tokens) / furthest;
  return std::copysign(std::log2(std::abs(distance) + 1) / 3, distance);
}

Tensor DistancesOf(Device& device, DType dtype, int64_t window,
                   int64_t learnt) {
  std::vector<double> distances;
  for (int64_t y = 1 - window; y < window; ++y) {
    for (int64_t x = 1 - window; x < window; ++x) {
      distances.push_back(LogDistance(y, learnt));
      distances.push_back(LogDistance(x, learnt));
    }
  }
  const int64_t span = 2 * window - 1;
  const Tensor exact = Upload<double>(device, {span * span, 2}, distances);
  return dtype == DType::kFloat64 ? exact : Cast(exact, dtype);
}

}  // namespace

SwinBlock::ResidualNorm SwinBlock::MakeNorm(ParameterStore& store,
                                            const std::string& name,
                                            int64_t width) {
  constexpr Initializer kZeros = {.kind = Initializer::Kind::kZeros};
  return {.weight = &store.Create(name + ".weight", {width}, {}, kZeros,
                                  /*decay=*/false),
          .bias = &store.Create(name + ".bias", {width}, {}, kZeros,
                                /*decay=*/false)};
}

ShardedVariable SwinBlock::ResidualNorm::Forward(
    ForwardContext& context, const ShardedVariable& x) const {
  return Norm(context, NormKind::kLayer, x, weight, bias, kNormEps);
}

SwinBlock::SwinBlock(ParameterStore& store, const ProcessGrid& grid,
                     int64_t index, const SwinConfig& config, Keep keep)
    : sizes_(SizesOfBlock(config, index)),
      keep_(keep),
      distances_(DistancesOf(store.device(), store.dtype(),
                             sizes_.windows.window, sizes_.learnt_window)),
      merging_(sizes_.merges
                   ? std::make_unique<Merging>(Merging{
                         ReplicatedLinear(
                             store, NameOf(index, "merging.linear"),
                             2 * sizes_.hidden, sizes_.hidden, {.bias = false}),
                         AffineNorm(store, NameOf(index, "merging.norm"),
                                    sizes_.hidden)})
                   : nullptr),
      qkv_(store, grid, NameOf(index, "attention.qkv"), sizes_.hidden,
           3 * sizes_.hidden, {.parts = 3, .bias = false}),
      qv_bias_(&store.Create(NameOf(index, "attention.qkv.bias"),
                             {2, sizes_.hidden}, ShardOf(grid, 1),
                             {.kind = Initializer::Kind::kZeros},
                             /*decay=*/false)),
      out_(store, grid, NameOf(index, "attention.out"), sizes_.hidden,
           sizes_.hidden),
      log_scales_(&store.Create(NameOf(index, "attention.log_scales"),
                                {sizes_.heads}, ShardOf(grid, 0),
                                {.kind = Initializer::Kind::kConstant,
                                 .value = std::log(kInitialScale)},
                                /*decay=*/false)),
      bias_in_(store, NameOf(index, "attention.biases.in"), 2, kSwinBiasHidden),
      bias_out_(store, grid, NameOf(index, "attention.biases.out"),
                kSwinBiasHidden, sizes_.heads, {.bias = false}),
      attention_norm_(
          MakeNorm(store, NameOf(index, "attention.norm"), sizes_.hidden)),
      mlp_norm_(MakeNorm(store, NameOf(index, "mlp.norm"), sizes_.hidden)),
      attention_drop_(store.seed(), NameOf(index, "attention"),
                      sizes_.drop_path),
      mlp_drop_(store.seed(), NameOf(index, "mlp"), sizes_.drop_path) {
  if (sizes_.moe.has_value()) {
    experts_ = std::make_unique<MoeLayer>(store, grid, NameOf(index, "moe"),
                                          sizes_.hidden, *sizes_.moe, keep);
    return;
  }
  mlp_ = std::make_unique<Mlp>(
      Mlp{ColumnParallelLinear(store, grid, NameOf(index, "mlp.in"),
                               sizes_.hidden, sizes_.mlp_hidden),
          RowParallelLinear(store, grid, NameOf(index, "mlp.out"),
                            sizes_.mlp_hidden, sizes_.hidden)});
}

ShardedVariable SwinBlock::Merge(ForwardContext& context,
                                 const ShardedVariable& x) const {
  const Shape shape = x.value().shape();
  const int64_t b = shape.dim(0), width = shape.dim(2);
  const int64_t rows = sizes_.windows.height, columns = sizes_.windows.width;
  CHECK_EQ(shape.dim(1), 4 * rows * columns);
  const Tensor merged =
      Tensor::Empty(x.value().device(), {b, rows * columns, 4 * width},
                    x.value().dtype(), MemoryCategory::kActivations, "merged");
  CopySquares(Squares::kFromGrid, b * rows, columns, x.value(), merged);
  const Variable squares = context.tape.Record(
      "merge tokens", {x.variable}, {}, merged, {},
      [shape, b, rows, columns](Tape::Gradients& gradients) {
        const Tensor dy = gradients.TakeOutput();
        const Tensor dx =
            Tensor::Empty(dy.device(), shape, dy.dtype(),
                          MemoryCategory::kActivations, "gradient");
        CopySquares(Squares::kToGrid, b * rows, columns, dy, dx);
        gradients.Accumulate(0, dx);
      });
  return merging_->norm.Forward(
      context, merging_->linear.Forward(context, {squares, x.states}));
}

ShardedVariable SwinBlock::Biases(ForwardContext& context) const {
  // The same on every rank, each of which has a part of their gradient.
  AxisStates states;
  states[Axis::kData] = AxisState::Replicate();
  states[Axis::kTensor] = AxisState::Replicate();
  const ShardedVariable distances = {Variable(distances_), states};
  return bias_out_.Forward(context,
                           Activate(context, Activation::kRelu,
                                    bias_in_.Forward(context, distances)));
}

ShardedVariable SwinBlock::Attend(ForwardContext& context,
                                  const ShardedVariable& x) const {
  ShardedVariable qkv = qkv_.Forward(context, x);
  context.parallel.UseParameter(*qv_bias_, qkv.states);
  qkv.variable = AddToQueriesAndValues(context.tape, qkv.variable, *qv_bias_);
  return out_.Forward(context, WindowAttention(context, sizes_.windows, qkv,
                                               *log_scales_, Biases(context)));
}

ShardedVariable SwinBlock::ThroughMlp(ForwardContext& context,
                                      const MoeTokens& routed,
                                      const ShardedVariable& x) const {
  if (experts_ != nullptr) return experts_->Forward(context, x, routed);
  return mlp_->out.Forward(context,
                           Activate(context, Activation::kGelu,
                                    mlp_->in.Forward(context, x), keep_));
}

ShardedVariable SwinBlock::Forward(ForwardContext& context,
                                   const MoeTokens& routed,
                                   const ShardedVariable& x) const {
  const ShardedVariable merged = merging_ == nullptr ? x : Merge(context, x);
  const auto sometimes = [&](const DropPath& drop, const ShardedVariable& y) {
    // Held-out samples are measured at a negative step; what is drawn has no
    // batch.
    return routed.global_batch == 0 || routed.step < 0
               ? y
               : drop.Forward(context, routed.step, routed.samples, y);
  };
  const ShardedVariable y =
      Add(context, merged,
          sometimes(attention_drop_,
                    attention_norm_.Forward(context, Attend(context, merged))));
  return Add(
      context, y,
      sometimes(mlp_drop_,
                mlp_norm_.Forward(context, ThroughMlp(context, routed, y))));
}

}  // namespace trireme
