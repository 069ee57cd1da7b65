#include "runtime/autograd/weight_decomposition.h"

#include "runtime/autograd/functions.h"
#include "runtime/core/log.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/weight_decomposition.h"

namespace trireme {

void AddRowSquares(const Parameter& weight, const Tensor& squares) {
  const Tensor w = WeightMatrix(weight);
  AddRowProducts(w, w, 1, squares);
}

void AddAdaptedRowSquares(const Parameter& weight, const Parameter& a,
                          const Parameter& b, double scale,
                          const Tensor& squares) {
  const Tensor w = WeightMatrix(weight);
  AddRowProducts(w, w, 1, squares);
  const int64_t rank = a.value.dim(-2);
  const int64_t groups = a.value.rank() == 3 ? a.value.dim(0) : 1;
  const int64_t rows = w.dim(0) / groups;
  const DType compute = ComputeDType(w.dtype());
  const Tensor factors = b.value.Reshape({-1, rank});
  CHECK_EQ(factors.dim(0), w.dim(0)) << weight.name;
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = group * rows;
    const Tensor down =
        a.value.Reshape({-1, w.dim(1)}).Slice(group * rank, (group + 1) * rank);
    const Tensor up =
        Cast(factors.Slice(first, first + rows), compute, "rows of B");
    const Tensor of_group = squares.Slice(first, first + rows);
    const auto by_a = [&](const Tensor& rows_of) {
      return MatMul(
          rows_of, down, nullptr,
          {.transpose_b = true, .out_dtype = compute, .label = weight.name});
    };
    AddRowProducts(by_a(w.Slice(first, first + rows)), up, 2 * scale, of_group);
    AddRowProducts(MatMul(up, by_a(down)), up, scale * scale, of_group);
  }
}

Variable ScaleByMagnitude(Tape& tape, const Variable& x, Parameter& magnitude,
                          const Tensor& squares) {
  const DirectionFactors factors = MakeDirectionFactors(
      magnitude.value.Reshape({-1}), squares.Reshape({-1}));
  return tape.Record("scale by magnitude", {x}, {&magnitude},
                     ScaleColumns(x.value(), factors.scale),
                     {x.value(), factors.scale, factors.inverse},
                     [&magnitude](Tape::Gradients& gradients) {
                       const Tensor dy = gradients.TakeOutput();
                       gradients.AddWeightGradient(
                           magnitude, [&magnitude, x = gradients.Saved(0),
                                       inverse = gradients.Saved(2), dy] {
                             AddMagnitudeGradient(x, dy, inverse,
                                                  magnitude.grad.Reshape({-1}));
                           });
                       if (!gradients.Needs(0)) return;
                       gradients.Accumulate(
                           0, ScaleColumns(dy, gradients.Saved(1)));
                     });
}

}  // namespace trireme
