#include "runtime/autograd/voxel_functions.h"

#include <utility>

#include "runtime/autograd/functions.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/routing.h"
#include "runtime/ops/set_norm.h"
#include "runtime/ops/sparse_convolution.h"

namespace trireme {
namespace {

// [b·n, c] of [b, n, c].
Tensor Rows(const Tensor& x) { return x.Reshape({-1, x.dim(-1)}); }

// [b, n, c] of [b·n, c].
Tensor Sets(const Tensor& rows, int64_t b) {
  return rows.Reshape({b, rows.dim(0) / b, rows.dim(1)});
}

// The rows of x that `from` names, as `sets` sets; `back`: its inverse.
Variable Permute(Tape& tape, const Variable& x, const Tensor& from,
                 const Tensor& back, int64_t sets) {
  return tape.Record(
      "order of windows", {x}, {}, Sets(SumRows(Rows(x.value()), from), sets),
      {back}, [b = x.value().dim(0)](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0,
            Sets(SumRows(Rows(gradients.TakeOutput()), gradients.Saved(0)), b));
      });
}

}  // namespace

Variable SparseConvolve(Tape& tape, const Variable& x, Parameter& weight,
                        Parameter* bias, const Tensor& neighbors) {
  const Tensor rows = Rows(x.value());
  std::vector<Parameter*> parameters = {&weight};
  if (bias != nullptr) parameters.push_back(bias);
  return tape.Record(
      "sparse convolution", {x}, parameters,
      Sets(SparseConvolve(rows, neighbors, weight.value,
                          bias != nullptr ? &bias->value : nullptr),
           x.value().dim(0)),
      {weight.trainable ? rows : Tensor(), neighbors},
      [&weight, bias, b = x.value().dim(0)](Tape::Gradients& gradients) {
        const Tensor dy = Rows(gradients.TakeOutput());
        const Tensor& neighbors = gradients.Saved(1);
        gradients.AddWeightGradient(
            weight, [&weight, dy, neighbors, rows = gradients.Saved(0)] {
              SparseConvolveWeightGradient(dy, rows, neighbors, weight.grad);
            });
        if (bias != nullptr) {
          gradients.AddWeightGradient(
              *bias, [bias, dy] { AccumulateColumnSums(dy, bias->grad); });
        }
        if (gradients.Needs(0)) {
          gradients.Accumulate(
              0, Sets(SparseConvolveInputGradient(dy, neighbors, weight.value),
                      b));
        }
      });
}

Variable PoolVoxels(Tape& tape, const Variable& x,
                    const CoarserVoxels& coarser) {
  const int64_t b = x.value().dim(0);
  return tape.Record(
      "pool voxels", {x}, {},
      Sets(
          ScaleRows(SumRows(Rows(x.value()), coarser.children), coarser.shares),
          b),
      {coarser.parents, coarser.shares}, [b](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, Sets(SumRows(ScaleRows(Rows(gradients.TakeOutput()),
                                      gradients.Saved(1)),
                            gradients.Saved(0)),
                    b));
      });
}

Variable SubdivideVoxels(Tape& tape, const Variable& x,
                         const CoarserVoxels& coarser) {
  const int64_t b = x.value().dim(0);
  return tape.Record(
      "subdivide voxels", {x}, {},
      Sets(SumRows(Rows(x.value()), coarser.parents), b), {coarser.children},
      [b](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0,
            Sets(SumRows(Rows(gradients.TakeOutput()), gradients.Saved(0)), b));
      });
}

Variable VoxelAttention(Tape& tape, const Variable& qkv,
                        const VoxelWindows& windows, int64_t head_dim) {
  const Variable packed =
      Permute(tape, qkv, windows.order, windows.places, /*sets=*/1);
  const Variable attended = SelfAttention(
      tape, packed, head_dim, HeadNorms(),
      {.query_offsets = windows.offsets, .key_offsets = windows.offsets});
  return Permute(tape, attended, windows.places, windows.order,
                 qkv.value().dim(0));
}

Variable SetNorm(Tape& tape, const Variable& x, const Tensor& counts,
                 int64_t groups, Parameter& weight, Parameter& bias,
                 double eps) {
  SetNormResult forward =
      SetNorm(x.value(), counts, groups, weight.value, bias.value, eps);
  return tape.Record(
      "set norm", {x}, {&weight, &bias}, std::move(forward.out),
      {x.value(), counts, forward.moments},
      [&weight, &bias, groups](Tape::Gradients& gradients) {
        // One pass makes dx and both parameter gradients.
        const Tensor weight_grad = gradients.NewContribution(&weight);
        const Tensor bias_grad = gradients.NewContribution(&bias);
        Tensor dx = SetNormBackward(
            gradients.Saved(0), gradients.Saved(1), groups, weight.value,
            gradients.Saved(2), gradients.TakeOutput(),
            weight_grad.defined() ? &weight_grad : nullptr,
            bias_grad.defined() ? &bias_grad : nullptr);
        gradients.AddContribution(&weight, weight_grad);
        gradients.AddContribution(&bias, bias_grad);
        gradients.Accumulate(0, std::move(dx));
      });
}

Variable SetLoss(Tape& tape, const Variable& values, const Tensor& targets,
                 const Tensor& kinds, const TokenKinds& counted, double limit) {
  return tape.Record(
      "set loss", {values}, {},
      SetLoss(values.value(), targets, kinds, counted, limit),
      {values.value(), targets, kinds},
      [counted, limit](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, SetLossBackward(gradients.Saved(0), gradients.Saved(1),
                               gradients.Saved(2), counted, limit,
                               gradients.LossGradient()));
      });
}

}  // namespace trireme
