#include "runtime/ops/attention.h"

#include <algorithm>

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

void CheckShape(const HeadsView& view, const HeadsView& like, int64_t heads) {
  CHECK_EQ(view.batch, like.batch);
  CHECK_EQ(view.heads, heads);
  CHECK_EQ(view.head_dim, like.head_dim);
  CHECK_GE(view.row_stride, view.heads * view.head_dim);
  CHECK_LE(view.offset + (view.batch * view.tokens - 1) * view.row_stride +
               view.heads * view.head_dim,
           view.tensor.num_elements());
}

void CheckView(const HeadsView& view, const HeadsView& like, int64_t heads) {
  CHECK(view.tensor.dtype() == like.tensor.dtype())
      << view.tensor.dtype() << " vs. " << like.tensor.dtype();
  CheckShape(view, like, heads);
}

void CheckGradient(const HeadsView& gradient, const HeadsView& of,
                   DType dtype) {
  CHECK(gradient.tensor.dtype() == dtype)
      << gradient.tensor.dtype() << " vs. " << dtype;
  CheckShape(gradient, of, of.heads);
  CHECK_EQ(gradient.tokens, of.tokens);
}

HeadsPointer Pointer(const HeadsView& view) {
  char* data = static_cast<char*>(view.tensor.raw_data());
  if (data != nullptr) data += view.offset * DTypeSize(view.tensor.dtype());
  return {data, view.row_stride};
}

// out[b, s, heads·head_dim].
HeadsPointer DensePointer(const Tensor& x) { return {x.raw_data(), x.dim(-1)}; }

void CheckOffsets(const SequenceOffsets& offsets, int64_t tokens) {
  CHECK(offsets != nullptr && !offsets->empty());
  CHECK_EQ(offsets->front(), 0);
  CHECK_EQ(offsets->back(), tokens);
  CHECK(std::is_sorted(offsets->begin(), offsets->end()));
}

AttentionProblem Problem(const HeadsView& q, const HeadsView& k,
                         const HeadsView& v, double scale,
                         const AttentionMask& mask) {
  CheckView(q, q, q.heads);
  CheckView(k, q, k.heads);
  CheckView(v, k, k.heads);
  CHECK_EQ(v.tokens, k.tokens);
  CHECK(q.batch > 0 && k.heads > 0 && q.tokens > 0 && k.tokens > 0 &&
        q.head_dim > 0);
  CHECK_EQ(q.heads % k.heads, 0) << "heads of queries and of keys";
  CHECK_GT(scale, 0);
  if (mask.key_counts.defined()) {
    CHECK(mask.key_counts.dtype() == DType::kInt32) << mask.key_counts.dtype();
    CHECK_EQ(mask.key_counts.num_elements(), q.batch);
  }
  if (mask.query_offsets != nullptr || mask.key_offsets != nullptr) {
    CheckOffsets(mask.query_offsets, q.tokens);
    CheckOffsets(mask.key_offsets, k.tokens);
    CHECK_EQ(mask.query_offsets->size(), mask.key_offsets->size());
  }
  AttentionProblem problem;
  problem.dtype = q.tensor.dtype();
  problem.batch = q.batch;
  problem.heads = q.heads;
  problem.key_heads = k.heads;
  problem.queries = q.tokens;
  problem.keys = k.tokens;
  problem.head_dim = q.head_dim;
  problem.scale = scale;
  problem.masked = mask.key_counts.defined();
  problem.diagonal = mask.diagonal;
  problem.query_offsets = mask.query_offsets;
  problem.key_offsets = mask.key_offsets;
  return problem;
}

AttentionOperands Operands(const HeadsView& q, const HeadsView& k,
                           const HeadsView& v, const AttentionMask& mask,
                           const AttentionResult& result) {
  return {Pointer(q),
          Pointer(k),
          Pointer(v),
          mask.key_counts.defined()
              ? static_cast<const int32_t*>(mask.key_counts.raw_data())
              : nullptr,
          DensePointer(result.out),
          result.log_sum_exp.raw_data()};
}

