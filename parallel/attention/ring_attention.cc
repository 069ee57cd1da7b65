#include "parallel/attention/ring_attention.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

// Tags of the messages.
enum Tag { kForwardBlock, kBackwardBlock, kGradients };

// Offsets of sequences in a block of the tokens, relative to its begin.
SequenceOffsets OffsetsInBlock(const std::vector<int64_t>& offsets,
                               int64_t begin, int64_t tokens) {
  auto in_block = std::make_shared<std::vector<int64_t>>(offsets);
  for (int64_t& offset : *in_block) {
    offset = std::clamp<int64_t>(offset - begin, 0, tokens);
  }
  return in_block;
}

bool ShareASequence(const std::vector<int64_t>& queries,
                    const std::vector<int64_t>& keys) {
  for (size_t i = 0; i + 1 < queries.size(); ++i) {
    if (queries[i] < queries[i + 1] && keys[i] < keys[i + 1]) return true;
  }
  return false;
}

Tensor EmptyMessage(const Tensor& like) {
  return Tensor::Empty(like.device(), like.shape(), like.dtype(),
                       MemoryCategory::kCommunication, "ring block");
}

}  // namespace

Tensor RingAttention::KeyCounts(Device& device, int64_t batch, int64_t tokens,
                                int rank) const {
  const int64_t count =
      std::clamp<int64_t>(mask_.valid_tokens - rank * tokens, 0, tokens);
  return Full(device, {batch}, DType::kInt32, static_cast<double>(count),
              MemoryCategory::kActivations, "key counts");
}

std::optional<AttentionMask> RingAttention::BlockMask(const Tensor& qkv,
                                                      int rank) const {
  const int own = ring_.rank();
  if (mask_.causal && rank > own) return std::nullopt;
  const int64_t tokens = qkv.dim(1);
  AttentionMask mask;
  if (mask_.causal && rank == own) mask.diagonal = 0;
  if (mask_.sequences != nullptr) {
    mask.query_offsets = OffsetsInBlock(*mask_.sequences, own * tokens, tokens);
    mask.key_offsets = OffsetsInBlock(*mask_.sequences, rank * tokens, tokens);
    if (!ShareASequence(*mask.query_offsets, *mask.key_offsets)) {
      return std::nullopt;
    }
  }
  mask.key_counts = KeyCounts(qkv.device(), qkv.dim(0), tokens, rank);
  return mask;
}

template <typename Visit>
void RingAttention::VisitBlocks(const Tensor& qkv, int tag,
                                const Visit& visit) const {
  const int ranks = ring_.size();
  const int64_t width = qkv.dim(-1) / (queries_per_key_ + 2);
  Tensor held;  // contiguous keys and values; this rank's own lie in qkv
  if (ranks > 1)
    held = CopySlice(qkv, -1, queries_per_key_ * width, qkv.dim(-1));
  for (int step = 0; step < ranks; ++step) {
    Tensor arriving;
    Event sent, received;
    if (step + 1 < ranks) {
      const std::string name =
          fmt::format("ring keys and values step {}", step + 1);
      arriving = EmptyMessage(held);
      received = ring_.Receive(arriving, previous(), tag, name);
      sent = ring_.Send(held, next(), tag, name);
    }
    const int origin = (ring_.rank() + ranks - step) % ranks;
    if (step == 0) {
      const QkvHeads own = PackedQkv(qkv, head_dim_, queries_per_key_);
      visit(origin, own.k, own.v);
    } else {
      visit(origin, PackedHeads(held, 2, 0, head_dim_),
            PackedHeads(held, 2, 1, head_dim_));
    }
    received.Wait();
    sent.Wait();
    held = std::move(arriving);
  }
}

void RingAttention::Forward(const Tensor& qkv, AttentionMerger& merger) const {
  const HeadsView q = PackedQkv(qkv, head_dim_, queries_per_key_).q;
  VisitBlocks(qkv, kForwardBlock,
              [&](int origin, const HeadsView& k, const HeadsView& v) {
                const auto mask = BlockMask(qkv, origin);
                if (!mask.has_value()) return;
                merger.Add(AttentionForward(q, k, v, scale_, *mask,
                                            AttentionOutput::kUnrounded));
              });
}

void RingAttention::Backward(const Tensor& qkv, const AttentionResult& forward,
                             const Tensor& grad_out, GradientSum& dq,
                             GradientSum& dkv) const {
  const HeadsView q = PackedQkv(qkv, head_dim_, queries_per_key_).q;
  int step = 0;
  Tensor sending;  // kept until `sent` is done
  Event sent;
  // The sum of the block's gradients so far, from the rank that had the block
  // at the step before; shaped as what this rank sent at that step.
  const auto receive = [&](Tensor& sum) {
    sum = EmptyMessage(sending);
    return ring_.Receive(
        sum, previous(), kGradients,
        fmt::format("ring key and value gradients step {}", step));
  };
  const auto visit = [&](int origin, const HeadsView& k, const HeadsView& v) {
    Tensor sum;
    Event received;
    if (step > 0) received = receive(sum);
    AttentionPartGradients block;
    if (const auto mask = BlockMask(qkv, origin); mask.has_value()) {
      block = AttentionPartBackward(q, k, v, forward, grad_out, scale_, *mask);
      dq.Add(std::move(block.q));
    }
    received.Wait();
    if (sum.defined()) dkv.Add(std::move(sum));
    if (block.key_value.defined()) dkv.Add(std::move(block.key_value));
    if (ring_.size() == 1) return;
    sent.Wait();
    sending = dkv.TakeUnrounded();
    ++step;
    sent =
        ring_.Send(sending, next(), kGradients,
                   fmt::format("ring key and value gradients step {}", step));
  };
  VisitBlocks(qkv, kBackwardBlock, visit);
  if (ring_.size() == 1) return;
  Tensor home;
  receive(home).Wait();
  sent.Wait();
  sending = Tensor();
  dkv.Add(std::move(home));
}

}  // namespace trireme
