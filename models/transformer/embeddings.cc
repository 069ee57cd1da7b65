#include "models/transformer/embeddings.h"

#include <vector>

#include "parallel/layers/functional.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

constexpr double kScalarScale = 1000.0;
constexpr double kMaxPeriod = 10000.0;
constexpr Initializer kSmallNormal = {.kind = Initializer::Kind::kNormal,
                                      .stddev = 0.02};

}  // namespace

ConditionMlp::ConditionMlp(ParameterStore& store, const std::string& name,
                           int64_t in, int64_t hidden)
    : first_(store, name + ".in", in, hidden, {.initializer = kSmallNormal}),
      second_(store, name + ".out", hidden, hidden,
              {.initializer = kSmallNormal}) {}

ShardedVariable ConditionMlp::Forward(ForwardContext& context,
                                      const ShardedVariable& x) const {
  return second_.Forward(context, Activate(context, Activation::kSilu,
                                           first_.Forward(context, x)));
}

Tensor Sinusoid(const Tensor& scalars, DType dtype) {
  return TimestepEmbedding(Scale(scalars, kScalarScale), kScalarChannels,
                           kMaxPeriod, dtype);
}

Tensor WithoutEmptyTexts(const Tensor& states, const Tensor& text_counts,
                         int64_t text_tokens) {
  const Tensor counts_for =
      Full(states.device(), {text_tokens + 1, 1}, states.dtype(), 1.0);
  ZeroSlice(counts_for, 0, 0, 1);
  const int64_t width = states.num_elements() / states.dim(0);
  const Tensor factors = RepeatOverTokens(GatherRows(counts_for, text_counts),
                                          width, "text factors");
  return Multiply(states, factors.Reshape(states.shape()));
}

RopeTable PictureRope(Device& device, const std::array<int64_t, 3>& axes,
                      const PatchGrid& grid, TokenRange range, DType dtype) {
  std::vector<int64_t> present;
  for (const int64_t channels : axes) {
    if (channels > 0) present.push_back(channels);
  }
  std::vector<double> positions;
  for (int64_t i = 0; i < range.count; ++i) {
    const std::array<int64_t, 3> coordinates = grid.Place(range.begin + i);
    for (size_t axis = 0; axis < axes.size(); ++axis) {
      if (axes[axis] > 0) {
        positions.push_back(static_cast<double>(coordinates[axis]));
      }
    }
  }
  return MakeRopeTable(
      device, present, positions, kMaxPeriod,
      dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
}

}  // namespace trireme
