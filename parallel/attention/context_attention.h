// Context-parallel attention: joint self-attention of image tokens that are
// spread over ranks and of text tokens that every rank holds.
//
// The c = U·R ranks hold equal chunks of the image tokens, one after the other
// in order of the coordinate u + U·r; padding is at the global end. The U ranks
// of equal r exchange heads for tokens (head_exchange.h), then the R ranks of
// equal u form a ring (ring_attention.h). U = 1 is plain ring attention, R = 1
// plain Ulysses.
//
// Image queries see the image keys block by block on the ring, and the text
// keys, which are at hand. Text queries see each rank's image block there; the
// last ring rank, the one with the padding, counts the text keys for them; the
// parts are gathered and merged. All of it on 1/U of the heads per rank.
//
// Kept for backward: qkv, the merged outputs (with U > 1 other tensors than
// those returned) and their log-sum-exps. Received blocks are not: they travel
// again.

#ifndef TRIREME_PARALLEL_ATTENTION_CONTEXT_ATTENTION_H_
#define TRIREME_PARALLEL_ATTENTION_CONTEXT_ATTENTION_H_

#include <cstdint>

#include "runtime/autograd/tape.h"
#include "runtime/comm/communicator.h"
#include "runtime/ops/attention.h"

namespace trireme {

// A rank's coordinates are its ranks in the two groups, which outlive the tape.
struct ContextGroups {
  Communicator* ulysses = nullptr;  // u
  Communicator* ring = nullptr;     // r
};

// q, k and v as PackedQkv says, normed and rotated, of this rank's heads: those
// of keys a multiple of U.
struct ContextAttentionInputs {
  Variable image_qkv;  // [b, s, (heads + 2·key heads)·head_dim], its chunk
  // [b, n, (heads + 2·key heads)·head_dim], the same on every rank, or
  // undefined. Replicate over the ranks: its gradients are the parts of a sum.
  Variable text_qkv;
};

struct ContextAttentionOutputs {
  Variable image;  // [b, s, heads·head_dim]
  // [b, n, heads·head_dim] if there is text: Invariant over the ranks, the same
  // bit for bit; its gradient is complete on each of them.
  Variable text;
};

// What tokens attend to. Padding tokens attend like any others: who uses their
// outputs decides what flows back.
struct ContextAttentionKeys {
  int64_t valid_tokens = 0;  // > 0: the first of all ranks' image tokens
  // int32 [b]: in sample i, the first text_counts[i] text tokens; undefined:
  // all.
  Tensor text_counts;
  // Without text: tokens see no later token, and none of another sequence. The
  // sequences' offsets are over the tokens of all ranks, padding included.
  bool causal = false;
  SequenceOffsets sequences;
};

// Softmax attention of scale 1/√head_dim. Collective over both groups, in
// forward and in backward.
ContextAttentionOutputs ContextAttention(Tape& tape,
                                         const ContextGroups& groups,
                                         const ContextAttentionInputs& inputs,
                                         int64_t head_dim,
                                         const ContextAttentionKeys& keys,
                                         int64_t queries_per_key = 1);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_ATTENTION_CONTEXT_ATTENTION_H_
