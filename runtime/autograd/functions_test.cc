// Every differentiable op against central differences in fp64.

#include "runtime/autograd/functions.h"

#include <vector>

#include "gtest/gtest.h"
#include "runtime/autograd/gradient_check_testing.h"
#include "runtime/ops/float8.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

using FunctionsTest = GradientCheck;

TEST_F(FunctionsTest, LinearWithPartsAndBias) {
  Parameter weight = MakeParameter({2, 3, 4}, 1);
  Parameter bias = MakeParameter({2, 3}, 2);
  Check([&](Tape& tape,
            const auto& x) { return Linear(tape, x[0], weight, &bias); },
        {Random({2, 3, 4}, 3)}, {&weight, &bias});
}

// An activation within the layer is the one in front of it, to the bit, however
// the layer gets its input again; and its gradient is that of both.
TEST_F(FunctionsTest, LinearOfAnActivation) {
  Parameter weight = MakeParameter({3, 4}, 1);
  Parameter bias = MakeParameter({3}, 2);
  const auto within = [&](Keep keep) {
    return [&weight, &bias, keep](Tape& tape, const auto& x) {
      return Linear(tape, x[0], weight, &bias, {},
                    {Activation::kGeluTanh, keep});
    };
  };
  for (const Keep keep : {Keep::kValue, Keep::kRecipe}) {
    Check(within(keep), {Random({2, 3, 4}, 3)}, {&weight, &bias});
  }
  const auto bits = [&](const Function& function) {
    weight.grad.FillZero();
    bias.grad.FillZero();
    Tape tape(device_);
    const std::vector<Variable> x = {tape.Leaf(Random({2, 3, 4}, 3))};
    const Variable outputs[] = {function(tape, x)};
    tape.Backward(outputs, {Random({2, 3, 3}, 4)},
                  Tape::WeightGradients::kDeferred);
    tape.RunWeightGradients();
    return std::vector<std::vector<double>>{
        outputs[0].value().ToVector<double>(),
        tape.TakeGradient(x[0]).ToVector<double>(),
        weight.grad.ToVector<double>(), bias.grad.ToVector<double>()};
  };
  const auto in_front = bits([&](Tape& tape, const auto& x) {
    return Linear(tape, Activate(tape, Activation::kGeluTanh, x[0]), weight,
                  &bias);
  });
  EXPECT_EQ(bits(within(Keep::kValue)), in_front);
  EXPECT_EQ(bits(within(Keep::kRecipe)), in_front);
}

class Float8LinearTest : public GradientCheck {
 protected:
  // What the matrix's codes stand for, with scales of its own times `factor`.
  std::vector<double> Rounded(const Tensor& matrix, Float8Of of,
                              float factor = 1) {
    const int64_t vectors =
        of == Float8Of::kRows ? matrix.dim(0) : matrix.dim(1);
    const Tensor scales = Tensor::Zeros(device_, {vectors}, DType::kFloat32);
    Float8Scales(matrix, of, scales);
    ScaleInPlace(scales, factor);
    return Dequantize(ToFloat8(matrix, of, scales, "matrix"), DType::kFloat64,
                      "values")
        .ToVector<double>();
  }
};

