#include "runtime/autograd/weight_decomposition.h"

#include <algorithm>

#include "runtime/autograd/functions.h"
#include "runtime/core/log.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/quantization.h"
#include "runtime/ops/weight_decomposition.h"

namespace trireme {
namespace {

// Of values that codes stand for.
constexpr int64_t kMaxPanelBytes = int64_t{4} << 20;

// f(first row, values of the rows from there) for rows [begin, end) of a
// weight: not of all at once where they are made of codes, as no product of the
// layer needs as much memory.
template <typename F>
void ForRows(const Parameter& weight, int64_t begin, int64_t end, const F& f) {
  if (weight.format == WeightFormat::kFull) {
    f(begin, WeightMatrix(weight).Slice(begin, end));
    return;
  }
  const int64_t row_bytes =
      weight.quantized.layout.columns * DTypeSize(weight.dtype);
  const int64_t most = std::max<int64_t>(1, kMaxPanelBytes / row_bytes);
  for (int64_t row = begin; row < end; row += most) {
    f(row, DequantizeRows(weight.quantized, row, std::min(end, row + most),
                          weight.dtype, weight.name));
  }
}

}  // namespace

void AddRowSquares(const Parameter& weight, const Tensor& squares) {
  ForRows(weight, 0, squares.num_elements(), [&](int64_t row, const Tensor& w) {
    AddRowProducts(w, w, 1, squares.Slice(row, row + w.dim(0)));
  });
}

void AddAdaptedRowSquares(const Parameter& weight, const Parameter& a,
                          const Parameter& b, double scale,
                          const Tensor& squares) {
  const int64_t rank = a.value.dim(-2);
  const int64_t groups = a.value.rank() == 3 ? a.value.dim(0) : 1;
  const DType compute = ComputeDType(a.value.dtype());
  const Tensor factors = b.value.Reshape({-1, rank});
  CHECK_EQ(factors.dim(0), squares.num_elements()) << weight.name;
  const int64_t rows = factors.dim(0) / groups;
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t first = group * rows;
    const Tensor down = a.value.Reshape({-1, a.value.dim(-1)})
                            .Slice(group * rank, (group + 1) * rank);
    const Tensor up =
        Cast(factors.Slice(first, first + rows), compute, "rows of B");
    const auto by_a = [&](const Tensor& rows_of) {
      return MatMul(
          rows_of, down, nullptr,
          {.transpose_b = true, .out_dtype = compute, .label = weight.name});
    };
    ForRows(weight, first, first + rows, [&](int64_t row, const Tensor& w) {
      const int64_t end = row + w.dim(0);
      const Tensor of_rows = squares.Slice(row, end);
      AddRowProducts(w, w, 1, of_rows);
      AddRowProducts(by_a(w), up.Slice(row - first, end - first), 2 * scale,
                     of_rows);
    });
    AddRowProducts(MatMul(up, by_a(down)), up, scale * scale,
                   squares.Slice(first, first + rows));
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
