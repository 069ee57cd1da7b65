#include "runtime/autograd/tape.h"

#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

// Two residual layers in fp32: enough for every order of work to matter.
class TapeTest : public testing::Test {
 protected:
  TapeTest() {
    for (int i = 0; i < 2; ++i) {
      Parameter& weight = weights_[i];
      weight.name = "w" + std::to_string(i);
      weight.global_shape = {8, 8};
      weight.initializer = {.kind = Initializer::Kind::kNormal, .stddev = 0.5};
      weight.value = Tensor::Empty(device_, {8, 8}, DType::kFloat32);
      InitializeParameter(3, weight);
      weight.grad = Tensor::Zeros(device_, {8, 8}, DType::kFloat32);
      weight.trainable = true;
    }
  }

  Tensor Input(uint64_t seed) {
    std::vector<float> values(4 * 8);
    RandomStream({.seed = seed}).FillNormal(0, values);
    return Tensor::FromValues<float>(device_, {4, 8}, values);
  }

  Variable Layer(Tape& tape, const Variable& x, int i) {
    return Add(tape, x,
               Activate(tape, Activation::kSilu,
                        Linear(tape, x, weights_[i], nullptr)));
  }

  Variable Forward(Tape& tape, const Variable& x, bool recompute) {
    Variable y = x;
    for (int i = 0; i < 2; ++i) {
      if (recompute) {
        y = tape.Checkpoint(
            "layer", {y},
            [this, i](Tape& inner, std::span<const Variable> inputs) {
              return std::vector<Variable>{Layer(inner, inputs[0], i)};
            })[0];
      } else {
        y = Layer(tape, y, i);
      }
    }
    return y;
  }

  struct Result {
    std::vector<float> output, input_gradient, w0, w1;
    friend bool operator==(const Result&, const Result&) = default;
  };

  Result Finish(Tape& tape, const Variable& leaf, const Variable& y,
                Tape::WeightGradients mode) {
    const Variable outputs[] = {y};
    const std::vector<Tensor> seeds = {Input(77)};
    tape.Backward(outputs, seeds, mode);
    tape.RunWeightGradients();
    return {
        y.value().ToVector<float>(), tape.TakeGradient(leaf).ToVector<float>(),
        weights_[0].grad.ToVector<float>(), weights_[1].grad.ToVector<float>()};
  }

  Result Run(bool recompute, Tape::WeightGradients mode) {
    for (Parameter& weight : weights_) weight.grad.FillZero();
    Tape tape(device_);
    const Variable leaf = tape.Leaf(Input(5));
    return Finish(tape, leaf, Forward(tape, leaf, recompute), mode);
  }

  CpuDevice device_{1 << 24};
  Parameter weights_[2];
};

TEST_F(TapeTest, DeferredWeightGradientsAndRecomputeChangeNoBit) {
  const Result base = Run(false, Tape::WeightGradients::kImmediate);
  EXPECT_EQ(base, Run(false, Tape::WeightGradients::kDeferred));
  EXPECT_EQ(base, Run(true, Tape::WeightGradients::kImmediate));
  EXPECT_EQ(base, Run(true, Tape::WeightGradients::kDeferred));
}

// What a queued gradient needs from other ranks is on its way while the one
// ahead of it is computed, and no earlier: it takes memory.
TEST_F(TapeTest, QueuedGradientsArePreparedOneAhead) {
  std::vector<std::string> order;
  Tape tape(device_);
  const Variable leaf = tape.Leaf(Input(5));
  const auto op = [&](const Variable& x, int i) {
    return tape.Record(
        "op", {x}, {&weights_[i]}, x.value(), {},
        [&, i](Tape::Gradients& gradients) {
          gradients.Accumulate(0, gradients.TakeOutput());
          const std::string name = std::to_string(i);
          gradients.AddWeightGradient(
              weights_[i], [&order, name] { order.push_back("run " + name); },
              [&order, name] { order.push_back("prepare " + name); });
        });
  };
  const Variable outputs[] = {op(op(op(leaf, 0), 1), 0)};
  const std::vector<Tensor> seeds = {Input(77)};
  tape.Backward(outputs, seeds, Tape::WeightGradients::kDeferred);
  EXPECT_TRUE(order.empty());
  tape.RunWeightGradients();
  EXPECT_EQ(order, (std::vector<std::string>{"prepare 0", "prepare 1", "run 0",
                                             "prepare 0", "run 1", "run 0"}));
}

