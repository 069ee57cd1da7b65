// An MMDiT part as a pipeline chunk: turns microbatches into the first stage's
// inputs as the objective says, passes (x, silu(c), text) between stages, and
// ends in the objective's losses.

#ifndef TRIREME_MODELS_MMDIT_MMDIT_CHUNK_H_
#define TRIREME_MODELS_MMDIT_MMDIT_CHUNK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "models/family.h"
#include "models/mmdit/mmdit.h"
#include "parallel/chunk.h"

namespace trireme {

class MmditChunk final : public Chunk {
 public:
  // `dtype`: of the part's store. The inputs outlive the chunk.
  MmditChunk(std::shared_ptr<const MmditPart> part, const ChunkRequest& request,
             DType dtype, const StepInputs& inputs)
      : part_(std::move(part)),
        request_(request),
        dtype_(dtype),
        inputs_(inputs) {}

  int num_units() const override;
  std::vector<BoundarySpec> Boundary(int unit) const override;
  bool Recomputes(int unit) const override;
  std::vector<ShardedVariable> RunUnit(
      ForwardContext& context, int64_t microbatch, int unit,
      std::vector<ShardedVariable> state) override;

 private:
  // What the units of one microbatch share, so that it is computed once.
  struct Shared {
    int64_t version = -1;  // of the inputs
    int64_t microbatch = -1;
    std::optional<MmditConstants> constants;
    // From the embedding until the head has read it.
    Tensor target;
  };

  int64_t microbatch_size() const {
    return request_.microbatch_size > 0 ? request_.microbatch_size
                                        : inputs_.batch().size();
  }
  Batch Microbatch(int64_t microbatch) const;
  ModelInputs Prepare(int64_t microbatch) const;
  // Kept for the microbatch that ran last.
  Shared& SharedOf(int64_t microbatch);
  MmditState Embed(ForwardContext& context, int64_t microbatch);
  const MmditConstants& Constants(int64_t microbatch);
  // Of each sample; 0 where it is trained without its text.
  Tensor TextCounts(int64_t microbatch) const;
  // This rank's tokens of a target.
  Tensor LayOut(const Tensor& target) const;

  std::shared_ptr<const MmditPart> part_;
  ChunkRequest request_;
  DType dtype_;
  const StepInputs& inputs_;
  Shared shared_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_MMDIT_MMDIT_CHUNK_H_
