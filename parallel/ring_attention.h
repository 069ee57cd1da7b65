// Ring attention (Liu et al., "Ring attention with blockwise transformers"):
// each rank of a ring holds a block of the tokens. It keeps its queries while
// keys and values travel: at step t it attends to the block of rank r−t, sends
// it on to r+1 and receives the next one behind the computation.
//
// In backward keys and values travel once more, and the sum of each block's key
// and value gradients travels with them, in the compute type; after the last
// step it hops home.
//
// Elements sent per rank for b samples, s tokens a block, R ranks and h local
// width: forward 2bsh(R−1), backward 2bsh(R−1) and 2bshR of gradients.

#ifndef TRIREME_PARALLEL_RING_ATTENTION_H_
#define TRIREME_PARALLEL_RING_ATTENTION_H_

#include "parallel/attention_partials.h"
#include "runtime/comm/communicator.h"
#include "runtime/ops/attention.h"

namespace trireme {

// Blocks lie one after the other along the tokens, in order of the ring's
// ranks, and are equally long; what is beyond the first `valid_tokens` is
// padding, masked as keys.
class RingAttention {
 public:
  RingAttention(Communicator& ring, double scale, int64_t head_dim,
                int64_t valid_tokens)
      : ring_(ring),
        scale_(scale),
        head_dim_(head_dim),
        valid_tokens_(valid_tokens) {}

  // The valid keys of a rank's block of `tokens` tokens: int32 [batch].
  Tensor KeyCounts(Device& device, int64_t batch, int64_t tokens,
                   int rank) const;

  // This block's queries over the keys of all blocks: adds one part per rank.
  // qkv [b, s, 3·heads·head_dim]: q, k, v one after the other.
  void Forward(const Tensor& qkv, AttentionMerger& merger) const;

  // `forward` is the merged result of the queries over all their keys, on the
  // ring and elsewhere; grad_out is shaped as its out. Adds the queries'
  // gradients [b, s, heads·head_dim] to `dq`. `dkv` [b, s, 2·heads·head_dim]
  // may come with what other queries add to this block's keys and values, and
  // leaves with the sum over all ranks.
  void Backward(const Tensor& qkv, const AttentionResult& forward,
                const Tensor& grad_out, GradientSum& dq,
                GradientSum& dkv) const;

 private:
  // Calls visit(origin, k, v) with the block of every rank, this one's first.
  template <typename Visit>
  void VisitBlocks(const Tensor& qkv, int tag, const Visit& visit) const;

  int next() const { return (ring_.rank() + 1) % ring_.size(); }
  int previous() const {
    return (ring_.rank() + ring_.size() - 1) % ring_.size();
  }

  Communicator& ring_;
  double scale_;
  int64_t head_dim_;
  int64_t valid_tokens_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_RING_ATTENTION_H_
