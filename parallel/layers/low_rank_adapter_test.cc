// Adapters that decompose weights compute, and have the gradients, of one rank
// wherever tp cuts the layers: their output channels, their input channels,
// whose rows' norms are sums over tp then, and sums of two layers.

#include "parallel/layers/low_rank_adapter.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
#include "parallel/grid/context.h"
#include "parallel/grid/process_grid.h"
#include "parallel/layers/layers.h"
#include "parallel/parameters/parameter_store.h"
#include "parallel/parameters/trained_parameters.h"
#include "runtime/autograd/functions.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

constexpr int64_t kBatch = 2;
constexpr int64_t kTokens = 4;
constexpr int64_t kWidth = 128;  // two blocks of NF4 a row
constexpr uint64_t kSeed = 5;

using Logical = std::map<std::string, std::vector<double>>;

struct Found {
  std::vector<double> y, dx;
  Logical gradients;
  Logical magnitudes;  // that the layers start with
};

Tensor Normal(Device& device, const Shape& shape, uint64_t seed) {
  std::vector<double> values(shape.num_elements());
  RandomStream({.seed = seed}).FillNormal(0, std::span<double>(values));
  return Tensor::FromValues<double>(device, shape, values);
}

// This rank's tokens of [b, s, h] under sequence parallelism, or all.
Tensor OwnTokens(const Tensor& whole, bool sequence, int tp, int rank) {
  if (!sequence) return whole;
  const std::vector<double> values = whole.ToVector<double>();
  const int64_t tokens = kTokens / tp, width = whole.dim(-1);
  std::vector<double> own;
  for (int64_t b = 0; b < kBatch; ++b) {
    const auto begin = values.begin() + (b * kTokens + rank * tokens) * width;
    own.insert(own.end(), begin, begin + tokens * width);
  }
  return Tensor::FromValues<double>(whole.device(), {kBatch, tokens, width},
                                    own);
}

// Puts a rank's tokens into [b, s, h].
void Place(const std::vector<double>& own, bool sequence, int tp, int rank,
           int64_t width, std::vector<double>& whole) {
  whole.resize(kBatch * kTokens * width);
  const int64_t tokens = sequence ? kTokens / tp : kTokens;
  for (int64_t b = 0; b < kBatch; ++b) {
    for (int64_t i = 0; i < tokens * width; ++i) {
      whole[(b * kTokens + (sequence ? rank * tokens : 0)) * width + i] =
          own[b * tokens * width + i];
    }
  }
}

// Adds a rank's part of a parameter's tensor to the logical one, or, where all
// ranks have the same, writes it.
void Merge(const Parameter& parameter, const std::vector<double>& own,
           bool is_sum, Logical& all) {
  std::vector<double>& whole = all[parameter.name];
  whole.resize(parameter.global_shape.num_elements());
  ForEachLocalRun(parameter.global_shape, parameter.shards,
                  [&](int64_t local, int64_t global, int64_t count) {
                    for (int64_t i = 0; i < count; ++i) {
                      double& to = whole[global + i];
                      to = own[local + i] + (is_sum ? to : 0);
                    }
                  });
}

// q∘k + v, each of whose channels the ranks of tp have a slice of.
ShardedVariable Mix(ForwardContext& context, const ShardedVariable& qkv) {
  Tape& tape = context.tape;
  const int64_t tokens = qkv.value().dim(1), columns = qkv.value().dim(2) / 3;
  const std::vector<Variable> parts = SplitColumns(
      tape, Reshape(tape, qkv.variable, {kBatch * tokens, 3 * columns}), 3);
  const Variable mixed =
      Add(tape, Multiply(tape, parts[0], parts[1]), parts[2]);
  return {Reshape(tape, mixed, {kBatch, tokens, columns}), qkv.states};
}

