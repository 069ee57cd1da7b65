#include "runtime/autograd/tensor_functions.h"

#include <utility>

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/embedding.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/reduction.h"

namespace trireme {
namespace {

// Of sums over x's elements.
DType SumTypeOf(const Tensor& x) {
  return x.dtype() == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

Tensor OneElement(const Tensor& x, double value) {
  return Full(x.device(), {1}, SumTypeOf(x), value);
}

// A tensor of x's shape and dtype whose elements are all `value`.
Tensor FilledLike(const Tensor& x, double value) {
  return Full(x.device(), x.shape(), x.dtype(), value,
              MemoryCategory::kActivations, "gradient of a sum");
}

Tensor InType(const Tensor& x, DType dtype) {
  return x.dtype() == dtype ? x : Cast(x, dtype);
}

// y[count, h] in rows' dtype; sums in the compute type.
Tensor ScatterSum(const Tensor& rows, const Tensor& indices, int64_t count) {
  const Tensor sums =
      Tensor::Zeros(rows.device(), {count, rows.dim(-1)}, SumTypeOf(rows),
                    MemoryCategory::kActivations, "scattered rows");
  ScatterAddRows(rows, indices, sums);
  return InType(sums, rows.dtype());
}

int64_t MatricesIn(const Tensor& x) {
  return x.shape().elements_before(x.rank() - 2);
}

Tensor AsRows(const Tensor& x) { return x.Reshape({-1, x.dim(-1)}); }

}  // namespace

Variable MatMul(Tape& tape, const Variable& a, const Variable& b,
                bool transpose_a, bool transpose_b) {
  const bool for_all = MatricesIn(b.value()) == 1;
  CHECK(!for_all || MatricesIn(a.value()) == 1 || !transpose_a)
      << "a transposed batch times one matrix";
  Tensor y = MatMul(a.value(), b.value(), nullptr,
                    {.transpose_a = transpose_a, .transpose_b = transpose_b});
  return tape.Record(
      "matmul", {a, b}, {}, std::move(y), {a.value(), b.value()},
      [transpose_a, transpose_b, for_all](Tape::Gradients& gradients) {
        const Tensor& a = gradients.Saved(0);
        const Tensor& b = gradients.Saved(1);
        const Tensor dy = gradients.TakeOutput();
        if (gradients.Needs(0)) {
          const Tensor da =
              transpose_a
                  ? MatMul(b, dy, nullptr,
                           {.transpose_a = transpose_b, .transpose_b = true})
                  : MatMul(dy, b, nullptr, {.transpose_b = !transpose_b});
          gradients.Accumulate(0, da.Reshape(a.shape()));
        }
        if (gradients.Needs(1)) {
          // A matrix for all of a's leading dims sums over them.
          const Tensor left = for_all ? AsRows(a) : a;
          const Tensor slope = for_all ? AsRows(dy) : dy;
          const Tensor db =
              transpose_b
                  ? MatMul(slope, left, nullptr,
                           {.transpose_a = true, .transpose_b = transpose_a})
                  : MatMul(left, slope, nullptr, {.transpose_a = !transpose_a});
          gradients.Accumulate(1, db.Reshape(b.shape()));
        }
      });
}

Variable Multiply(Tape& tape, const Variable& a, const Variable& b) {
  return tape.Record(
      "multiply", {a, b}, {}, Multiply(a.value(), b.value()),
      {a.value(), b.value()}, [](Tape::Gradients& gradients) {
        const Tensor dy = gradients.TakeOutput();
        if (gradients.Needs(0)) {
          gradients.Accumulate(0, Multiply(dy, gradients.Saved(1)));
        }
        if (gradients.Needs(1)) {
          gradients.Accumulate(1, Multiply(dy, gradients.Saved(0)));
        }
      });
}

Variable Scale(Tape& tape, const Variable& a, double factor) {
  return tape.Record("scale", {a}, {}, Scale(a.value(), factor), {},
                     [factor](Tape::Gradients& gradients) {
                       gradients.Accumulate(
                           0, Scale(gradients.TakeOutput(), factor));
                     });
}

Variable Softmax(Tape& tape, const Variable& x) {
  const Tensor y = SoftmaxForward(x.value());
  return tape.Record(
      "softmax", {x}, {}, y, {y}, [](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, SoftmaxBackward(gradients.Saved(0), gradients.TakeOutput()));
      });
}

Variable Sum(Tape& tape, const Variable& x) {
  return tape.Record(
      "sum", {x}, {}, OneElement(x.value(), Sum(x.value())), {x.value()},
      [](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, FilledLike(gradients.Saved(0), ValueOf(gradients.TakeOutput())));
      });
}

Variable SumOfSquares(Tape& tape, const Variable& x) {
  return tape.Record(
      "sum of squares", {x}, {}, OneElement(x.value(), SumOfSquares(x.value())),
      {x.value()}, [](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, Scale(gradients.Saved(0), 2 * ValueOf(gradients.TakeOutput())));
      });
}

Variable SumTokens(Tape& tape, const Variable& x) {
  return tape.Record("sum tokens", {x}, {}, SumTokens(x.value()), {},
                     [tokens = x.value().dim(1)](Tape::Gradients& gradients) {
                       gradients.Accumulate(
                           0, RepeatOverTokens(gradients.TakeOutput(), tokens));
                     });
}

Variable GatherRows(Tape& tape, const Variable& table, const Tensor& indices) {
  return tape.Record(
      "gather rows", {table}, {}, GatherRows(table.value(), indices), {indices},
      [count = table.value().dim(0)](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, ScatterSum(gradients.TakeOutput(), gradients.Saved(0), count));
      });
}

Variable ScatterRows(Tape& tape, const Variable& rows, const Tensor& indices,
                     int64_t count) {
  return tape.Record(
      "scatter rows", {rows}, {}, ScatterSum(rows.value(), indices, count),
      {indices}, [](Tape::Gradients& gradients) {
        gradients.Accumulate(
            0, GatherRows(gradients.TakeOutput(), gradients.Saved(0)));
      });
}

Variable Patchify(Tape& tape, const Variable& x, int64_t patch) {
  const Tensor& picture = x.value();
  return tape.Record("patchify", {x}, {}, Patchify(picture, patch), {},
                     [patch, channels = picture.dim(1), height = picture.dim(2),
                      width = picture.dim(3)](Tape::Gradients& gradients) {
                       gradients.Accumulate(
                           0, Unpatchify(gradients.TakeOutput(), patch,
                                         channels, height, width));
                     });
}

Variable Unpatchify(Tape& tape, const Variable& tokens, int64_t patch,
                    int64_t channels, int64_t height, int64_t width) {
  return tape.Record("unpatchify", {tokens}, {},
                     Unpatchify(tokens.value(), patch, channels, height, width),
                     {}, [patch](Tape::Gradients& gradients) {
                       gradients.Accumulate(
                           0, Patchify(gradients.TakeOutput(), patch));
                     });
}

}  // namespace trireme