TEST_F(TapeTest, InterleavedMicrobatchesEqualSeparateOnes) {
  const auto run = [&](bool interleaved) {
    for (Parameter& weight : weights_) weight.grad.FillZero();
    Tape a(device_), b(device_);
    const Variable leaf_a = a.Leaf(Input(5));
    const Variable leaf_b = b.Leaf(Input(6));
    Variable y_a = Forward(a, leaf_a, false);
    Variable y_b;
    if (interleaved) y_b = Forward(b, leaf_b, false);
    Finish(a, leaf_a, y_a, Tape::WeightGradients::kImmediate);
    if (!interleaved) y_b = Forward(b, leaf_b, false);
    return Finish(b, leaf_b, y_b, Tape::WeightGradients::kImmediate);
  };
  EXPECT_EQ(run(true), run(false));
}

TEST_F(TapeTest, TellsWhenAParameterIsComplete) {
  std::vector<std::string> ready;
  Tape tape(device_);
  tape.queue().set_ready(
      [&](Parameter& parameter) { ready.push_back(parameter.name); });
  const Variable leaf = tape.Leaf(Input(5));
  // w0 is used twice: complete only after its earlier use ran backward.
  Variable y = Layer(tape, Layer(tape, Layer(tape, leaf, 0), 1), 0);
  const Variable outputs[] = {y};
  const std::vector<Tensor> seeds = {Input(77)};
  tape.Backward(outputs, seeds, Tape::WeightGradients::kImmediate);
  EXPECT_EQ(ready, (std::vector<std::string>{"w1", "w0"}));
}

TEST_F(TapeTest, RecomputeTellsCompletionOnceToo) {
  std::map<std::string, int> ready;
  Tape tape(device_);
  tape.queue().set_ready(
      [&](Parameter& parameter) { ++ready[parameter.name]; });
  const Variable leaf = tape.Leaf(Input(5));
  Finish(tape, leaf, Forward(tape, leaf, true),
         Tape::WeightGradients::kImmediate);
  EXPECT_EQ(ready, (std::map<std::string, int>{{"w0", 1}, {"w1", 1}}));
}

TEST_F(TapeTest, RecomputeKeepsInputsOnly) {
  const auto saved = [&](bool recompute) {
    Tape tape(device_);
    const Variable leaf = tape.Leaf(Input(5));
    Forward(tape, leaf, recompute);
    int64_t bytes = 0;
    for (const auto& [name, node_bytes] : tape.SavedBytes()) {
      bytes += node_bytes;
    }
    return bytes;
  };
  EXPECT_EQ(saved(true), 2 * 4 * 8 * 4);
  EXPECT_GT(saved(false), saved(true));
}

TEST_F(TapeTest, FreesWhatItSavedAndDryRunsCountTheSame) {
  const auto peak = [&](Device& device) {
    Parameter weight;
    weight.name = "w";
    weight.global_shape = {8, 8};
    weight.value = Tensor::Zeros(device, {8, 8}, DType::kFloat32);
    weight.grad = Tensor::Zeros(device, {8, 8}, DType::kFloat32);
    weight.trainable = true;
    {
      Tape tape(device);
      const Variable leaf =
          tape.Leaf(Tensor::Zeros(device, {64, 8}, DType::kFloat32));
      const Variable y = Activate(tape, Activation::kSilu,
                                  Linear(tape, leaf, weight, nullptr));
      const Variable outputs[] = {y};
      const std::vector<Tensor> seeds = {
          Tensor::Zeros(device, {64, 8}, DType::kFloat32)};
      tape.Backward(outputs, seeds, Tape::WeightGradients::kImmediate);
    }
    EXPECT_EQ(device.Statistics().current_bytes,
              weight.value.bytes() + weight.grad.bytes());
    return device.Statistics().peak_bytes;
  };
  CpuDevice real(1 << 24);
  CpuDevice dry(1 << 24, CpuDevice::Mode::kDry);
  EXPECT_EQ(peak(real), peak(dry));
}