// q, k and v, then a sum of two layers, each with an adapter.
Found Differentiate(int tp, bool sequence, WeightFormat frozen) {
  Found found;
  std::mutex mutex;
  RunThreadRanks(tp, [&](CommunicatorFactory& factory, int rank) {
    CpuDevice device(1 << 26);
    const ProcessGrid grid = *ProcessGrid::Create({.tp = tp}, {}, rank);
    Communicators communicators(factory, grid);
    ParallelContext parallel(device, grid, communicators,
                             {.sequence_parallel = sequence});
    ParameterStore store(device, DType::kFloat64, kSeed,
                         ParameterStore::Allocate::kAll,
                         {.kind = TrainedParameters::Kind::kAdapters,
                          .layers = {"*"},
                          .rank = 2,
                          .alpha = 3,
                          .decompose = true,
                          .frozen = frozen});
    const ColumnParallelLinear qkv(store, grid, "qkv", kWidth, 3 * kWidth,
                                   {.parts = 3});
    const ColumnParallelLinear side_in(store, grid, "side_in", kWidth, kWidth);
    const RowParallelLinear out(store, grid, "out", kWidth, kWidth);
    const RowParallelLinear side(store, grid, "side", kWidth, kWidth,
                                 {.bias = false, .added_to = "out"});
    std::map<std::string, std::vector<Parameter>> weights;
    for (const auto& parameter : store.parameters()) {
      const std::string& name = parameter->name;
      if (name == "side.weight") {
        weights["out"].push_back(*parameter);
      } else if (name.ends_with(".weight")) {
        weights[name.substr(0, name.rfind('.'))].push_back(*parameter);
      }
      if (!parameter->trainable) continue;
      // B, too, so that nothing is zero.
      parameter->initializer = {.kind = Initializer::Kind::kNormal,
                                .stddev = 0.5};
      InitializeParameter(kSeed, *parameter);
      parameter->grad = Tensor::Zeros(
          device, LocalShape(parameter->global_shape, parameter->shards),
          DType::kFloat64);
    }
    std::map<std::string, std::vector<double>> norms;
    for (const auto& [layer, of_layer] : weights) {
      norms[layer + kMagnitude] = InitialMagnitude(parallel, of_layer);
    }

    Tape tape(device);
    ForwardContext context{tape, parallel};
    const Tensor whole_x = Normal(device, {kBatch, kTokens, kWidth}, 1);
    ShardedVariable x{tape.Leaf(OwnTokens(whole_x, sequence, tp, rank)), {}};
    if (sequence) x.states[Axis::kTensor] = AxisState::Shard(1);
    const ShardedVariable y =
        out.ForwardSum(context, Mix(context, qkv.Forward(context, x)), side,
                       side_in.Forward(context, x));
    CHECK_OK(parallel.status());
    const Variable outputs[] = {y.variable};
    const Tensor slope = Normal(device, {kBatch, kTokens, kWidth}, 2);
    tape.Backward(outputs, {OwnTokens(slope, sequence, tp, rank)},
                  Tape::WeightGradients::kImmediate);

    const std::vector<double> own_y = y.value().ToVector<double>();
    const std::vector<double> own_dx =
        tape.TakeGradient(x.variable).ToVector<double>();
    const std::lock_guard lock(mutex);
    Place(own_y, sequence, tp, rank, kWidth, found.y);
    Place(own_dx, sequence, tp, rank, kWidth, found.dx);
    for (const auto& parameter : store.parameters()) {
      if (!parameter->trainable) continue;
      Merge(*parameter, parameter->grad.ToVector<double>(),
            parameter->gradient_sum_axes.contains(Axis::kTensor),
            found.gradients);
      const auto norm = norms.find(parameter->name);
      if (norm == norms.end()) continue;
      Merge(*parameter, norm->second, /*is_sum=*/false, found.magnitudes);
    }
  });
  return found;
}

void ExpectNear(const std::vector<double>& found,
                const std::vector<double>& expected, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double largest = 0;
  for (const double value : expected) {
    largest = std::max(largest, std::abs(value));
  }
  EXPECT_GT(largest, 0) << what;
  for (size_t i = 0; i < found.size(); ++i) {
    ASSERT_NEAR(found[i], expected[i], 1e-11 * largest) << what << ", " << i;
  }
}

class DecomposingAdapterTest : public testing::TestWithParam<WeightFormat> {};

TEST_P(DecomposingAdapterTest, TensorParallelRanksEqualOne) {
  const Found one = Differentiate(1, /*sequence=*/false, GetParam());
  // Of A, B and magnitudes; the sum has two As.
  EXPECT_EQ(one.gradients.size(), 3 * 3 + 1u);
  EXPECT_EQ(one.magnitudes.size(), 3u);
  for (const bool sequence : {false, true}) {
    SCOPED_TRACE(sequence ? "tokens sharded" : "tokens whole");
    const Found two = Differentiate(2, sequence, GetParam());
    ExpectNear(two.y, one.y, "y");
    ExpectNear(two.dx, one.dx, "gradient of x");
    for (const auto& [name, gradient] : one.gradients) {
      ExpectNear(two.gradients.at(name), gradient, "gradient of " + name);
    }
    for (const auto& [name, norms] : one.magnitudes) {
      ExpectNear(two.magnitudes.at(name), norms, "norms of " + name);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, DecomposingAdapterTest,
                         testing::Values(WeightFormat::kFull,
                                         WeightFormat::kFloat8,
                                         WeightFormat::kNormalFloat4));

}  // namespace
}  // namespace trireme
