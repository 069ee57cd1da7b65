// The general differentiable ops against central differences in fp64.

#include "runtime/autograd/tensor_functions.h"

#include <vector>

#include "gtest/gtest.h"
#include "runtime/autograd/gradient_check_testing.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

class TensorFunctionsTest : public GradientCheck {
 protected:
  Tensor Indices(const std::vector<int32_t>& rows) {
    return Tensor::FromValues<int32_t>(
        device_, {static_cast<int64_t>(rows.size())}, rows);
  }
};

TEST_F(TensorFunctionsTest, ProductsOfBatchesInEveryOrientation) {
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      SCOPED_TRACE(testing::Message() << transpose_a << transpose_b);
      Check(
          [=](Tape& tape, const auto& x) {
            return MatMul(tape, x[0], x[1], transpose_a, transpose_b);
          },
          {Random(transpose_a ? Shape{2, 2, 4, 3} : Shape{2, 2, 3, 4}, 1),
           Random(transpose_b ? Shape{2, 2, 5, 4} : Shape{2, 2, 4, 5}, 2)},
          {});
      Check(
          [=](Tape& tape, const auto& x) {
            return MatMul(tape, x[0], x[1], transpose_a, transpose_b);
          },
          {Random(transpose_a ? Shape{4, 3} : Shape{3, 4}, 1),
           Random(transpose_b ? Shape{5, 4} : Shape{4, 5}, 2)},
          {});
    }
  }
}

// The gradient of the one matrix is a sum over the batch.
TEST_F(TensorFunctionsTest, ProductOfABatchWithOneMatrix) {
  for (const bool transpose_b : {false, true}) {
    Check(
        [=](Tape& tape, const auto& x) {
          return MatMul(tape, x[0], x[1], false, transpose_b);
        },
        {Random({2, 3, 4}, 1),
         Random(transpose_b ? Shape{5, 4} : Shape{4, 5}, 2)},
        {});
  }
}

TEST_F(TensorFunctionsTest, RefusesATransposedBatchTimesOneMatrix) {
  Tape tape(device_);
  const Variable a(Random({2, 4, 3}, 1)), b(Random({4, 5}, 2));
  EXPECT_DEATH(MatMul(tape, a, b, true, false), "a transposed batch");
}

// A square is a product of one variable with itself.
TEST_F(TensorFunctionsTest, MultiplyAndScale) {
  Check(
      [](Tape& tape, const auto& x) {
        return Scale(tape, Multiply(tape, Multiply(tape, x[0], x[1]), x[0]),
                     -1.5);
      },
      {Random({3, 5}, 1), Random({3, 5}, 2)}, {});
}

TEST_F(TensorFunctionsTest, Softmax) {
  Check([](Tape& tape, const auto& x) { return Softmax(tape, x[0]); },
        {Random({2, 3, 5}, 1)}, {});
}

// Attention out of single ops has the gradients of attention itself.
TEST_F(TensorFunctionsTest, AttentionOutOfProductsAndSoftmax) {
  Check(
      [](Tape& tape, const auto& x) {
        const Variable scores = MatMul(tape, x[0], x[1], false, true);
        return MatMul(tape, Softmax(tape, Scale(tape, scores, 0.5)), x[2]);
      },
      {Random({2, 3, 4}, 1), Random({2, 5, 4}, 2), Random({2, 5, 4}, 3)}, {});
}

TEST_F(TensorFunctionsTest, Sums) {
  Check([](Tape& tape, const auto& x) { return Sum(tape, x[0]); },
        {Random({3, 5}, 1)}, {});
  Check([](Tape& tape, const auto& x) { return SumOfSquares(tape, x[0]); },
        {Random({3, 5}, 1)}, {});
  Check([](Tape& tape, const auto& x) { return SumTokens(tape, x[0]); },
        {Random({2, 3, 5}, 1)}, {});
}

TEST_F(TensorFunctionsTest, GatherAndScatterWithRepeatedRows) {
  const Tensor indices = Indices({2, 0, 2, 3});
  Check([&](Tape& tape,
            const auto& x) { return GatherRows(tape, x[0], indices); },
        {Random({5, 3}, 1)}, {});
  Check([&](Tape& tape,
            const auto& x) { return ScatterRows(tape, x[0], indices, 5); },
        {Random({4, 3}, 1)}, {});
}

TEST_F(TensorFunctionsTest, PatchesThereAndBack) {
  Check([](Tape& tape, const auto& x) { return Patchify(tape, x[0], 2); },
        {Random({2, 3, 4, 6}, 1)}, {});
  Check([](Tape& tape,
           const auto& x) { return Unpatchify(tape, x[0], 2, 3, 4, 6); },
        {Random({2, 6, 12}, 1)}, {});
}

// In half precision sums are kept in fp32, and gradients come back in the type
// of what they are gradients of.
TEST_F(TensorFunctionsTest, GradientsHaveTheTypeOfTheirInput) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    Tape tape(device_);
    const auto leaf = [&](const Shape& shape) {
      return tape.Leaf(Cast(Random(shape, 1), dtype));
    };
    const Tensor indices = Indices({1, 1});
    const std::vector<Variable> leaves = {leaf({2, 3}), leaf({2, 2, 3}),
                                          leaf({2, 3})};
    const std::vector<Variable> outputs = {
        Sum(tape, leaves[0]), SumTokens(tape, leaves[1]),
        GatherRows(tape, ScatterRows(tape, leaves[2], indices, 2), indices)};
    std::vector<Tensor> seeds;
    for (const Variable& y : outputs) {
      EXPECT_EQ(y.value().dtype(),
                &y == outputs.data() ? DType::kFloat32 : dtype);
      seeds.push_back(y.value().Clone());
    }
    tape.Backward(outputs, seeds, Tape::WeightGradients::kImmediate);
    for (const Variable& x : leaves) {
      const Tensor gradient = tape.TakeGradient(x);
      EXPECT_EQ(gradient.dtype(), dtype);
      EXPECT_EQ(gradient.shape(), x.value().shape());
    }
  }
}

// Planning counts bytes without doing the maths: same shapes, no data.
TEST_F(TensorFunctionsTest, RunOnADryDevice) {
  CpuDevice dry(1 << 28, CpuDevice::Mode::kDry);
  Tape tape(dry);
  const Variable x = tape.Leaf(Tensor::Empty(dry, {2, 4, 4}, DType::kFloat32));
  const Variable y = Sum(
      tape, SumTokens(tape, Softmax(tape, MatMul(tape, x, x, false, true))));
  const Variable outputs[] = {SumOfSquares(tape, y)};
  const std::vector<Tensor> seeds = {Tensor::Empty(dry, {1}, DType::kFloat32)};
  tape.Backward(outputs, seeds, Tape::WeightGradients::kImmediate);
  EXPECT_EQ(tape.TakeGradient(x).shape(), (Shape{2, 4, 4}));
}

}  // namespace
}  // namespace trireme
