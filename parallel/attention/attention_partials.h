// Attention in parts: over disjoint sets of keys, whose outputs are merged by
// their log-sum-exp (MergeAttention), and whose query gradients are summed.
// Parts and sums are in the compute type (fp32; fp64 for fp64): results are
// rounded once, at the end.

#ifndef TRIREME_PARALLEL_ATTENTION_ATTENTION_PARTIALS_H_
#define TRIREME_PARALLEL_ATTENTION_ATTENTION_PARTIALS_H_

#include <string_view>

#include "runtime/comm/communicator.h"
#include "runtime/ops/attention.h"

namespace trireme {

// Merges parts in the order of Add.
class AttentionMerger {
 public:
  // Unrounded parts of one shape. May overwrite the first part's tensors.
  void Add(AttentionResult part);
  // The merged result, with `out` in `dtype`.
  AttentionResult Take(DType dtype);
  AttentionResult TakeUnrounded();

 private:
  AttentionResult merged_;
};

// Merges the parts of a group's ranks, in rank order: the result is the same
// on every rank, bit for bit. The exchange begins with the constructor.
class AttentionGather {
 public:
  // `part` is unrounded; `dtype` is that of the result's `out`.
  AttentionGather(Communicator& group, AttentionResult part, DType dtype,
                  std::string_view name);
  AttentionResult Wait();

 private:
  AttentionResult part_;
  DType dtype_;
  int ranks_;
  Tensor packed_;    // out, log-sum-exp
  Tensor gathered_;  // those of all ranks
  Event event_;
};

// What the queries' merged result (`forward`) makes of one part's keys,
// unrounded.
struct AttentionPartGradients {
  Tensor q;          // [b, s_q, heads·head_dim]
  Tensor key_value;  // [b, s_k, 2·key heads·head_dim]
};
// See AttentionBackward; grad_out is the gradient of the merged output.
AttentionPartGradients AttentionPartBackward(
    const HeadsView& q, const HeadsView& k, const HeadsView& v,
    const AttentionResult& forward, const Tensor& grad_out, double scale,
    const AttentionMask& mask);

// A sum of gradients in the compute type.
class GradientSum {
 public:
  // False before the first Add and after Take.
  bool defined() const { return sum_.defined(); }
  // Of an unrounded contribution; may overwrite the first.
  void Add(Tensor contribution);
  // The sum rounded to `dtype`.
  Tensor Take(DType dtype);
  Tensor TakeUnrounded();

 private:
  Tensor sum_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_ATTENTION_ATTENTION_PARTIALS_H_