TEST_F(TapeTest, UnusedResultsAreAProgrammingError) {
  Tape tape(device_);
  const Variable leaf = tape.Leaf(Input(5));
  const Variable used = Layer(tape, leaf, 0);
  Layer(tape, leaf, 1);
  const Variable outputs[] = {used};
  const std::vector<Tensor> seeds = {Input(77)};
  EXPECT_DEATH(tape.Backward(outputs, seeds, Tape::WeightGradients::kImmediate),
               "no gradient reaches");
}

// An output that nothing flows into is not a forgotten one: what only it comes
// from is left out, and its parameters are done.
TEST_F(TapeTest, OutputsWithoutAGradientAreLeftOut) {
  std::vector<std::string> ready;
  for (Parameter& weight : weights_) weight.grad.FillZero();
  Tape tape(device_);
  tape.queue().set_ready(
      [&](Parameter& parameter) { ready.push_back(parameter.name); });
  const Variable leaf = tape.Leaf(Input(5));
  const Variable outputs[] = {Layer(tape, leaf, 0).WithoutValue(),
                              Layer(tape, leaf, 1).WithoutValue(),
                              leaf.WithoutValue()};
  tape.Backward(outputs, {Input(77), Tensor(), Tensor()},
                Tape::WeightGradients::kImmediate);
  EXPECT_EQ(ready, (std::vector<std::string>{"w1", "w0"}));
  EXPECT_NE(weights_[0].grad.ToVector<float>(), std::vector<float>(64));
  EXPECT_EQ(weights_[1].grad.ToVector<float>(), std::vector<float>(64));
}

// Several tapes of one microbatch: a parameter is complete when all are done.
TEST_F(TapeTest, TapesThatShareAQueueCompleteParametersTogether) {
  std::vector<std::string> ready;
  WeightGradientQueue queue;
  queue.set_ready(
      [&](Parameter& parameter) { ready.push_back(parameter.name); });
  Tape first(device_, queue), second(device_, queue);
  const Variable first_leaf = first.Leaf(Input(5));
  const Variable y = Layer(first, first_leaf, 0);
  const Variable second_leaf = second.Leaf(y.value());
  const Variable outputs[] = {Layer(second, second_leaf, 0)};
  second.Backward(outputs, {Input(77)}, Tape::WeightGradients::kImmediate);
  EXPECT_TRUE(ready.empty());
  const Variable inner[] = {y};
  first.Backward(inner, {second.TakeGradient(second_leaf)},
                 Tape::WeightGradients::kImmediate);
  EXPECT_EQ(ready, (std::vector<std::string>{"w0"}));
}

// One pass that makes the gradients of two: both are ready to be added to
// before it runs, and complete behind it.
TEST_F(TapeTest, AContributionToTwoParametersCompletesBoth) {
  std::vector<std::string> said;
  WeightGradientQueue queue;
  queue.set_needed([&](Parameter& parameter) {
    said.push_back(parameter.name + " needed");
  });
  queue.set_ready(
      [&](Parameter& parameter) { said.push_back(parameter.name + " ready"); });
  for (Parameter* const parameter : {&weights_[0], &weights_[1]}) {
    queue.Expect(*parameter);
  }
  queue.Expect(weights_[1]);
  queue.set_deferred(true);
  queue.AddBoth(weights_[0], weights_[1], [&] { said.push_back("both"); });
  queue.Add(weights_[1], [&] { said.push_back("one"); });
  EXPECT_TRUE(said.empty());
  queue.Run();
  EXPECT_EQ(said, (std::vector<std::string>{"w0 needed", "w1 needed", "both",
                                            "w0 ready", "w1 needed", "one",
                                            "w1 ready"}));
}