// Forward and for its input a layer multiplies what is rounded, for its weight
// what is not; and by the scales that ranks agreed on.
TEST_F(Float8LinearTest, MultipliesRoundedOperands) {
  constexpr int64_t kRows = 6, kIn = 5, kOut = 4;
  constexpr float kOthers = 16;
  Parameter weight = MakeParameter({2, kOut / 2, kIn}, 1);
  Parameter bias = MakeParameter({2, kOut / 2}, 2);
  weight.float8_products = true;
  const Tensor matrix = weight.value.Reshape({kOut, kIn});
  const Tensor x = Random({2, 3, kIn}, 3), dy = Random({2, 3, kOut}, 4);
  const Tensor rows = x.Reshape({kRows, kIn});
  const Tensor dy_rows = dy.Reshape({kRows, kOut});
  const AgreeOnScales agree = [](const Tensor& scales) {
    ScaleInPlace(scales, kOthers);
  };

  Tape tape(device_);
  const Variable leaf = tape.Leaf(x.Clone());
  const Variable y =
      Linear(tape, leaf, weight, &bias, {.agree_forward = agree});
  const std::vector<double> w = Rounded(matrix, Float8Of::kRows, kOthers);
  const std::vector<double> of_x = Rounded(rows, Float8Of::kRows, kOthers);
  const std::vector<double> addend = bias.value.ToVector<double>();
  const std::vector<double> out = y.value().ToVector<double>();
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kOut; ++j) {
      double sum = addend[j];
      for (int64_t k = 0; k < kIn; ++k) {
        sum += of_x[i * kIn + k] * w[j * kIn + k];
      }
      EXPECT_NEAR(out[i * kOut + j], sum, 1e-12);
    }
  }

  const Variable outputs[] = {y};
  tape.Backward(outputs, {dy.Clone()}, Tape::WeightGradients::kImmediate);
  const std::vector<double> dx = tape.TakeGradient(leaf).ToVector<double>();
  // By channel of the input.
  const std::vector<double> turned = Rounded(matrix, Float8Of::kColumns);
  const std::vector<double> of_dy = Rounded(dy_rows, Float8Of::kRows);
  const std::vector<double> exact_x = x.ToVector<double>();
  const std::vector<double> exact_dy = dy.ToVector<double>();
  const std::vector<double> dw = weight.grad.ToVector<double>();
  for (int64_t k = 0; k < kIn; ++k) {
    for (int64_t i = 0; i < kRows; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < kOut; ++j) {
        sum += of_dy[i * kOut + j] * turned[k * kOut + j];
      }
      EXPECT_NEAR(dx[i * kIn + k], sum, 1e-12);
    }
    for (int64_t j = 0; j < kOut; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < kRows; ++i) {
        sum += exact_dy[i * kOut + j] * exact_x[i * kIn + k];
      }
      EXPECT_NEAR(dw[j * kIn + k], sum, 1e-12);
    }
  }
}

// All three products are of what the scales of earlier steps make of the
// operands, and the next step learns what they would have needed. A gradient
// that is in parts on several ranks is rounded as a sum, and multiplied once.
TEST_F(Float8LinearTest, ScalesOfEarlierStepsRoundAllThreeProducts) {
  constexpr int64_t kRows = 6, kIn = 5, kOut = 4;
  const std::vector<float> scales = {0x1p-8f, 0x1p-7f, 0x1p-10f};
  const Tensor x = Random({kRows, kIn}, 3), dy = Random({kRows, kOut}, 4);
  for (const bool here : {true, false}) {
    Parameter weight = MakeParameter({kOut, kIn}, 1);
    weight.float8_products = true;
    Float8Delay& delay = weight.float8_delay;
    delay.scales = Tensor::FromValues<float>(device_, {3}, scales);
    delay.needed = Tensor::Zeros(device_, {3}, DType::kFloat32);
    delay.known.fill(true);
    const auto rounded = [&](const Tensor& matrix, int operand) {
      const Tensor needed = Tensor::Zeros(device_, {1}, DType::kFloat32);
      const Tensor scale = delay.scales.Slice(operand, operand + 1);
      const QuantizedTensor codes =
          ToFloat8Whole(matrix, Float8Of::kRows, scale, needed, "codes");
      return Dequantize({.layout = Float8Codes(matrix.dim(0), matrix.dim(1),
                                               /*one_scale=*/true),
                         .codes = codes.codes,
                         .scales = scale},
                        DType::kFloat64, "values")
          .ToVector<double>();
    };
    // The sum of two ranks' equal parts.
    const auto sum = [](const Tensor& part) { return Scale(part, 2); };
    Tape tape(device_);
    const Variable leaf = tape.Leaf(x.Clone());
    const Variable y = Linear(tape, leaf, weight, nullptr,
                              {.sum_parts = sum, .product_is_here = here});
    const std::vector<double> of_x = rounded(x, 0);
    const std::vector<double> w = rounded(weight.value, 1);
    const std::vector<double> of_dy = rounded(Scale(dy, 2), 2);
    const std::vector<double> out = y.value().ToVector<double>();
    const Variable outputs[] = {y};
    tape.Backward(outputs, {dy.Clone()}, Tape::WeightGradients::kImmediate);
    const std::vector<double> dx = tape.TakeGradient(leaf).ToVector<double>();
    const std::vector<double> dw = weight.grad.ToVector<double>();
    const auto product = [](int64_t sums, auto term) {
      double sum = 0;
      for (int64_t i = 0; i < sums; ++i) sum += term(i);
      return sum;
    };
    for (int64_t i = 0; i < kRows; ++i) {
      for (int64_t j = 0; j < kOut; ++j) {
        EXPECT_NEAR(out[i * kOut + j],
                    product(kIn,
                            [&](int64_t k) {
                              return of_x[i * kIn + k] * w[j * kIn + k];
                            }),
                    1e-12);
      }
    }
    for (int64_t k = 0; k < kIn; ++k) {
      for (int64_t i = 0; i < kRows; ++i) {
        EXPECT_NEAR(dx[i * kIn + k],
                    here
                        ? product(kOut,
                                  [&](int64_t j) {
                                    return of_dy[i * kOut + j] * w[j * kIn + k];
                                  })
                        : 0,
                    1e-12);
      }
      for (int64_t j = 0; j < kOut; ++j) {
        EXPECT_NEAR(dw[j * kIn + k],
                    here ? product(kRows,
                                   [&](int64_t i) {
                                     return of_dy[i * kOut + j] *
                                            of_x[i * kIn + k];
                                   })
                         : 0,
                    1e-12);
      }
    }
    const std::vector<float> needed = delay.needed.ToVector<float>();
    const auto least = [&](const Tensor& matrix) {
      const Tensor raised = Tensor::Zeros(device_, {1}, DType::kFloat32);
      RaiseFloat8Needed(matrix, raised);
      return raised.ToVector<float>()[0];
    };
    EXPECT_EQ(needed[0], least(x));
    EXPECT_EQ(needed[1], least(weight.value));
    EXPECT_EQ(needed[2], here ? least(Scale(dy, 2)) : 0);
  }
}

