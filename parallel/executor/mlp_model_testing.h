// A small model of residual MLP blocks that is no DiT, for tests of what runs
// chunks: one unit is one block, the first half of the blocks hands what it was
// given to the second (skip connections as in a U-Net, so that a boundary
// carries many tensors), and any block may add an auxiliary loss.

#ifndef TRIREME_PARALLEL_EXECUTOR_MLP_MODEL_TESTING_H_
#define TRIREME_PARALLEL_EXECUTOR_MLP_MODEL_TESTING_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "parallel/executor/chunk.h"
#include "parallel/grid/transitions.h"
#include "parallel/layers/functional.h"
#include "parallel/layers/layers.h"
#include "parallel/parameters/parameter_store.h"
#include "runtime/autograd/tensor_functions.h"
#include "runtime/core/philox.h"
#include "runtime/ops/pointwise.h"

namespace trireme {

struct MlpModel {
  int blocks = 4;
  int64_t width = 8;
  int64_t tokens = 3;
  // The block that adds Σ hidden² to the objective; −1: none.
  int auxiliary_block = -1;
  double auxiliary_weight = 0.01;
  bool recompute = false;
  // Blocks before this one do not train.
  int first_trained_block = 0;
};

// Blocks [first, end) on one rank.
class MlpChunk final : public Chunk {
 public:
  // Sample i of the step is the same on every grid: this rank's are
  // [first_sample, ...), `microbatch_size` to a microbatch.
  MlpChunk(ParameterStore& store, const ProcessGrid& grid,
           const MlpModel& model, int first, int end, int64_t first_sample,
           int64_t microbatch_size)
      : device_(store.device()),
        dtype_(store.dtype()),
        model_(model),
        first_(first),
        end_(end),
        first_sample_(first_sample),
        microbatch_size_(microbatch_size) {
    for (int i = first; i < end; ++i) {
      store.BeginUnit();
      const std::string name = fmt::format("blocks.{}", i);
      blocks_.push_back(std::make_unique<Block>(
          Block{ColumnParallelLinear(store, grid, name + ".in", model.width,
                                     2 * model.width),
                RowParallelLinear(store, grid, name + ".out", 2 * model.width,
                                  model.width)}));
    }
    for (const auto& parameter : store.parameters()) {
      parameter->trainable =
          first + parameter->unit >= model.first_trained_block;
    }
  }

  int num_units() const override { return end_ - first_; }
  bool Recomputes(int) const override { return model_.recompute; }

  std::vector<BoundarySpec> Boundary(int unit) const override {
    const int block = first_ + unit;
    if (block == 0 || block == model_.blocks) return {};
    const int half = model_.blocks / 2;
    const int skips = block <= half ? block : model_.blocks - block;
    return std::vector<BoundarySpec>(
        1 + skips,
        {{microbatch_size_, model_.tokens, model_.width}, dtype_, States()});
  }

  std::vector<ShardedVariable> RunUnit(
      ForwardContext& context, int64_t microbatch, int unit,
      std::vector<ShardedVariable> state) override {
    const int block = first_ + unit;
    if (block == 0) {
      state.push_back({Variable(Samples(microbatch, /*stream=*/1)), States()});
    }
    const ShardedVariable x = state.front();
    ShardedVariable hidden = Activate(context, Activation::kGeluTanh,
                                      blocks_[unit]->in.Forward(context, x));
    if (block == model_.auxiliary_block) {
      AddLoss(context, SumOfSquaresOf(context, hidden), model_.auxiliary_weight,
              "auxiliary");
    }
    ShardedVariable y =
        Add(context, x, blocks_[unit]->out.Forward(context, hidden));
    const bool pops = block >= model_.blocks / 2;
    if (pops) {
      y = Add(context, y, state.back());
      state.pop_back();
    } else {
      state.push_back(x);
    }
    if (block + 1 < model_.blocks) {
      if (state.empty()) state.emplace_back();
      state.front() = y;
      return state;
    }
    AddLoss(context,
            SquaredErrorLoss(context, y, Samples(microbatch, /*stream=*/2)),
            0.125, "loss");
    return {};
  }

 private:
  struct Block {
    ColumnParallelLinear in;
    RowParallelLinear out;
  };

  static AxisStates States() {
    AxisStates states;
    states[Axis::kData] = AxisState::Shard(0);
    return states;
  }

  // A part of a sum over every axis that x is sharded over.
  static ShardedVariable SumOfSquaresOf(ForwardContext& context,
                                        const ShardedVariable& x) {
    ShardedVariable sum{SumOfSquares(context.tape, x.variable), x.states};
    for (const Axis axis : kAllAxes) {
      if (sum.states[axis].kind == AxisState::Kind::kShard) {
        sum.states[axis] = AxisState::Partial();
      }
    }
    return sum;
  }

  Tensor Samples(int64_t microbatch, uint64_t stream) const {
    const int64_t elements = model_.tokens * model_.width;
    std::vector<double> values;
    for (int64_t i = 0; i < microbatch_size_; ++i) {
      const int64_t sample = first_sample_ + microbatch * microbatch_size_ + i;
      const RandomStream random(
          {.seed = stream, .sample = static_cast<uint64_t>(sample)});
      for (int64_t e = 0; e < elements; ++e) values.push_back(random.Normal(e));
    }
    const Tensor tensor = Tensor::FromValues<double>(
        device_, {microbatch_size_, model_.tokens, model_.width}, values);
    return dtype_ == DType::kFloat64 ? tensor : Cast(tensor, dtype_);
  }

  Device& device_;
  DType dtype_;
  MlpModel model_;
  int first_;
  int end_;
  int64_t first_sample_;
  int64_t microbatch_size_;
  std::vector<std::unique_ptr<Block>> blocks_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_MLP_MODEL_TESTING_H_
