// A part of a model over tokens as a pipeline chunk: turns microbatches into
// the first stage's inputs as the objective says, passes the state of its
// blocks between stages, and ends in the objective's losses.
//
// A Part (DitPart, MmditPart, HidreamPart, TriposgPart,
// SparseDitPart) has the blocks, and
// says what they read:
//   Inputs, BlockConstants, State          types; a State is made of tensors,
//                                          State::Of, and to them, ToTensors
//   sample_field(), TokensOf(samples), sample_tokens(), sample_elements()
//   num_blocks(), has_embedding(), has_head(), recomputes(block)
//   Boundary(block, b)
//   ConstantsOf(microbatch, objective, watch)
//                                          for all blocks of a microbatch
//   InputsOf(microbatch, prepared, objective, constants)
//   Embed(context, inputs), RunBlock(context, block, constants, state),
//   Head(context, state), or with the blocks' constants behind

#ifndef TRIREME_MODELS_TRANSFORMER_PICTURE_CHUNK_H_
#define TRIREME_MODELS_TRANSFORMER_PICTURE_CHUNK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "models/family.h"
#include "models/transformer/token_layout.h"
#include "parallel/executor/chunk.h"

namespace trireme {

template <typename Part>
class PictureChunk final : public Chunk {
 public:
  // `dtype`: of the part's store. The inputs outlive the chunk.
  PictureChunk(std::shared_ptr<const Part> part, const ChunkRequest& request,
               DType dtype, const StepInputs& inputs)
      : part_(std::move(part)),
        request_(request),
        dtype_(dtype),
        inputs_(inputs) {}

  int num_units() const override {
    return first_block() + part_->num_blocks() + (part_->has_head() ? 1 : 0);
  }

  std::vector<BoundarySpec> Boundary(int unit) const override {
    const bool begins = part_->has_embedding() && unit == 0;
    const bool ends = part_->has_head() && unit == num_units();
    if (begins || ends) return {};
    return part_->Boundary(unit - first_block(), microbatch_size());
  }

  bool Recomputes(int unit) const override {
    const int block = unit - first_block();
    return block >= 0 && block < part_->num_blocks() &&
           part_->recomputes(block);
  }

  std::vector<ShardedVariable> RunUnit(
      ForwardContext& context, int64_t microbatch, int unit,
      std::vector<ShardedVariable> state) override {
    const int block = unit - first_block();
    if (block < 0) return Embed(context, microbatch).ToTensors();
    auto local = Part::State::Of(std::move(state));
    if (block < part_->num_blocks()) {
      part_->RunBlock(context, block, Constants(microbatch), local);
      return std::move(local).ToTensors();
    }
    Tensor target = std::move(SharedOf(microbatch).target);
    if (!target.defined()) target = LayOut(Prepare(microbatch).target);
    inputs_.objective().AddLosses(context, Microbatch(microbatch),
                                  Head(context, microbatch, local), target,
                                  part_->sample_elements());
    return {};
  }

  void Forget() override { shared_ = Shared(); }

 private:
  // What the units of one microbatch share, so that it is computed once.
  struct Shared {
    int64_t version = -1;  // of the inputs
    int64_t microbatch = -1;
    std::optional<typename Part::BlockConstants> constants;
    // From the embedding until the head has read it.
    Tensor target;
  };

  int first_block() const { return part_->has_embedding() ? 1 : 0; }
  int64_t microbatch_size() const {
    return request_.microbatch_size > 0 ? request_.microbatch_size
                                        : inputs_.batch().size();
  }
  // Its place in the local batch.
  int64_t FirstSample(int64_t microbatch) const {
    return (microbatch - request_.first_microbatch) * microbatch_size();
  }
  Batch Microbatch(int64_t microbatch) const {
    const int64_t first = FirstSample(microbatch);
    return inputs_.batch().Slice(first, first + microbatch_size());
  }
  ModelInputs Prepare(int64_t microbatch) const {
    return inputs_.objective().Prepare(Microbatch(microbatch),
                                       part_->sample_field(), dtype_);
  }

  InputWatch WatchOf(int64_t microbatch) const {
    return {.gradients = inputs_.objective().input_gradients(),
            .first_sample = FirstSample(microbatch)};
  }

  // Kept for the microbatch that ran last.
  Shared& SharedOf(int64_t microbatch) {
    if (shared_.microbatch != microbatch ||
        shared_.version != inputs_.version()) {
      shared_ = {.version = inputs_.version(), .microbatch = microbatch};
    }
    return shared_;
  }
  const typename Part::BlockConstants& Constants(int64_t microbatch) {
    Shared& shared = SharedOf(microbatch);
    if (!shared.constants.has_value()) {
      shared.constants = part_->ConstantsOf(
          Microbatch(microbatch), inputs_.objective(), WatchOf(microbatch));
    }
    return *shared.constants;
  }

  typename Part::State Embed(ForwardContext& context, int64_t microbatch) {
    const ModelInputs prepared = Prepare(microbatch);
    if (part_->has_head()) {
      SharedOf(microbatch).target = LayOut(prepared.target);
    }
    typename Part::Inputs inputs =
        part_->InputsOf(Microbatch(microbatch), prepared, inputs_.objective(),
                        Constants(microbatch));
    inputs.watch = WatchOf(microbatch);
    return part_->Embed(context, inputs);
  }

  ShardedVariable Head(ForwardContext& context, int64_t microbatch,
                       const typename Part::State& state) {
    if constexpr (requires(const typename Part::BlockConstants& constants) {
                    part_->Head(context, state, constants);
                  }) {
      return part_->Head(context, state, Constants(microbatch));
    } else {
      return part_->Head(context, state);
    }
  }

  // This rank's tokens of a target.
  Tensor LayOut(const Tensor& target) const {
    if (!target.defined()) return target;
    return LocalTokens(part_->TokensOf(target), part_->sample_tokens());
  }

  std::shared_ptr<const Part> part_;
  ChunkRequest request_;
  DType dtype_;
  const StepInputs& inputs_;
  Shared shared_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_PICTURE_CHUNK_H_