// In a step without earlier ones, and while a gradient has been zero so far,
// products are by rows, and of no rounded operand for the weight; what they
// would have needed is learnt all the same.
TEST_F(Float8LinearTest, WhatNoEarlierStepKnowsIsRoundedByRows) {
  const Tensor x = Random({6, 5}, 3), dy = Random({6, 4}, 4);
  const auto run = [&](Parameter& weight) {
    weight.float8_products = true;
    Tape tape(device_);
    const Variable leaf = tape.Leaf(x.Clone());
    const Variable y = Linear(tape, leaf, weight, nullptr);
    const Variable outputs[] = {y};
    tape.Backward(outputs, {dy.Clone()}, Tape::WeightGradients::kImmediate);
    return std::vector{y.value().ToVector<double>(),
                       tape.TakeGradient(leaf).ToVector<double>(),
                       weight.grad.ToVector<double>()};
  };
  Parameter current = MakeParameter({4, 5}, 1);
  const auto expected = run(current);
  Parameter first = MakeParameter({4, 5}, 1);
  first.float8_delay.scales = Tensor::Zeros(device_, {3}, DType::kFloat32);
  first.float8_delay.needed = Tensor::Zeros(device_, {3}, DType::kFloat32);
  EXPECT_EQ(run(first), expected);
  for (const float needed : first.float8_delay.needed.ToVector<float>()) {
    EXPECT_GT(needed, 0);
  }
}

TEST_F(FunctionsTest, LinearByParts) {
  Parameter weight = MakeParameter({3, 4, 2}, 1);
  Check([&](Tape& tape,
            const auto& x) { return LinearByParts(tape, x[0], weight); },
        {Random({2, 3, 6}, 2)}, {&weight});
  Tape tape(device_, Tape::Mode::kInference);
  const Tensor x = Random({2, 3, 6}, 2);
  const std::vector<double> y =
      LinearByParts(tape, Variable(x), weight).value().ToVector<double>();
  // The last element: row 5, part 2, channel 3.
  const std::vector<double> from = x.ToVector<double>();
  const std::vector<double> w = weight.value.ToVector<double>();
  EXPECT_DOUBLE_EQ(y.back(), from[34] * w[22] + from[35] * w[23]);
}

TEST_F(FunctionsTest, AddParameterRepeatsOverRows) {
  Parameter table = MakeParameter({3, 4}, 1);
  Check([&](Tape& tape,
            const auto& x) { return AddParameter(tape, x[0], table); },
        {Random({2, 3, 4}, 2)}, {&table});
}

TEST_F(FunctionsTest, AddAndActivations) {
  Check(
      [](Tape& tape, const auto& x) {
        const Variable sum = Add(tape, x[0], x[1]);
        return Add(tape,
                   Add(tape, Activate(tape, Activation::kGeluTanh, sum),
                       Activate(tape, Activation::kSilu, x[0])),
                   Activate(tape, Activation::kGelu, sum));
      },
      {Random({3, 5}, 1), Random({3, 5}, 2)}, {});
}

TEST_F(FunctionsTest, SwiGluSplitsGateAndUp) {
  Check([](Tape& tape, const auto& x) { return SwiGlu(tape, x[0]); },
        {Random({3, 6}, 1)}, {});
}

