// An autoencoder of sparse voxels gives one rank's losses and gradients where
// its samples, its heads and its latents lie on several.

#include "models/sparse_vae/sparse_vae.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/grid/communicators.h"
#include "parallel/layers/autoencoder_functional.h"
#include "runtime/comm/threads/thread_world.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/voxels_testing.h"

namespace trireme {
namespace {

// Cells of half as many a side lie in several windows, if these are shifted.
constexpr int32_t kSide = 11;
constexpr int64_t kMost = 150;
constexpr int64_t kSamples = 2;

SparseVaeConfig Config() {
  SparseVaeConfig config;
  config.hidden = 16;
  config.levels = 1;
  config.channels = 3;
  config.encoder_layers = 2;
  config.decoder_layers = 1;
  config.heads = 4;
  config.divergence = 0.25;
  config.resolution = kSide;
  config.voxel_channels = 2;
  config.limit = 2;
  // What four ranks do not share evenly.
  config.tokens = {kMost, 126};
  return config;
}

std::vector<Cell> CellsOf(int64_t sample) {
  return CellsWhere(kSide, [sample](Cell c) {
    return sample == 0 ? c[2] % 4 == 1 && (c[0] + 2 * c[1] + c[2]) % 3 == 0
                       : c[0] + c[1] + c[2] < 6;
  });
}

struct Record {
  double loss = 0;
  std::map<std::string, std::vector<double>> gradients;  // logical
};

// What one rank adds to the record.
void Run(CommunicatorFactory& factory, const GridSizes& sizes, int rank,
         bool sequence_parallel, std::mutex& mutex, Record& record) {
  CpuDevice device(int64_t{1} << 28);
  const ProcessGrid grid = *ProcessGrid::Create(sizes, {}, rank);
  Communicators communicators(factory, grid);
  ParallelContext parallel(device, grid, communicators,
                           {.sequence_parallel = sequence_parallel});
  ParameterStore store(device, DType::kFloat64, /*seed=*/3);
  const SparseVaeConfig config = Config();
  const SparseVaePart part(
      store, grid, config,
      {.blocks = {0, config.layers()}, .sequence_parallel = sequence_parallel});
  for (const auto& parameter : store.parameters()) {
    parameter->grad =
        Tensor::Zeros(device, parameter->value.shape(), DType::kFloat64);
  }
  std::vector<std::vector<Cell>> cells;
  std::vector<int32_t> counts, kinds;
  std::vector<double> features;
  std::vector<uint64_t> samples;
  for (int64_t sample = 0; sample < kSamples; ++sample) {
    if (sample % sizes.dp != grid.coordinate(Axis::kData)) continue;
    samples.push_back(static_cast<uint64_t>(sample));
    cells.push_back(CellsOf(sample));
    counts.push_back(static_cast<int32_t>(cells.back().size()));
    const RandomStream random({.seed = 5, .sample = samples.back()});
    for (int32_t i = 0; i < counts.back(); ++i) kinds.push_back(i * i % 3);
    kinds.resize(kMost * counts.size(), -1);
    for (int64_t i = 0; i < kMost * config.voxel_channels; ++i) {
      features.push_back(random.Normal(i));
    }
  }
  const auto b = static_cast<int64_t>(samples.size());
  const VoxelLevel finest =
      part.Finest(VoxelsOf(device, kMost, cells),
                  Tensor::FromValues<int32_t>(device, {b}, counts));
  const Tensor seen =
      Tensor::FromValues<double>(device, {b, kMost, 2}, features);

  Tape tape(device);
  ForwardContext context{tape, parallel};
  ShardedVariable x = part.Embed(context, seen);
  for (int block = 0; block < part.num_blocks(); ++block) {
    const BoundarySpec boundary = part.Boundary(block, b);
    EXPECT_EQ(x.value().shape(), boundary.shape) << block;
    EXPECT_EQ(x.states, boundary.states) << block;
    if (block == config.first_decoder()) {
      const ShardedVariable moments = part.Moments(context, x);
      part.AddDivergence(context, moments,
                         part.Level(finest, config.levels).counts, kSamples);
      x = part.EmbedLatents(
          context, SampleGaussian(context, moments, part.Noise(samples, 1)));
    }
    x = part.RunBlock(context, block, finest, x);
  }
  part.AddDistances(context, part.Values(context, x), seen,
                    Tensor::FromValues<int32_t>(device, {b, kMost}, kinds),
                    kSamples);
  CHECK_OK(parallel.status());
  const bool first_of_tensor = grid.coordinate(Axis::kTensor) == 0;
  const std::vector<Tape::Loss> losses = tape.TakeLosses();
  tape.Backward({}, {}, Tape::WeightGradients::kImmediate);

  const std::lock_guard lock(mutex);
  for (const Tape::Loss& loss : losses) {
    if (first_of_tensor) {
      record.loss += loss.weight * loss.value.data<double>()[0];
    }
  }
  for (const auto& parameter : store.parameters()) {
    std::vector<double>& sum = record.gradients[parameter->name];
    sum.resize(parameter->global_shape.num_elements());
    // A gradient that is the same on all ranks of tp counts once.
    if (parameter->shards.empty() && !first_of_tensor &&
        !parameter->gradient_sum_axes.contains(Axis::kTensor)) {
      continue;
    }
    const std::vector<double> own = parameter->grad.ToVector<double>();
    ForEachLocalRun(parameter->global_shape, parameter->shards,
                    [&](int64_t local, int64_t global, int64_t count) {
                      for (int64_t i = 0; i < count; ++i) {
                        sum[global + i] += own[local + i];
                      }
                    });
  }
}

Record RecordOf(const GridSizes& sizes, bool sequence_parallel = false) {
  Record record;
  std::mutex mutex;
  RunThreadRanks(sizes.tp * sizes.dp,
                 [&](CommunicatorFactory& factory, int rank) {
                   Run(factory, sizes, rank, sequence_parallel, mutex, record);
                 });
  return record;
}

TEST(SparseVaeTest, GradientsOfSeveralRanksAreOnes) {
  const Record expected = RecordOf({});
  ASSERT_GT(expected.loss, 0);
  double largest = 0;
  for (const auto& [name, gradient] : expected.gradients) {
    for (const double value : gradient) {
      largest = std::max(largest, std::abs(value));
    }
  }
  struct Case {
    GridSizes sizes;
    bool sequence_parallel = false;
  };
  for (const Case& on :
       {Case{{.dp = 2}}, Case{{.tp = 2}}, Case{{.tp = 4}, true},
        Case{{.tp = 2, .dp = 2}, true}}) {
    SCOPED_TRACE(testing::Message()
                 << "tp " << on.sizes.tp << ", dp " << on.sizes.dp);
    const Record got = RecordOf(on.sizes, on.sequence_parallel);
    EXPECT_NEAR(got.loss, expected.loss, 1e-12 * expected.loss);
    ASSERT_EQ(got.gradients.size(), expected.gradients.size());
    for (const auto& [name, gradient] : expected.gradients) {
      const std::vector<double>& found = got.gradients.at(name);
      ASSERT_EQ(found.size(), gradient.size()) << name;
      for (size_t i = 0; i < gradient.size(); ++i) {
        ASSERT_NEAR(found[i], gradient[i], 1e-11 * largest)
            << name << ", element " << i;
      }
    }
  }
}

}  // namespace
}  // namespace trireme
