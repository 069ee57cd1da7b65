// What families with pictures, times and text make of them before their first
// block.

#ifndef TRIREME_MODELS_TRANSFORMER_EMBEDDINGS_H_
#define TRIREME_MODELS_TRANSFORMER_EMBEDDINGS_H_

#include <array>
#include <cstdint>
#include <string>

#include "models/transformer/token_layout.h"
#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "parallel/layers/layers.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/ops/normalization.h"

namespace trireme {

// Of the embedding of a scalar, time or guidance.
inline constexpr int64_t kScalarChannels = 256;

// Linear, SiLU, Linear: what makes a conditioning of a vector for each sample.
// `name`.in and `name`.out.
class ConditionMlp {
 public:
  ConditionMlp(ParameterStore& store, const std::string& name, int64_t in,
               int64_t hidden);
  ShardedVariable Forward(ForwardContext& context,
                          const ShardedVariable& x) const;

 private:
  ReplicatedLinear first_;
  ReplicatedLinear second_;
};

// [b, kScalarChannels] in `dtype`, of 1000 times the scalars [b].
Tensor Sinusoid(const Tensor& scalars, DType dtype);

// states[b, ..], with zeros for samples whose count of 0 to text_tokens (int32
// [b]) is 0: they are trained without text.
Tensor WithoutEmptyTexts(const Tensor& states, const Tensor& text_counts,
                         int64_t text_tokens);

// The patches of a picture, row by row, or of several of one size in one
// sequence: those at the same place one after another.
struct PatchGrid {
  int64_t columns = 0;
  int64_t pictures = 1;

  // (picture, row, column) of a token. Padding lies below the pictures; nobody
  // sees it.
  std::array<int64_t, 3> Place(int64_t token) const {
    const int64_t patch = token / pictures;
    return {token % pictures, patch / columns, patch % columns};
  }
};

// Angles of three axes, axes[i] channels of a head each: the places of the
// range's patches. In the compute type of `dtype`.
RopeTable PictureRope(Device& device, const std::array<int64_t, 3>& axes,
                      const PatchGrid& grid, TokenRange range, DType dtype);

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_EMBEDDINGS_H_
