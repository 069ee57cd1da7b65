// Ulysses' exchange of heads for tokens (Jacobs et al., "DeepSpeed Ulysses"):
// by an all-to-all each of U ranks gives up all heads but 1/U and gets those of
// all U ranks' tokens. The other way is its inverse and its conjugate.
//
// Packed tensors hold `parts` equal column blocks (q, k and v), each of them
// whole heads. The number of heads is a multiple of U. Where q has more heads
// than k and v, OrderedByRank makes one such block of the three. Bytes sent per
// rank: (U−1)/U of the tensor.

#ifndef TRIREME_PARALLEL_ATTENTION_HEAD_EXCHANGE_H_
#define TRIREME_PARALLEL_ATTENTION_HEAD_EXCHANGE_H_

#include <string_view>

#include "runtime/comm/communicator.h"

namespace trireme {

// x[b, s, parts·h] → [b, U·s, parts·h/U]: rank u's tokens are the u-th, its
// heads too.
Tensor ExchangeHeadsForTokens(Communicator& group, const Tensor& x, int parts,
                              std::string_view name);
// The inverse.
Tensor ExchangeTokensForHeads(Communicator& group, const Tensor& x, int parts,
                              std::string_view name);

// This rank's heads of x[b, n, parts·h] → [b, n, parts·h/U].
Tensor TakeHeads(const Communicator& group, const Tensor& x, int parts);
// The adjoint: zeros for the other ranks' heads.
Tensor SpreadHeads(const Communicator& group, const Tensor& x, int parts);
// [b, n, h/U] of every rank → [b, n, h] on all.
Tensor GatherHeads(Communicator& group, const Tensor& x, std::string_view name);

// qkv[b, s, (g + 2)·h], g = queries_per_key (PackedQkv), with what each of
// `ranks` ranks gets of its heads, packed alike, one after the other.
Tensor OrderedByRank(const Tensor& qkv, int64_t queries_per_key, int64_t ranks);
// The inverse.
Tensor OrderedByPart(const Tensor& qkv, int64_t queries_per_key, int64_t ranks);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_ATTENTION_HEAD_EXCHANGE_H_