Tensor Workspace(Device& device, int64_t bytes, std::string_view label) {
  return Tensor::Empty(device, {bytes}, DType::kUint8,
                       MemoryCategory::kWorkspace, label);
}

}  // namespace

AttentionResult AttentionForward(const HeadsView& q, const HeadsView& k,
                                 const HeadsView& v, double scale,
                                 const AttentionMask& mask,
                                 AttentionOutput output) {
  AttentionProblem problem = Problem(q, k, v, scale, mask);
  problem.unrounded = output == AttentionOutput::kUnrounded;
  Device& device = q.tensor.device();
  AttentionResult result;
  result.out = Tensor::Empty(
      device, {q.batch, q.tokens, q.heads * q.head_dim},
      problem.unrounded ? ComputeDType(problem.dtype) : problem.dtype,
      MemoryCategory::kActivations, "attention");
  result.log_sum_exp = Tensor::Empty(
      device, {q.batch, q.heads, q.tokens}, ComputeDType(problem.dtype),
      MemoryCategory::kActivations, "attention log-sum-exp");
  const AttentionOperands operands = Operands(q, k, v, mask, result);
  const Tensor workspace = Workspace(
      device, device.kernels().attention.forward_workspace(problem, operands),
      "attention scores");
  device.kernels().attention.forward(device.stream(), problem, operands,
                                     workspace.raw_data());
  return result;
}

void MergeAttention(const AttentionResult& part, const AttentionResult& into) {
  const Shape& shape = into.log_sum_exp.shape();  // [b, heads, s]
  CHECK_EQ(part.log_sum_exp.shape(), shape);
  CHECK_EQ(part.out.shape(), into.out.shape());
  const DType dtype = into.out.dtype();
  CHECK(dtype == ComputeDType(dtype)) << dtype;
  for (const Tensor* tensor :
       {&part.out, &part.log_sum_exp, &into.log_sum_exp}) {
    CHECK_EQ(tensor->dtype(), dtype);
  }
  Device& device = into.out.device();
  device.kernels().attention.merge(
      device.stream(), {.dtype = dtype,
                        .batch = shape.dim(0),
                        .heads = shape.dim(1),
                        .tokens = shape.dim(2),
                        .head_dim = into.out.dim(-1) / shape.dim(1),
                        .part_out = part.out.raw_data(),
                        .part_log_sum_exp = part.log_sum_exp.raw_data(),
                        .out = into.out.raw_data(),
                        .log_sum_exp = into.log_sum_exp.raw_data()});
}

void AttentionBackward(const HeadsView& q, const HeadsView& k,
                       const HeadsView& v, const AttentionResult& forward,
                       const Tensor& grad_out, double scale,
                       const AttentionMask& mask, const HeadsView& dq,
                       const HeadsView& dk, const HeadsView& dv) {
  AttentionProblem problem = Problem(q, k, v, scale, mask);
  const DType gradient = dq.tensor.dtype();
  CHECK(gradient == problem.dtype || gradient == ComputeDType(problem.dtype))
      << gradient;
  problem.unrounded = gradient != problem.dtype;
  CheckGradient(dq, q, gradient);
  CheckGradient(dk, k, gradient);
  CheckGradient(dv, v, gradient);
  CHECK(grad_out.shape() == forward.out.shape())
      << grad_out.shape() << " vs. " << forward.out.shape();
  CHECK(grad_out.dtype() == problem.dtype) << grad_out.dtype();
  Device& device = q.tensor.device();
  const AttentionOperands operands = Operands(q, k, v, mask, forward);
  const AttentionGradients gradients = {DensePointer(grad_out), Pointer(dq),
                                        Pointer(dk), Pointer(dv)};
  const Tensor workspace =
      Workspace(device,
                device.kernels().attention.backward_workspace(problem, operands,
                                                              gradients),
                "attention scores");
  device.kernels().attention.backward(device.stream(), problem, operands,
                                      gradients, workspace.raw_data());
}

}  // namespace trireme
