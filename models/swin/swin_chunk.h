// A part of a Swin Transformer V2 as a pipeline chunk.

#ifndef TRIREME_MODELS_SWIN_SWIN_CHUNK_H_
#define TRIREME_MODELS_SWIN_SWIN_CHUNK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "models/family.h"
#include "models/swin/swin.h"
#include "parallel/executor/chunk.h"

namespace trireme {

class SwinChunk final : public Chunk {
 public:
  // The inputs outlive the chunk. `dtype`: what it computes in.
  SwinChunk(std::unique_ptr<const SwinPart> part, const ChunkRequest& request,
            const StepInputs& inputs, DType dtype);

  int num_units() const override;
  std::vector<BoundarySpec> Boundary(int unit) const override;
  bool Recomputes(int unit) const override;
  std::vector<ShardedVariable> RunUnit(
      ForwardContext& context, int64_t microbatch, int unit,
      std::vector<ShardedVariable> state) override;

 private:
  int first_block() const { return part_->has_embedding() ? 1 : 0; }
  int64_t microbatch_size() const;
  Batch Microbatch(int64_t microbatch) const;

  std::unique_ptr<const SwinPart> part_;
  ChunkRequest request_;
  const StepInputs& inputs_;
  DType dtype_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SWIN_SWIN_CHUNK_H_
