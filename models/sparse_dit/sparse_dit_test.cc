// A sparse transformer whose heads and tokens several ranks share predicts what
// one rank predicts, and gives every parameter the same gradient.

#include "models/sparse_dit/sparse_dit.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
#include "parallel/layers/functional.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

using Values = std::map<std::string, std::vector<double>>;

constexpr int64_t kBatch = 3;

SparseDitConfig Config() {
  SparseDitConfig config;
  config.hidden = 24;
  config.layers = 2;
  config.heads = 4;
  config.key_heads = 2;
  config.top_k = 2;
  config.tokens = 13;
  config.channels = 3;
  config.resolution = 16;
  config.condition.kind = CrossCondition::Kind::kFeatures;
  config.condition.feature_tokens = 4;
  config.condition.feature_width = 5;
  return config;
}

std::vector<double> Normal(const std::string& name, int64_t count) {
  const RandomStream random({.seed = std::hash<std::string>()(name)});
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(random.Normal(i) / 2);
  return values;
}

Tensor Whole(Device& device, const std::string& name, const Shape& shape) {
  return Tensor::FromValues<double>(device, shape,
                                    Normal(name, shape.num_elements()));
}

// Calls f(element of this rank's part, element of the whole).
template <typename F>
void ForElements(const Parameter& parameter, const F& f) {
  const Shape local = LocalShape(parameter.global_shape, parameter.shards);
  for (int64_t i = 0; i < local.num_elements(); ++i) {
    int64_t rest = i, whole = 0, stride = 1;
    for (int dim = local.rank() - 1; dim >= 0; --dim) {
      int64_t at = rest % local.dim(dim);
      rest /= local.dim(dim);
      for (const ShardedDim& shard : parameter.shards) {
        if (shard.dim == dim) at += shard.index * local.dim(dim);
      }
      whole += at * stride;
      stride *= parameter.global_shape.dim(dim);
    }
    f(i, whole);
  }
}

struct Grid {
  int tp = 1;
  int cp = 1;
  bool sequence_parallel = false;
};

// One rank's part of a step: fills in what it has of gradients.
void Train(CommunicatorFactory& world, int rank, const Grid& grid,
           Values& gradients, std::mutex& mutex) {
  const SparseDitConfig config = Config();
  CpuDevice device(int64_t{1} << 28);
  const ProcessGrid process_grid =
      *ProcessGrid::Create({.tp = grid.tp, .cp = grid.cp}, {}, rank);
  Communicators communicators(world, process_grid);
  ParallelContext parallel(device, process_grid, communicators,
                           {.sequence_parallel = grid.sequence_parallel});
  ParameterStore store(device, DType::kFloat64, /*seed=*/0);
  const SparseDitPart part(store, process_grid, config,
                           {.blocks = {0, config.layers},
                            .sequence_parallel = grid.sequence_parallel});
  for (const auto& parameter : store.parameters()) {
    const std::vector<double> whole =
        Normal(parameter->name, parameter->global_shape.num_elements());
    double* values = parameter->value.data<double>();
    ForElements(*parameter,
                [&](int64_t i, int64_t at) { values[i] = whole[at]; });
    parameter->grad =
        Tensor::Zeros(device, parameter->value.shape(), DType::kFloat64);
  }
  // In eight large blocks; one sample without any.
  std::vector<int32_t> voxels;
  for (int64_t i = 0; i < kBatch * config.tokens; ++i) {
    for (const int64_t factor : {5, 3, 11}) {
      voxels.push_back(static_cast<int32_t>(i * factor % 16));
    }
  }
  const std::vector<int32_t> counts = {13, 0, 6};
  const Tensor places =
      Tensor::FromValues<int32_t>(device, {kBatch, config.tokens, 3}, voxels);
  Tape tape(device);
  ForwardContext context{tape, parallel};
  const Shape samples = {kBatch, config.tokens, config.channels};
  const SparseDitConstants constants = part.Constants(
      places, Tensor::FromValues<int32_t>(device, {kBatch}, counts), Tensor());
  const ShardedVariable prediction = part.Predict(
      context,
      {.tokens = Whole(device, "tokens", samples),
       .sigmas = Tensor::FromValues<double>(device, {kBatch},
                                            std::vector<double>{0.1, 0.5, 0.9}),
       .condition = {.features = Whole(device, "features",
                                       {kBatch, config.condition.tokens(),
                                        config.condition.feature_width})}},
      constants);
  const Tensor target =
      LocalTokens(Whole(device, "target", samples), part.sample_tokens());
  AddLoss(context, SquaredErrorLoss(context, prediction, target), 1, "loss");
  CHECK_OK(parallel.status());
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);
  for (const auto& parameter : store.parameters()) {
    for (const Axis axis : {Axis::kTensor, Axis::kContext}) {
      if (parameter->gradient_sum_axes.contains(axis)) {
        communicators.ForAxis(axis)
            .AllReduce(parameter->grad, ReduceOp::kSum, parameter->name)
            .Wait();
      }
    }
    const std::lock_guard lock(mutex);
    std::vector<double>& whole = gradients[parameter->name];
    whole.resize(parameter->global_shape.num_elements());
    const double* values = parameter->grad.data<double>();
    ForElements(*parameter,
                [&](int64_t i, int64_t at) { whole[at] = values[i]; });
  }
}

Values Gradients(const Grid& grid) {
  Values gradients;
  std::mutex mutex;
  RunThreadRanks(grid.tp * grid.cp, [&](CommunicatorFactory& world, int rank) {
    Train(world, rank, grid, gradients, mutex);
  });
  return gradients;
}

TEST(SparseDitTest, GradientsDoNotDependOnTheGrid) {
  const Values expected = Gradients({});
  for (const Grid& grid : {Grid{.tp = 2}, Grid{.cp = 2}, Grid{.cp = 5},
                           Grid{.tp = 2, .cp = 2, .sequence_parallel = true}}) {
    const Values got = Gradients(grid);
    ASSERT_EQ(got.size(), expected.size());
    for (const auto& [name, gradient] : expected) {
      double largest = 0;
      for (const double value : gradient) {
        largest = std::max(largest, std::abs(value));
      }
      EXPECT_GT(largest, 0) << name;
      for (size_t i = 0; i < gradient.size(); ++i) {
        ASSERT_NEAR(got.at(name)[i], gradient[i], 1e-10 * largest)
            << name << " element " << i << " tp " << grid.tp << " cp "
            << grid.cp;
      }
    }
  }
}

}  // namespace
}  // namespace trireme
