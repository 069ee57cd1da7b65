// A view of attention heads inside a row-major tensor: element (batch, token,
// head, channel) lies at
//   offset + (batch·tokens + token)·row_stride + head·head_dim + channel.
// Lets attention read q, k and v where one linear layer wrote them, e.g. q of
// qkv[b, s, 3, heads, head_dim] is {qkv, 0, 3·heads·head_dim}.

#ifndef TRIREME_RUNTIME_OPS_HEADS_VIEW_H_
#define TRIREME_RUNTIME_OPS_HEADS_VIEW_H_

#include "runtime/device/tensor.h"

namespace trireme {

struct HeadsView {
  Tensor tensor;
  int64_t offset = 0;      // elements
  int64_t row_stride = 0;  // elements between tokens
  int64_t batch = 0;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
};

// Part `index` of `parts` in packed[b, s, parts·heads·head_dim].
inline HeadsView PackedHeads(const Tensor& packed, int64_t parts, int64_t index,
                             int64_t head_dim) {
  HeadsView view;
  view.tensor = packed;
  view.batch = packed.dim(0);
  view.tokens = packed.dim(1);
  view.row_stride = packed.shape().num_elements() / (view.batch * view.tokens);
  CHECK_EQ(view.row_stride % (parts * head_dim), 0);
  view.head_dim = head_dim;
  view.heads = view.row_stride / (parts * head_dim);
  view.offset = index * view.heads * head_dim;
  return view;
}

// q, k and v one after the other in packed[b, s, (g + 2)·key_heads·head_dim],
// with g = queries_per_key heads of q for each one of k and v.
struct QkvHeads {
  HeadsView q, k, v;
};

inline QkvHeads PackedQkv(const Tensor& packed, int64_t head_dim,
                          int64_t queries_per_key = 1) {
  const int64_t parts = queries_per_key + 2;
  QkvHeads heads{PackedHeads(packed, parts, 0, head_dim),
                 PackedHeads(packed, parts, queries_per_key, head_dim),
                 PackedHeads(packed, parts, queries_per_key + 1, head_dim)};
  heads.q.heads *= queries_per_key;
  return heads;
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_HEADS_VIEW_H_
