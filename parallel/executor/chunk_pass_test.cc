// What a pass keeps between forward and backward, and what it asks of whoever
// stores the units' parameters.

#include "parallel/executor/chunk_pass.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "parallel/executor/mlp_model_testing.h"
#include "parallel/grid/communicators.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

class ChunkPassTest : public testing::Test {
 protected:
  void AllocateGradients(ParameterStore& store) {
    for (const auto& parameter : store.parameters()) {
      if (!parameter->trainable) continue;
      parameter->grad =
          Tensor::Zeros(device_, parameter->value.shape(), DType::kFloat64);
    }
  }

  int64_t Bytes() const { return device_.Statistics().current_bytes; }

  // Of the state's tensors.
  int64_t BoundaryBytes(const Chunk& chunk, int unit) const {
    int64_t bytes = 0;
    for (const BoundarySpec& spec : chunk.Boundary(unit)) {
      bytes += spec.shape.num_elements() * DTypeSize(spec.dtype);
    }
    return bytes;
  }

  CpuDevice device_{int64_t{1} << 28};
  SingleWorld world_;
  ProcessGrid grid_;
  Communicators communicators_{world_, grid_};
  ParallelContext parallel_{device_, grid_, communicators_};
  AllResident all_resident_;
};

// What went to the next stage is not kept here until its backward comes: with
// recomputation a pass holds the inputs of its units and nothing else.
TEST_F(ChunkPassTest, OutputsAreNotKeptUntilBackward) {
  // So wide that a tensor is more than the device's smallest block.
  const MlpModel model{
      .blocks = 4, .width = 64, .tokens = 64, .recompute = true};
  ParameterStore store(device_, DType::kFloat64, 1);
  MlpChunk chunk(store, grid_, model, 0, 1, 0, /*microbatch_size=*/4);
  AllocateGradients(store);
  const int64_t before = Bytes();
  ChunkPass pass(parallel_, chunk, all_resident_, /*microbatch=*/0);
  std::vector<Tensor> outputs = pass.Forward({});
  CHECK_OK(parallel_.status());
  // y and x, which the block hands on, and of which it keeps nothing: it reads
  // the batch.
  EXPECT_GE(Bytes() - before, BoundaryBytes(chunk, 1));
  outputs.clear();
  EXPECT_EQ(Bytes(), before);
  // Gradients flow all the same.
  std::vector<Tensor> gradients = EmptyBoundary(device_, chunk.Boundary(1));
  for (const Tensor& gradient : gradients) gradient.FillZero();
  EXPECT_TRUE(
      pass.Backward(std::move(gradients), Tape::WeightGradients::kImmediate)
          .empty());
  EXPECT_EQ(Bytes(), before);
}

// Nothing flows back into a stage's output where the next stage has no use for
// it; what it was made of still counts as done.
TEST_F(ChunkPassTest, OutputsWithoutAGradientAreLegal) {
  const MlpModel model{.blocks = 4, .auxiliary_block = 0};
  ParameterStore store(device_, DType::kFloat64, 1);
  MlpChunk chunk(store, grid_, model, 0, 1, 0, /*microbatch_size=*/2);
  AllocateGradients(store);
  ChunkPass pass(parallel_, chunk, all_resident_, /*microbatch=*/0);
  std::map<std::string, int> ready;
  pass.queue().set_ready(
      [&ready](Parameter& parameter) { ++ready[parameter.name]; });
  const size_t outputs = pass.Forward({}).size();
  pass.Backward(std::vector<Tensor>(outputs),
                Tape::WeightGradients::kImmediate);
  EXPECT_EQ(ready, (std::map<std::string, int>{{"blocks.0.in.bias", 1},
                                               {"blocks.0.in.weight", 1},
                                               {"blocks.0.out.bias", 1},
                                               {"blocks.0.out.weight", 1}}));
  // The auxiliary loss reaches the first product, nothing reaches the second.
  for (const auto& parameter : store.parameters()) {
    double largest = 0;
    for (const double value : parameter->grad.ToVector<double>()) {
      largest = std::max(largest, std::abs(value));
    }
    EXPECT_EQ(largest > 0, parameter->name.find(".in.") != std::string::npos)
        << parameter->name;
  }
}

