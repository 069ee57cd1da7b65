#include "runtime/ops/sparse_attention.h"

#include <algorithm>
#include <cmath>

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

void CheckView(const HeadsView& view, const HeadsView& like, int64_t heads,
               int64_t tokens) {
  CHECK(view.tensor.dtype() == like.tensor.dtype())
      << view.tensor.dtype() << " vs. " << like.tensor.dtype();
  CHECK_EQ(view.batch, like.batch);
  CHECK_EQ(view.tokens, tokens);
  CHECK_EQ(view.heads, heads);
  CHECK_EQ(view.head_dim, like.head_dim);
  CHECK_GE(view.row_stride, view.heads * view.head_dim);
  CHECK_LE(view.offset + (view.batch * view.tokens - 1) * view.row_stride +
               view.heads * view.head_dim,
           view.tensor.num_elements());
}

// That the views and gates are of one problem.
void CheckInputs(const SparseAttentionInputs& inputs,
                 const SpatialBlocks& blocks) {
  const HeadsView& q = inputs.q;
  CheckView(q, q, q.heads, q.tokens);
  CheckView(inputs.k, q, inputs.k.heads, inputs.k.tokens);
  CheckView(inputs.v, q, inputs.k.heads, inputs.k.tokens);
  CheckView(inputs.compressed_k, q, inputs.k.heads, blocks.small.most);
  CheckView(inputs.compressed_v, q, inputs.k.heads, blocks.small.most);
  CHECK(inputs.gates.dtype() == q.tensor.dtype()) << inputs.gates.dtype();
  CHECK_EQ(inputs.gates.num_elements(), q.batch * q.tokens * kSparseBranches);
}

SparseAttentionProblem Problem(const SparseAttentionInputs& inputs,
                               const SpatialBlocks& blocks,
                               const SparseAttentionOptions& options) {
  CheckInputs(inputs, blocks);
  const HeadsView& q = inputs.q;
  CHECK(q.batch > 0 && q.tokens > 0 && q.head_dim > 0 && inputs.k.heads > 0);
  CHECK_EQ(q.batch, blocks.batch());
  CHECK_EQ(q.heads % inputs.k.heads, 0) << "heads of queries and of keys";
  CHECK_GE(inputs.k.tokens, blocks.tokens());
  CHECK_GE(options.first_query, 0);
  CHECK_LE(options.first_query + q.tokens, inputs.k.tokens);
  CHECK_GT(options.top_k, 0);
  return {.dtype = q.tensor.dtype(),
          .batch = q.batch,
          .heads = q.heads,
          .key_heads = inputs.k.heads,
          .queries = q.tokens,
          .first_query = options.first_query,
          .keys = inputs.k.tokens,
          .block_tokens = blocks.tokens(),
          .head_dim = q.head_dim,
          .top_k = options.top_k,
          .scale = 1 / std::sqrt(static_cast<double>(q.head_dim)),
          .most_small = blocks.small.most,
          .most_large = blocks.large.most,
          // Whether shifted or not, so that both take the same memory.
          .most_windows = std::max(blocks.windows.most, blocks.large.most)};
}

HeadsPointer Pointer(const HeadsView& view) {
  char* data = static_cast<char*>(view.tensor.raw_data());
  if (data != nullptr) data += view.offset * DTypeSize(view.tensor.dtype());
  return {data, view.row_stride};
}

const int32_t* Integers(const Tensor& x) {
  return static_cast<const int32_t*>(x.raw_data());
}

