#include "parallel/ring_attention.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

// Tags of the messages.
enum Tag { kForwardBlock, kBackwardBlock, kGradients };

Tensor EmptyMessage(const Tensor& like) {
  return Tensor::Empty(like.device(), like.shape(), like.dtype(),
                       MemoryCategory::kCommunication, "ring block");
}

}  // namespace

Tensor RingAttention::KeyCounts(Device& device, int64_t batch, int64_t tokens,
                                int rank) const {
  const int64_t count =
      std::clamp<int64_t>(valid_tokens_ - rank * tokens, 0, tokens);
  return Full(device, {batch}, DType::kInt32, static_cast<double>(count),
              MemoryCategory::kActivations, "key counts");
}

template <typename Visit>
void RingAttention::VisitBlocks(const Tensor& qkv, int tag,
                                const Visit& visit) const {
  const int ranks = ring_.size();
  const int64_t width = qkv.dim(-1) / 3;
  Tensor held;  // contiguous keys and values; this rank's own lie in qkv
  if (ranks > 1) held = CopySlice(qkv, -1, width, 3 * width);
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
      visit(origin, PackedHeads(qkv, 3, 1, head_dim_),
            PackedHeads(qkv, 3, 2, head_dim_));
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
  const HeadsView q = PackedHeads(qkv, 3, 0, head_dim_);
  VisitBlocks(qkv, kForwardBlock,
              [&](int origin, const HeadsView& k, const HeadsView& v) {
                const Tensor counts =
                    KeyCounts(qkv.device(), q.batch, k.tokens, origin);
                merger.Add(AttentionForward(q, k, v, scale_, &counts,
                                            AttentionOutput::kUnrounded));
              });
}

void RingAttention::Backward(const Tensor& qkv, const AttentionResult& forward,
                             const Tensor& grad_out, GradientSum& dq,
                             GradientSum& dkv) const {
  const HeadsView q = PackedHeads(qkv, 3, 0, head_dim_);
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
    const Tensor counts = KeyCounts(qkv.device(), q.batch, k.tokens, origin);
    AttentionPartGradients block =
        AttentionPartBackward(q, k, v, forward, grad_out, scale_, &counts);
    dq.Add(std::move(block.q));
    received.Wait();
    if (sum.defined()) dkv.Add(std::move(sum));
    dkv.Add(std::move(block.key_value));
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
