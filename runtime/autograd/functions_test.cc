// Every differentiable op against central differences in fp64.

#include "runtime/autograd/functions.h"

#include <cmath>
#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

class FunctionsTest : public testing::Test {
 protected:
  Tensor Random(const Shape& shape, uint64_t seed) {
    std::vector<double> values(shape.num_elements());
    const RandomStream random({.seed = seed});
    for (size_t i = 0; i < values.size(); ++i) values[i] = random.Normal(i);
    return Tensor::FromValues<double>(device_, shape, values);
  }

  Parameter MakeParameter(const Shape& shape, uint64_t seed) {
    Parameter parameter;
    parameter.name = "p" + std::to_string(seed);
    parameter.global_shape = shape;
    parameter.value = Random(shape, seed);
    parameter.grad = Tensor::Zeros(device_, shape, DType::kFloat64);
    parameter.trainable = true;
    return parameter;
  }

  using Function = std::function<Variable(Tape&, const std::vector<Variable>&)>;

  // Compares the gradients of Σ weights∘f(inputs) with central differences,
  // for all inputs and parameters, in both backward modes.
  void Check(const Function& f, const std::vector<Tensor>& inputs,
             const std::vector<Parameter*>& parameters) {
    for (const auto mode : {Tape::WeightGradients::kImmediate,
                            Tape::WeightGradients::kDeferred}) {
      Tape tape(device_);
      std::vector<Variable> leaves;
      for (const Tensor& input : inputs) {
        leaves.push_back(tape.Leaf(input.Clone()));
      }
      for (Parameter* parameter : parameters) parameter->grad.FillZero();
      const Variable y = f(tape, leaves);
      const Tensor weights = Random(y.value().shape(), 1234);
      const Tensor seeds[] = {weights.Clone()};
      const Variable outputs[] = {y};
      tape.Backward(outputs, seeds, mode);
      tape.RunWeightGradients();
      for (size_t i = 0; i < inputs.size(); ++i) {
        const Tensor gradient = tape.TakeGradient(leaves[i]);
        ASSERT_TRUE(gradient.defined()) << "input " << i;
        CompareWithDifferences(f, inputs, weights, inputs[i], gradient);
      }
      for (Parameter* parameter : parameters) {
        CompareWithDifferences(f, inputs, weights, parameter->value,
                               parameter->grad);
      }
    }
  }

  CpuDevice device_{1 << 28};

 private:
  double Objective(const Function& f, const std::vector<Tensor>& inputs,
                   const Tensor& weights) {
    Tape tape(device_, Tape::Mode::kInference);
    std::vector<Variable> constants;
    for (const Tensor& input : inputs) constants.emplace_back(input);
    const std::vector<double> y = f(tape, constants).value().ToVector<double>();
    const std::vector<double> w = weights.ToVector<double>();
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += w[i] * y[i];
    return sum;
  }

  void CompareWithDifferences(const Function& f,
                              const std::vector<Tensor>& inputs,
                              const Tensor& weights, const Tensor& varied,
                              const Tensor& gradient) {
    constexpr double kStep = 1e-5;
    double* x = varied.data<double>();
    for (int64_t i = 0; i < varied.num_elements(); ++i) {
      const double saved = x[i];
      x[i] = saved + kStep;
      const double above = Objective(f, inputs, weights);
      x[i] = saved - kStep;
      const double below = Objective(f, inputs, weights);
      x[i] = saved;
      const double expected = (above - below) / (2 * kStep);
      ASSERT_NEAR(gradient.data<double>()[i], expected,
                  1e-6 * std::max(1.0, std::abs(expected)))
          << "element " << i;
    }
  }
};

TEST_F(FunctionsTest, LinearWithPartsAndBias) {
  Parameter weight = MakeParameter({2, 3, 4}, 1);
  Parameter bias = MakeParameter({2, 3}, 2);
  Check([&](Tape& tape,
            const auto& x) { return Linear(tape, x[0], weight, &bias); },
        {Random({2, 3, 4}, 3)}, {&weight, &bias});
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
        return Add(tape, Activate(tape, Activation::kGeluTanh, sum),
                   Activate(tape, Activation::kSilu, x[0]));
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
            &key_counts);
      },
      {Random({2, 3, 24}, 3)}, {&q_norm, &k_norm});
  Check(
      [&](Tape& tape, const auto& x) {
        return SelfAttention(tape, x[0], 4, {}, nullptr);
      },
      {Random({2, 3, 24}, 3)}, {});
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
                              &key_counts);
      },
      {Random({2, 3, 8}, 3), Random({2, 5, 16}, 4)}, {&q_norm, &k_norm});
}

TEST_F(FunctionsTest, EmbeddingAddsRepeatedRows) {
  Parameter table = MakeParameter({4, 3}, 1);
  const std::vector<int32_t> rows = {2, 0, 2};
  const Tensor indices = Tensor::FromValues<int32_t>(device_, {3}, rows);
  Check([&](Tape& tape,
            const auto&) { return EmbeddingLookup(tape, table, indices); },
        {}, {&table});
}

TEST_F(FunctionsTest, SquaredErrorSeedsItself) {
  const Tensor x = Random({2, 3}, 1);
  const Tensor target = Random({2, 3}, 2);
  Tape tape(device_);
  const Variable leaf = tape.Leaf(x);
  const Variable loss = SquaredErrorLoss(tape, leaf, target, 0.25);
  const Variable outputs[] = {loss};
  const Tensor seeds[] = {Tensor()};
  tape.Backward(outputs, seeds, Tape::WeightGradients::kImmediate);
  const Tensor gradient = tape.TakeGradient(leaf);
  for (int i = 0; i < 6; ++i) {
    EXPECT_NEAR(gradient.data<double>()[i],
                0.5 * (x.data<double>()[i] - target.data<double>()[i]), 1e-12);
  }
}

}  // namespace
}  // namespace trireme
