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
// width of keys: forward 2bsh(R−1), backward 2bsh(R−1) and 2bshR of gradients.
//
// Of a causal sequence the last rank computes most, R blocks, and the first one
// block: tokens keep their plain order, in which a rank's chunk is contiguous
// for every other op and padding is at the end, and the ring is as slow as one
// without mask. Chunks in zigzag (r and 2R−1−r) would balance it at the price
// of another order of tokens everywhere; Ulysses is balanced as it is.

#ifndef TRIREME_PARALLEL_ATTENTION_RING_ATTENTION_H_
#define TRIREME_PARALLEL_ATTENTION_RING_ATTENTION_H_

#include <optional>

#include "parallel/attention/attention_partials.h"
#include "runtime/comm/communicator.h"
#include "runtime/ops/attention.h"

namespace trireme {

// What tokens attend to, of all of a ring's tokens.
struct RingMask {
  int64_t valid_tokens = 0;  // the others are padding, masked as keys
  bool causal = false;
  SequenceOffsets sequences;  // null: all are one sequence
};

// Blocks lie one after the other along the tokens, in order of the ring's
// ranks, and are equally long.
class RingAttention {
 public:
  RingAttention(Communicator& ring, double scale, int64_t head_dim,
                const RingMask& mask, int64_t queries_per_key)
      : ring_(ring),
        scale_(scale),
        head_dim_(head_dim),
        mask_(mask),
        queries_per_key_(queries_per_key) {}

  // The valid keys of a rank's block of `tokens` tokens: int32 [batch].
  Tensor KeyCounts(Device& device, int64_t batch, int64_t tokens,
                   int rank) const;

  // This block's queries over the keys of all blocks: adds one part for each
  // block with keys that they see. qkv is packed as PackedQkv says.
  void Forward(const Tensor& qkv, AttentionMerger& merger) const;

  // `forward` is the merged result of the queries over all their keys, on the
  // ring and elsewhere; grad_out is shaped as its out. Adds the queries'
  // gradients [b, s, heads·head_dim] to `dq`. `dkv` [b, s, 2·key
  // heads·head_dim] may come with what other queries add to this block's keys
  // and values, and leaves with the sum over all ranks.
  void Backward(const Tensor& qkv, const AttentionResult& forward,
                const Tensor& grad_out, GradientSum& dq,
                GradientSum& dkv) const;

 private:
  // For this block's queries over the keys of a rank's block of as many tokens;
  // none if they see no key there.
  std::optional<AttentionMask> BlockMask(const Tensor& qkv, int rank) const;

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
  RingMask mask_;
  int64_t queries_per_key_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_ATTENTION_RING_ATTENTION_H_