// Keeps the values elsewhere and gives each unit its own only while it runs.
class LendingStore final : public UnitStore {
 public:
  explicit LendingStore(ParameterStore& store) : store_(store) {
    for (const auto& parameter : store.parameters()) {
      kept_.push_back(std::exchange(parameter->value, Tensor()));
    }
  }
  void Fetch(int unit) override {
    log.push_back(fmt::format("fetch {}", unit));
  }
  void Bring(int unit) override {
    log.push_back(fmt::format("bring {}", unit));
    for (size_t i = 0; i < kept_.size(); ++i) {
      Parameter& parameter = *store_.parameters()[i];
      if (parameter.unit == unit) parameter.value = kept_[i].Clone();
    }
  }
  void Drop(int unit) override {
    log.push_back(fmt::format("drop {}", unit));
    for (const auto& parameter : store_.parameters()) {
      if (parameter->unit == unit) parameter->value = Tensor();
    }
  }
  void Publish(int) override {}

  std::vector<std::string> log;

 private:
  ParameterStore& store_;
  std::vector<Tensor> kept_;
};

TEST_F(ChunkPassTest, AStoreLendsEachUnitWhileItRuns) {
  for (const bool recompute : {false, true}) {
    SCOPED_TRACE(recompute);
    const MlpModel model{.blocks = 2, .recompute = recompute};
    const auto gradients = [&](bool lends, std::vector<std::string>* log) {
      ParameterStore store(device_, DType::kFloat64, 1);
      MlpChunk chunk(store, grid_, model, 0, 2, 0, /*microbatch_size=*/2);
      AllocateGradients(store);
      std::unique_ptr<LendingStore> lending;
      if (lends) lending = std::make_unique<LendingStore>(store);
      UnitStore& units =
          lends ? static_cast<UnitStore&>(*lending) : all_resident_;
      ChunkPass pass(parallel_, chunk, units, /*microbatch=*/0);
      // Backward comes next, and begins with the last unit.
      pass.Forward({}, {&units, 1});
      pass.Backward({}, Tape::WeightGradients::kImmediate, {&units, 0});
      if (lends) *log = lending->log;
      std::vector<std::vector<double>> all;
      for (const auto& parameter : store.parameters()) {
        all.push_back(parameter->grad.ToVector<double>());
      }
      return all;
    };
    std::vector<std::string> log;
    EXPECT_EQ(gradients(true, &log), gradients(false, nullptr));
    EXPECT_EQ(log, (std::vector<std::string>{
                       "bring 0", "fetch 1", "drop 0", "bring 1", "fetch 1",
                       "bring 1", "fetch 0", "drop 1", "bring 0", "fetch 0"}));
  }
}

TEST_F(ChunkPassTest, RefusesAUnitThatBreaksItsBoundary) {
  class Liar final : public Chunk {
   public:
    explicit Liar(Device& device) : device_(device) {}
    int num_units() const override { return 1; }
    std::vector<BoundarySpec> Boundary(int unit) const override {
      if (unit == 0) return {};
      return {{{2, 3}, DType::kFloat64, {}}};
    }
    bool Recomputes(int) const override { return false; }
    std::vector<ShardedVariable> RunUnit(
        ForwardContext&, int64_t, int, std::vector<ShardedVariable>) override {
      AxisStates states;
      states[Axis::kTensor] = AxisState::Replicate();
      return {
          {Variable(Tensor::Zeros(device_, {2, 3}, DType::kFloat64)), states}};
    }

   private:
    Device& device_;
  };
  Liar liar(device_);
  ChunkPass pass(parallel_, liar, all_resident_, /*microbatch=*/0);
  pass.Forward({});
  EXPECT_NE(std::string(parallel_.status().message()).find("tp Replicate"),
            std::string::npos)
      << parallel_.status();
}

}  // namespace
}  // namespace trireme
