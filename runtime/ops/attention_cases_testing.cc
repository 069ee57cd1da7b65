#include <cstdint>
#include <vector>

#include "runtime/ops/attention.h"
#include "runtime/ops/op_case_families_testing.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"
#include "runtime/ops/sparse_attention.h"
#include "runtime/ops/spatial_blocks.h"
#include "runtime/ops/voxels.h"
#include "runtime/ops/voxels_testing.h"
#include "runtime/ops/window_attention.h"

namespace trireme {
namespace {

// Scores are up to 100 and more, of which rounding is by so much larger.
constexpr double kWindowRoundings = 64;

}  // namespace

std::vector<OpCase> WindowAttentions() {
  const auto run = [](Operands& in, const WindowLayout& layout) {
    constexpr int64_t kHeads = 3, kHeadDim = 10;
    const int64_t tokens = layout.height * layout.width;
    const Tensor qkv = in({2, tokens, 3 * kHeads * kHeadDim});
    const Tensor scales = in({kHeads});
    const Tensor biases = in({layout.differences(), kHeads});
    const Tensor slope = in({2, tokens, kHeads * kHeadDim});
    const WindowAttentionBackwardResult back =
        WindowAttentionBackward(layout, qkv, scales, biases, slope);
    return std::vector<Tensor>{
        WindowAttentionForward(layout, qkv, scales, biases), back.qkv,
        back.log_scales, back.biases};
  };
  return {{.name = "shifted windows",
           .run =
               [=](Operands& in) {
                 return run(
                     in, {.height = 15, .width = 10, .window = 5, .shift = 2});
               },
           .roundings = kWindowRoundings},
          {.name = "one window",
           .run =
               [=](Operands& in) {
                 return run(in, {.height = 7, .width = 7, .window = 7});
               },
           .roundings = kWindowRoundings}};
}

std::vector<OpCase> Attentions() {
  const auto attend = [](const QkvHeads& of, const Tensor& packed,
                         const Tensor& slope, const AttentionMask& mask) {
    const double scale = 0.17;
    const AttentionResult forward =
        AttentionForward(of.q, of.k, of.v, scale, mask);
    const Tensor gradients = Tensor::EmptyLike(packed);
    const QkvHeads to =
        PackedQkv(gradients, of.q.head_dim, of.q.heads / of.k.heads);
    AttentionBackward(of.q, of.k, of.v, forward, slope, scale, mask, to.q, to.k,
                      to.v);
    return std::vector<Tensor>{forward.out, forward.log_sum_exp, gradients};
  };
  return {
      {.name = "Attention",
       .run =
           [=](Operands& in) {
             const Tensor packed = in({2, 150, 3 * 4 * 32});
             return attend(PackedQkv(packed, 32), packed, in({2, 150, 4 * 32}),
                           {});
           }},
      {.name = "causal Attention of fewer key heads",
       .run =
           [=](Operands& in) {
             const Tensor packed = in({2, 150, (2 + 2) * 2 * 32});
             return attend(PackedQkv(packed, 32, 2), packed,
                           in({2, 150, 4 * 32}), {.diagonal = 0});
           },
       // bf16 probabilities of few keys are large.
       .roundings = 8},
  };
}

// Of 70 and 45 tokens with padding, in all blocks of two samples.
std::vector<OpCase> SparseAttentions() {
  constexpr int64_t kTokens = 75, kSide = 16;
  const auto attend = [=](Operands& in) -> std::vector<Tensor> {
    const int64_t d = 32, heads = 4, key_heads = 2;
    const Tensor q = in({2, kTokens, heads * d});
    const Tensor kv = in({2, kTokens, 2 * key_heads * d});
    Device& device = q.device();
    std::vector<int32_t> voxels;
    for (int64_t i = 0; i < 2 * kTokens * 3; ++i) {
      voxels.push_back(static_cast<int32_t>(i * i * 7 % 83 % kSide));
    }
    const std::vector<int32_t> counts = {70, 45};
    const SpatialBlocks blocks = PartitionTokens(
        Tensor::FromValues<int32_t>(device, {2, kTokens, 3}, voxels),
        Tensor::FromValues<int32_t>(device, {2}, counts), kSide);
    const Tensor compressed = in({2, blocks.small.most, 2 * key_heads * d});
    const Tensor gates = in({2, kTokens, 3});
    const auto views = [&](const Tensor& q, const Tensor& kv,
                           const Tensor& compressed, const Tensor& gates) {
      return SparseAttentionInputs{
          PackedHeads(q, 1, 0, d),          PackedHeads(kv, 2, 0, d),
          PackedHeads(kv, 2, 1, d),         PackedHeads(compressed, 2, 0, d),
          PackedHeads(compressed, 2, 1, d), gates};
    };
    const SparseAttentionInputs inputs = views(q, kv, compressed, gates);
    const Tensor dq = Tensor::EmptyLike(q), dkv = Tensor::EmptyLike(kv);
    const Tensor dcompressed = Tensor::EmptyLike(compressed);
    const Tensor dgates = Tensor::EmptyLike(gates);
    // All blocks: roundings change no choice.
    const SparseAttentionOptions options = {.top_k = blocks.large.most,
                                            .shifted = true};
    const SparseAttentionResult forward =
        SparseAttentionForward(inputs, blocks, options);
    SparseAttentionBackward(inputs, blocks, options, forward,
                            in({2, kTokens, heads * d}),
                            views(dq, dkv, dcompressed, dgates));
    const Tensor means = BlockMean(q, blocks.small);
    return {forward.out,
            dq,
            dkv,
            dcompressed,
            dgates,
            means,
            BlockMeanBackward(means, blocks.small, kTokens)};
  };
  return {{.name = "SparseAttention", .run = attend, .roundings = 8}};
}

}  // namespace trireme
