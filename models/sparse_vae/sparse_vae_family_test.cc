// The autoencoder of sparse voxels as a family: what its units read, and the
// same losses wherever the model is cut.

#include "models/sparse_vae/sparse_vae_family.h"

#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/data/field_readers.h"
#include "models/objective/reconstruction.h"
#include "parallel/grid/communicators.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/voxels_testing.h"

namespace trireme {
namespace {

constexpr int32_t kSide = 6;
constexpr int64_t kMost = 120;
constexpr int64_t kBatch = 2;

SparseVaeConfig Config() {
  SparseVae vae;
  vae.set_preset(SparseVae::TINY);
  vae.set_hidden(16);
  vae.set_heads(2);
  DataFormat data;
  data.voxel_resolution = kSide;
  data.voxel_limit = 2;
  data.tokens = kMost;
  data.token_channels = 1;
  const auto config = ResolveSparseVae(vae, data);
  CHECK_OK(config.status());
  return *config;
}

class SparseVaeFamilyTest : public testing::Test {
 protected:
  // As data sets read it, of two samples of unlike sizes.
  Batch ReadBatch() {
    std::vector<Sample> samples(kBatch);
    for (int64_t i = 0; i < kBatch; ++i) {
      for (const Cell& cell : CellsWhere(kSide, [i](Cell c) {
             return i == 0 ? c[2] < 2 && c[0] > 0 : (c[0] + c[1]) % 4 == 0;
           })) {
        samples[i].voxels.insert(samples[i].voxels.end(), cell.begin(),
                                 cell.end());
        samples[i].token_set.push_back(static_cast<float>(cell[0]) / 3 - 1);
        samples[i].voxel_kinds.push_back(cell[1] % 3);
      }
    }
    Batch batch;
    batch.step = 1;
    batch.samples = {0, 1};
    for (const FieldSpec& spec : AllFields(*family_)) {
      FieldValues values = ZeroValues(spec, kBatch);
      for (int64_t i = 0; i < kBatch; ++i) {
        CHECK_OK(ReaderOf(spec).read(samples[i], spec, i, values));
      }
      batch.fields[spec.name].values = std::visit(
          [&]<typename T>(const std::vector<T>& elements) {
            return Tensor::FromValues<T>(device_, spec.ShapeOf(kBatch),
                                         elements);
          },
          values);
    }
    return batch;
  }

  // The losses of a model that is cut before each of those blocks.
  std::map<std::string, double> LossesCutAt(const std::vector<int64_t>& cuts) {
    const Batch batch = ReadBatch();
    const ReconstructionObjective objective(kBatch);
    StepInputs inputs;
    inputs.Set(batch, objective);
    std::vector<ShardedVariable> state;
    std::map<std::string, double> losses;
    int64_t first = 0;
    for (size_t i = 0; i <= cuts.size(); ++i) {
      const int64_t end = i < cuts.size() ? cuts[i] : family_->Shape().layers;
      ParameterStore store(device_, DType::kFloat64, /*seed=*/3);
      const auto chunk =
          family_->Build({.blocks = {first, end}, .microbatch_size = kBatch},
                         store, grid_, inputs);
      Tape tape(device_);
      ParallelContext parallel(device_, grid_, communicators_);
      ForwardContext context{tape, parallel};
      for (int unit = 0; unit < chunk->num_units(); ++unit) {
        const std::vector<BoundarySpec> boundary = chunk->Boundary(unit);
        EXPECT_EQ(boundary.size(), state.size());
        for (size_t s = 0; s < state.size(); ++s) {
          EXPECT_EQ(state[s].value().shape(), boundary[s].shape);
          EXPECT_EQ(state[s].states, boundary[s].states);
        }
        state = chunk->RunUnit(context, /*microbatch=*/0, unit, state);
      }
      // As another stage gets it.
      for (ShardedVariable& tensor : state) {
        tensor.variable = Variable(tensor.value());
      }
      for (const Tape::Loss& loss : tape.TakeLosses()) {
        losses[loss.name] += loss.weight * loss.value.data<double>()[0];
      }
      CHECK_OK(parallel.status());
      first = end;
    }
    EXPECT_TRUE(state.empty());
    return losses;
  }

  CpuDevice device_{int64_t{1} << 28};
  SingleWorld world_;
  ProcessGrid grid_;
  Communicators communicators_{world_, grid_};
  std::shared_ptr<const ModelFamily> family_ = MakeSparseVaeFamily(Config());
};

TEST_F(SparseVaeFamilyTest, StagesGiveTheLossesOfTheWholeModel) {
  const std::map<std::string, double> whole = LossesCutAt({});
  ASSERT_EQ(whole.size(), 4);
  for (const char* name : {"loss", "edges", "beside"}) {
    EXPECT_GT(whole.at(name), 0) << name;
  }
  EXPECT_GT(whole.at("divergence"), 0);
  EXPECT_EQ(LossesCutAt({1, 2, 3, 4, 5}), whole);
  EXPECT_EQ(LossesCutAt({3}), whole);
}

TEST_F(SparseVaeFamilyTest, OnlyEndsReadFeatures) {
  const auto reads = [&](BlockRange blocks) {
    std::vector<std::string> names;
    for (const FieldSpec& spec : family_->Fields({.blocks = blocks})) {
      names.push_back(spec.name);
    }
    return names;
  };
  EXPECT_EQ(reads({0, 2}),
            (std::vector<std::string>{"voxels", "voxel_count", "token_set"}));
  EXPECT_EQ(reads({2, 4}), (std::vector<std::string>{"voxels", "voxel_count"}));
  EXPECT_EQ(reads({4, 6}),
            (std::vector<std::string>{"voxels", "voxel_count", "token_set",
                                      "voxel_kinds"}));
  EXPECT_TRUE(family_->reconstructs());
  // Blocks of each level have costs of their own.
  EXPECT_EQ(family_->Shape().block_runs.size(), 6);
}

// Ranks of cp would all compute the same, and a plan would pay for them.
TEST_F(SparseVaeFamilyTest, PlansWithContextParallelismAreRefused) {
  EXPECT_FALSE(family_->Shape().context_parallel);
}

}  // namespace
}  // namespace trireme