SparseAttentionOperands Operands(const SparseAttentionInputs& inputs,
                                 const SpatialBlocks& blocks,
                                 const SparseAttentionOptions& options,
                                 const SparseAttentionResult& result) {
  SparseAttentionOperands operands;
  operands.q = Pointer(inputs.q);
  operands.k = Pointer(inputs.k);
  operands.v = Pointer(inputs.v);
  operands.compressed_k = Pointer(inputs.compressed_k);
  operands.compressed_v = Pointer(inputs.compressed_v);
  operands.gates = inputs.gates.raw_data();
  operands.small_counts = Integers(blocks.small.counts);
  operands.large_of_small = Integers(blocks.large_of_small);
  operands.large = blocks.large.pointer();
  operands.windows =
      (options.shifted ? blocks.windows : blocks.large).pointer();
  operands.parts = result.parts.raw_data();
  operands.log_sum_exp = result.log_sum_exp.raw_data();
  operands.selected = static_cast<int32_t*>(result.selected.raw_data());
  operands.out = result.out.defined() ? result.out.raw_data() : nullptr;
  return operands;
}

Tensor Workspace(Device& device, int64_t bytes) {
  return Tensor::Empty(device, {bytes}, DType::kUint8,
                       MemoryCategory::kWorkspace, "sparse attention scores");
}

}  // namespace

SparseAttentionResult SparseAttentionForward(
    const SparseAttentionInputs& inputs, const SpatialBlocks& blocks,
    const SparseAttentionOptions& options) {
  const SparseAttentionProblem problem = Problem(inputs, blocks, options);
  Device& device = inputs.q.tensor.device();
  const int64_t b = problem.batch, s = problem.queries;
  const int64_t width = problem.heads * problem.head_dim;
  SparseAttentionResult result;
  result.out = Tensor::Empty(device, {b, s, width}, problem.dtype,
                             MemoryCategory::kActivations, "sparse attention");
  result.parts =
      Tensor::Empty(device, {kSparseBranches, b, s, width}, problem.dtype,
                    MemoryCategory::kActivations, "sparse attention branches");
  result.log_sum_exp =
      Tensor::Empty(device, {kSparseBranches, b, problem.heads, s},
                    ComputeDType(problem.dtype), MemoryCategory::kActivations,
                    "sparse attention log-sum-exp");
  result.selected = Tensor::Empty(
      device, {b, problem.key_heads, s, problem.top_k}, DType::kInt32,
      MemoryCategory::kActivations, "selected blocks");
  const SparseAttentionOperands operands =
      Operands(inputs, blocks, options, result);
  const SparseAttentionKernels& kernels = device.kernels().sparse_attention;
  const Tensor workspace =
      Workspace(device, kernels.forward_workspace(problem, operands));
  kernels.forward(device.stream(), problem, operands, workspace.raw_data());
  return result;
}

void SparseAttentionBackward(const SparseAttentionInputs& inputs,
                             const SpatialBlocks& blocks,
                             const SparseAttentionOptions& options,
                             const SparseAttentionResult& forward,
                             const Tensor& grad_out,
                             const SparseAttentionInputs& gradients) {
  const SparseAttentionProblem problem = Problem(inputs, blocks, options);
  CheckInputs(gradients, blocks);
  CHECK_EQ(gradients.q.tokens, inputs.q.tokens);
  CHECK_EQ(gradients.k.tokens, inputs.k.tokens);
  CHECK_EQ(gradients.q.heads, inputs.q.heads);
  CHECK_EQ(gradients.k.heads, inputs.k.heads);
  CHECK(gradients.q.tensor.dtype() == problem.dtype &&
        grad_out.dtype() == problem.dtype);
  CHECK_EQ(grad_out.num_elements(),
           problem.batch * problem.queries * problem.heads * problem.head_dim);
  Device& device = inputs.q.tensor.device();
  const SparseAttentionOperands operands =
      Operands(inputs, blocks, options, forward);
  const SparseAttentionGradients to = {grad_out.raw_data(),
                                       Pointer(gradients.q),
                                       Pointer(gradients.k),
                                       Pointer(gradients.v),
                                       Pointer(gradients.compressed_k),
                                       Pointer(gradients.compressed_v),
                                       gradients.gates.raw_data()};
  const SparseAttentionKernels& kernels = device.kernels().sparse_attention;
  const Tensor workspace =
      Workspace(device, kernels.backward_workspace(problem, operands, to));
  kernels.backward(device.stream(), problem, operands, to,
                   workspace.raw_data());
}

}  // namespace trireme