TEST_F(FunctionsTest, NormModulateAndGatedResidualShareTheirInput) {
  for (const NormKind kind : {NormKind::kLayer, NormKind::kRms}) {
    Check(
        [kind](Tape& tape, const auto& v) {
          const Variable n = NormModulate(tape, kind, v[0], v[1], v[2], 1e-6);
          return GatedResidual(tape, v[0], v[3], n);
        },
        {Random({2, 3, 5}, 1), Random({2, 5}, 2), Random({2, 5}, 3),
         Random({2, 5}, 4)},
        {});
  }
}

TEST_F(FunctionsTest, NormWithAndWithoutAffine) {
  Parameter weight = MakeParameter({5}, 1);
  Parameter bias = MakeParameter({5}, 2);
  for (const NormKind kind : {NormKind::kLayer, NormKind::kRms}) {
    Check(
        [&](Tape& tape, const auto& x) {
          return Norm(tape, kind, x[0], &weight, &bias, 1e-6);
        },
        {Random({2, 3, 5}, 3)}, {&weight, &bias});
    Check(
        [&](Tape& tape, const auto& x) {
          return Norm(tape, kind, x[0], nullptr, nullptr, 1e-6);
        },
        {Random({2, 3, 5}, 3)}, {});
  }
}

TEST_F(FunctionsTest, SplitConcatAndSlice) {
  Check(
      [](Tape& tape, const auto& x) {
        const std::vector<Variable> parts = SplitColumns(tape, x[0], 2);
        const Variable a = Reshape(tape, parts[0], {1, 2, 3});
        const Variable b = Reshape(tape, parts[1], {1, 2, 3});
        return SliceTokens(tape, ConcatTokens(tape, a, b), 1, 3);
      },
      {Random({2, 6}, 1)}, {});
}

TEST_F(FunctionsTest, SelfAttentionWithNormsRotationAndMask) {
  Parameter q_norm = MakeParameter({4}, 1);
  Parameter k_norm = MakeParameter({4}, 2);
  const int64_t axis_dims[] = {2, 2};
  const std::vector<double> positions = {0, 0, 0, 1, 1, 0};
  const RopeTable rope =
      MakeRopeTable(device_, axis_dims, positions, 100.0, DType::kFloat64);
  const std::vector<int32_t> counts = {3, 2};
  const Tensor key_counts = Tensor::FromValues<int32_t>(device_, {2}, counts);
  Check(
      [&](Tape& tape, const auto& x) {
        return SelfAttention(
            tape, x[0], 4,
            {.q_weight = &q_norm, .k_weight = &k_norm, .rope = &rope},
            {.key_counts = key_counts});
      },
      {Random({2, 3, 24}, 3)}, {&q_norm, &k_norm});
  Check([&](Tape& tape,
            const auto& x) { return SelfAttention(tape, x[0], 4, {}); },
        {Random({2, 3, 24}, 3)}, {});
}

TEST_F(FunctionsTest, SelfAttentionOfQueriesThatShareKeysInSequences) {
  Parameter q_norm = MakeParameter({4}, 1);
  Parameter k_norm = MakeParameter({4}, 2);
  const int64_t axis_dims[] = {4};
  const std::vector<double> positions = {0, 1, 2, 0, 1};
  const RopeTable rope =
      MakeRopeTable(device_, axis_dims, positions, 100.0, DType::kFloat64);
  const SequenceOffsets offsets =
      std::make_shared<std::vector<int64_t>>(std::vector<int64_t>{0, 3, 5});
  const HeadNorms norms{
      .q_weight = &q_norm, .k_weight = &k_norm, .rope = &rope};
  // Two heads of keys, four of queries.
  Check(
      [&](Tape& tape, const auto& x) {
        return SelfAttention(
            tape, x[0], 4, norms,
            {.diagonal = 0, .query_offsets = offsets, .key_offsets = offsets},
            /*queries_per_key=*/2);
      },
      {Random({1, 5, 32}, 3)}, {&q_norm, &k_norm});
  Check(
      [&](Tape& tape, const auto& x) {
        return NormHeads(tape, x[0], 4, norms, /*queries_per_key=*/2);
      },
      {Random({1, 5, 32}, 3)}, {&q_norm, &k_norm});
}