// A loss is reported once and felt once, whether what makes it is run again or
// not, and whatever the loss scale is; its gradient is in proportion to its
// weight.
TEST_F(TapeTest, LossesBeginWhereTheyAreMade) {
  const auto gradients = [&](bool recompute, double scale,
                             double weight = 0.5) {
    for (Parameter& weight : weights_) weight.grad.FillZero();
    Tape tape(device_);
    tape.set_loss_scale(scale);
    const Variable leaf = tape.Leaf(Input(5));
    const auto block = [this, weight](Tape& inner,
                                      std::span<const Variable> inputs) {
      const Variable y = Layer(inner, inputs[0], 0);
      inner.AddLoss(SumOfSquares(inner, y), weight, "squares");
      return std::vector<Variable>{Layer(inner, y, 1)};
    };
    const Variable outputs[] = {
        recompute ? tape.Checkpoint("block", {leaf}, block)[0]
                  : block(tape, std::vector<Variable>{leaf})[0]};
    tape.Backward(outputs, {Tensor()}, Tape::WeightGradients::kImmediate);
    const std::vector<Tape::Loss> losses = tape.TakeLosses();
    EXPECT_EQ(losses.size(), 1u);
    EXPECT_EQ(losses[0].name, "squares");
    EXPECT_EQ(losses[0].weight, weight);
    // Nothing flows into the block's own result.
    EXPECT_EQ(weights_[1].grad.ToVector<float>(), std::vector<float>(64));
    return std::pair(weights_[0].grad.ToVector<float>(),
                     losses[0].value.ToVector<float>());
  };
  const auto base = gradients(false, 1);
  EXPECT_NE(base.first, std::vector<float>(64));
  EXPECT_EQ(gradients(true, 1), base);
  const auto scaled = gradients(true, 4);
  EXPECT_EQ(scaled.second, base.second);
  const auto heavy = gradients(false, 1, /*weight=*/2);
  EXPECT_EQ(heavy.second, base.second);
  for (size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(scaled.first[i], 4 * base.first[i]);
    EXPECT_EQ(heavy.first[i], 4 * base.first[i]);
  }
}

// Fine-tuning a part of a model: the rest costs no activations.
TEST_F(TapeTest, WeightsThatDoNotTrainKeepNoInput) {
  const auto saved = [&](bool trainable) {
    weights_[0].trainable = trainable;
    Tape tape(device_);
    Linear(tape, tape.Leaf(Input(5)), weights_[0], nullptr);
    return tape.SavedBytes().front().second;
  };
  EXPECT_EQ(saved(true), 4 * 8 * 4);
  EXPECT_EQ(saved(false), 0);
}

TEST(ParameterTest, EveryGridStartsFromTheSameLogicalValues) {
  CpuDevice device(1 << 20);
  const auto values = [&](std::vector<ShardedDim> shards) {
    Parameter parameter;
    parameter.name = "w";
    parameter.global_shape = {3, 4, 5};
    parameter.shards = std::move(shards);
    parameter.initializer = {.kind = Initializer::Kind::kNormal};
    parameter.value = Tensor::Empty(
        device, LocalShape(parameter.global_shape, parameter.shards),
        DType::kFloat32);
    InitializeParameter(11, parameter);
    return parameter.value.ToVector<float>();
  };
  const std::vector<float> whole = values({});
  for (int rank = 0; rank < 2; ++rank) {
    const std::vector<float> part = values({{Axis::kTensor, 1, 2, rank}});
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 2; ++j) {
        for (int k = 0; k < 5; ++k) {
          EXPECT_EQ(part[(i * 2 + j) * 5 + k],
                    whole[(i * 4 + rank * 2 + j) * 5 + k]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace trireme
