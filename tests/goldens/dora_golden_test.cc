// Linear layers whose weights adapters decompose (DoRA) against PEFT's, from
// dora.safetensors (see generate_dora.py).

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
#include "parallel/grid/context.h"
#include "parallel/grid/process_grid.h"
#include "parallel/layers/layers.h"
#include "parallel/layers/low_rank_adapter.h"
#include "parallel/parameters/parameter_store.h"
#include "parallel/parameters/trained_parameters.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/matmul.h"
#include "tests/goldens/golden_file_testing.h"

namespace trireme {
namespace {

constexpr int64_t kIn = 6;
constexpr int64_t kSide = 4;
constexpr int64_t kOut = 5;

// Columns [begin, end) of rows of `width`.
std::vector<double> Columns(const std::vector<double>& values, int64_t width,
                            int64_t begin, int64_t end) {
  std::vector<double> part;
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t column = static_cast<int64_t>(i) % width;
    if (column >= begin && column < end) part.push_back(values[i]);
  }
  return part;
}

class DoraGolden : public testing::Test {
 protected:
  using Values = std::vector<double>;

  Values Read(const std::string& name) const {
    return Doubles(file_.Golden(name));
  }
  // Of q, k and v, one after the other.
  Values ReadParts(const std::string& name) const {
    Values all;
    for (const char* part : {"q.", "k.", "v."}) {
      const Values values = Read(part + name);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }
  // Of q, k and v, side by side.
  Values ReadBeside(const std::string& name) const {
    const Values q = Read("q." + name), k = Read("k." + name),
                 v = Read("v." + name);
    Values all;
    for (size_t row = 0; row < q.size(); row += kOut) {
      for (const Values* part : {&q, &k, &v}) {
        all.insert(all.end(), part->begin() + row, part->begin() + row + kOut);
      }
    }
    return all;
  }

  void Fill(const std::string& name, const Values& values) {
    for (const auto& parameter : store_.parameters()) {
      if (parameter->name != name) continue;
      parameter->value.CopyFrom(
          Tensor::FromValues<double>(device_, parameter->global_shape, values));
      parameter->grad =
          Tensor::Zeros(device_, parameter->global_shape, DType::kFloat64);
      return;
    }
    FAIL() << name;
  }
  Values Gradient(const std::string& name) const {
    for (const auto& parameter : store_.parameters()) {
      if (parameter->name == name) return parameter->grad.ToVector<double>();
    }
    return {};
  }

  // A leaf of a golden input.
  ShardedVariable Input(const std::string& name, bool channels_over_tp) {
    ShardedVariable x{tape_.Leaf(file_.Golden("inputs." + name)), {}};
    if (channels_over_tp) x.states[Axis::kTensor] = AxisState::Shard(2);
    return x;
  }
  void Backward(const ShardedVariable& y, const Values& slope) {
    CHECK_OK(parallel_.status());
    const Variable outputs[] = {y.variable};
    tape_.Backward(
        outputs,
        {Tensor::FromValues<double>(device_, y.value().shape(), slope)},
        Tape::WeightGradients::kImmediate);
  }

  CpuDevice device_{int64_t{1} << 26};
  GoldenFile file_{"tests/goldens/dora.safetensors", device_};
  SingleWorld world_;
  const ProcessGrid grid_;
  Communicators communicators_{world_, grid_};
  ParallelContext parallel_{device_, grid_, communicators_};
  ParameterStore store_{device_,
                        DType::kFloat64,
                        /*seed=*/0,
                        ParameterStore::Allocate::kAll,
                        {.kind = TrainedParameters::Kind::kAdapters,
                         .layers = {"*"},
                         .rank = 2,
                         .alpha = 3,
                         .decompose = true}};
  Tape tape_{device_};
  ForwardContext context_{tape_, parallel_};
};

TEST_F(DoraGolden, OneLayer) {
  const ReplicatedLinear layer(store_, "layer", kIn, kOut);
  Fill("layer.weight", Read("plain.weight"));
  Fill("layer.bias", Read("plain.bias"));
  Fill("layer.lora_A", Read("plain.a"));
  Fill("layer.lora_B", Read("plain.b"));
  Fill("layer.lora_magnitude", Read("plain.magnitude"));
  const ShardedVariable x = Input("x", false);
  const ShardedVariable y = layer.Forward(context_, x);
  ExpectNear(Doubles(y.value()), Read("plain.y"), "y");
  Backward(y, Read("plain.slope"));
  ExpectNear(Doubles(tape_.TakeGradient(x.variable)), Read("plain.grad_x"),
             "gradient of x");
  ExpectNear(Gradient("layer.lora_A"), Read("plain.grad_a"), "of A");
  ExpectNear(Gradient("layer.lora_B"), Read("plain.grad_b"), "of B");
  ExpectNear(Gradient("layer.lora_magnitude"), Read("plain.grad_magnitude"),
             "of the magnitude");
}

TEST_F(DoraGolden, ThreeLayersInOne) {
  const ColumnParallelLinear layer(store_, grid_, "qkv", kIn, 3 * kOut,
                                   {.parts = 3});
  Fill("qkv.weight", ReadParts("weight"));
  Fill("qkv.bias", ReadParts("bias"));
  Fill("qkv.lora_A", ReadParts("a"));
  Fill("qkv.lora_B", ReadParts("b"));
  Fill("qkv.lora_magnitude", ReadParts("magnitude"));
  const ShardedVariable x = Input("x", false);
  const ShardedVariable y = layer.Forward(context_, x);
  ExpectNear(Doubles(y.value()), ReadBeside("y"), "y");
  Backward(y, ReadBeside("slope"));
  ExpectNear(Gradient("qkv.lora_A"), ReadParts("grad_a"), "gradient of A");
  ExpectNear(Gradient("qkv.lora_B"), ReadParts("grad_b"), "of B");
  ExpectNear(Gradient("qkv.lora_magnitude"), ReadParts("grad_magnitude"),
             "of the magnitudes");
}

TEST_F(DoraGolden, ASumOfTwoLayersIsOneOfBothInputs) {
  constexpr int64_t kBoth = kIn + kSide;
  const RowParallelLinear layer(store_, grid_, "sum", kIn, kOut);
  const RowParallelLinear beside(store_, grid_, "side", kSide, kOut,
                                 {.bias = false, .added_to = "sum"});
  const Values weight = Read("sum.weight"), a = Read("sum.a");
  Fill("sum.weight", Columns(weight, kBoth, 0, kIn));
  Fill("side.weight", Columns(weight, kBoth, kIn, kBoth));
  Fill("sum.lora_A", Columns(a, kBoth, 0, kIn));
  Fill("side.lora_A", Columns(a, kBoth, kIn, kBoth));
  Fill("sum.bias", Read("sum.bias"));
  Fill("sum.lora_B", Read("sum.b"));
  Fill("sum.lora_magnitude", Read("sum.magnitude"));
  const ShardedVariable x = Input("x", true), side = Input("side", true);
  const ShardedVariable y = layer.ForwardSum(context_, x, beside, side);
  ExpectNear(Doubles(y.value()), Read("sum.y"), "y");
  Backward(y, Read("sum.slope"));
  ExpectNear(Doubles(tape_.TakeGradient(x.variable)), Read("sum.grad_x"),
             "gradient of x");
  ExpectNear(Doubles(tape_.TakeGradient(side.variable)), Read("sum.grad_side"),
             "of the other input");
  const Values of_a = Read("sum.grad_a");
  ExpectNear(Gradient("sum.lora_A"), Columns(of_a, kBoth, 0, kIn), "of A");
  ExpectNear(Gradient("side.lora_A"), Columns(of_a, kBoth, kIn, kBoth),
             "of the other A");
  ExpectNear(Gradient("sum.lora_B"), Read("sum.grad_b"), "of B");
  ExpectNear(Gradient("sum.lora_magnitude"), Read("sum.grad_magnitude"),
             "of the magnitude");
}

// The layer is what it was before.
TEST_F(DoraGolden, MagnitudesStartAsNorms) {
  const ReplicatedLinear layer(store_, "layer", kIn, kOut);
  Fill("layer.weight", Read("plain.weight"));
  Fill("layer.bias", Read("plain.bias"));
  std::vector<Parameter> weights;
  for (const auto& parameter : store_.parameters()) {
    if (parameter->name == "layer.weight") weights.push_back(*parameter);
  }
  Fill("layer.lora_magnitude", InitialMagnitude(parallel_, weights));
  const Tensor x = file_.Golden("inputs.x");
  const Values y = Doubles(layer.Forward(context_, {Variable(x), {}}).value());
  const Tensor bias = file_.Golden("plain.bias");
  const Values expected = Doubles(
      MatMul(x, file_.Golden("plain.weight"), &bias, {.transpose_b = true}));
  ASSERT_EQ(y.size(), expected.size());
  for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], expected[i], 1e-13);
}

}  // namespace
}  // namespace trireme