TEST_F(FunctionsTest, NormedHeadsGiveTheFusedAttention) {
  Parameter q_norm = MakeParameter({4}, 1);
  Parameter k_norm = MakeParameter({4}, 2);
  const HeadNorms norms{.q_weight = &q_norm, .k_weight = &k_norm};
  const Tensor x = Random({2, 3, 24}, 3);
  Tape tape(device_, Tape::Mode::kInference);
  const auto fused =
      SelfAttention(tape, Variable(x), 4, norms).value().ToVector<double>();
  const auto split =
      SelfAttention(tape, NormHeads(tape, Variable(x), 4, norms), 4, {})
          .value()
          .ToVector<double>();
  for (size_t i = 0; i < fused.size(); ++i)
    EXPECT_NEAR(fused[i], split[i], 1e-12);
  Check([&](Tape& t, const auto& v) { return NormHeads(t, v[0], 4, norms); },
        {x}, {&q_norm, &k_norm});
}

TEST_F(FunctionsTest, CrossAttentionWithMask) {
  Parameter q_norm = MakeParameter({4}, 1);
  Parameter k_norm = MakeParameter({4}, 2);
  const std::vector<int32_t> counts = {5, 0};
  const Tensor key_counts = Tensor::FromValues<int32_t>(device_, {2}, counts);
  Check(
      [&](Tape& tape, const auto& x) {
        return CrossAttention(tape, x[0], x[1], 4,
                              {.q_weight = &q_norm, .k_weight = &k_norm},
                              {.key_counts = key_counts});
      },
      {Random({2, 3, 8}, 3), Random({2, 5, 16}, 4)}, {&q_norm, &k_norm});
}

TEST_F(FunctionsTest, CrossAttentionOfQueriesThatShareKeysInSequences) {
  const auto offsets = [](std::vector<int64_t> values) {
    return std::make_shared<std::vector<int64_t>>(std::move(values));
  };
  Check(
      [&](Tape& tape, const auto& x) {
        return CrossAttention(tape, x[0], x[1], 4, {},
                              {.query_offsets = offsets({0, 1, 3}),
                               .key_offsets = offsets({0, 4, 5})});
      },
      {Random({1, 3, 16}, 3), Random({1, 5, 16}, 4)}, {});
}

TEST_F(FunctionsTest, EmbeddingAddsRepeatedRows) {
  Parameter table = MakeParameter({4, 3}, 1);
  const std::vector<int32_t> rows = {2, 0, 2};
  const Tensor indices = Tensor::FromValues<int32_t>(device_, {3}, rows);
  Check([&](Tape& tape,
            const auto&) { return EmbeddingLookup(tape, table, indices); },
        {}, {&table});
}

// A rotation whose gradient turns the wrong way trains, only badly.
TEST_F(FunctionsTest, RotationOverOneToThreeAxes) {
  Parameter q_norm = MakeParameter({12}, 1);
  Parameter k_norm = MakeParameter({12}, 2);
  const std::vector<std::vector<int64_t>> splits = {{12}, {4, 8}, {2, 4, 6}};
  for (const std::vector<int64_t>& axis_dims : splits) {
    SCOPED_TRACE(axis_dims.size());
    std::vector<double> positions;
    for (int token = 0; token < 3; ++token) {
      for (size_t axis = 0; axis < axis_dims.size(); ++axis) {
        positions.push_back(token + 0.5 * static_cast<double>(axis));
      }
    }
    const RopeTable rope =
        MakeRopeTable(device_, axis_dims, positions, 100.0, DType::kFloat64);
    Check(
        [&](Tape& tape, const auto& x) {
          return NormHeads(tape, x[0], 12, {.rope = &rope});
        },
        {Random({1, 3, 36}, 3)}, {});
    Check(
        [&](Tape& tape, const auto& x) {
          return SelfAttention(
              tape, x[0], 12,
              {.q_weight = &q_norm, .k_weight = &k_norm, .rope = &rope});
        },
        {Random({1, 3, 36}, 3)}, {&q_norm, &k_norm});
  }
}

TEST_F(FunctionsTest, SquaredErrorLoss) {
  const Tensor target = Random({2, 3}, 2);
  CheckLoss([&](Tape& tape,
                const auto& x) { return SquaredErrorLoss(tape, x[0], target); },
            0.25, {Random({2, 3}, 1)});
}

TEST_F(FunctionsTest, CrossEntropyLossSkipsRowsWithoutLabel) {
  const std::vector<int32_t> classes = {3, 0, -1, 4};
  const Tensor labels = Tensor::FromValues<int32_t>(device_, {4}, classes);
  CheckLoss([&](Tape& tape,
                const auto& x) { return CrossEntropyLoss(tape, x[0], labels); },
            0.25, {Random({4, 5}, 1)});
  CheckLoss(
      [&](Tape& tape, const auto& x) {
        return CrossEntropyLoss(tape, x[0], labels, /*smoothing=*/0.3);
      },
      0.25, {Random({4, 5}, 1)});
}

}  // namespace
}  // namespace trireme
