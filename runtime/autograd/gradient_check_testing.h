// A test fixture that compares what a tape makes of an op with central
// differences in fp64.

#ifndef TRIREME_RUNTIME_AUTOGRAD_GRADIENT_CHECK_TESTING_H_
#define TRIREME_RUNTIME_AUTOGRAD_GRADIENT_CHECK_TESTING_H_

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/autograd/tape.h"
#include "runtime/core/philox.h"
#include "runtime/device/cpu_device.h"

namespace trireme {

class GradientCheck : public testing::Test {
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
      const Variable outputs[] = {y};
      tape.Backward(outputs, {weights.Clone()}, mode);
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

  // The same for the gradients of a loss, factor·f(inputs).
  void CheckLoss(const Function& f, double factor,
                 const std::vector<Tensor>& inputs) {
    Tape tape(device_);
    std::vector<Variable> leaves;
    for (const Tensor& input : inputs) leaves.push_back(tape.Leaf(input));
    tape.AddLoss(f(tape, leaves), factor, "loss");
    tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
    const std::vector<double> weight = {factor};
    const Tensor weights = Tensor::FromValues<double>(device_, {1}, weight);
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Tensor gradient = tape.TakeGradient(leaves[i]);
      ASSERT_TRUE(gradient.defined()) << "input " << i;
      CompareWithDifferences(f, inputs, weights, inputs[i], gradient);
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

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_GRADIENT_CHECK_TESTING_H_
