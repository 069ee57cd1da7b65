// A DiT part as a pipeline chunk under the rectified-flow objective: its units
// are the embedding, which turns a microbatch of pictures into tokens, blocks,
// which pass (x, silu(c), text) on, and the head, which ends in the loss.

#ifndef TRIREME_MODELS_DIT_DIT_CHUNK_H_
#define TRIREME_MODELS_DIT_DIT_CHUNK_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "models/dit/dit.h"
#include "models/objective/rectified_flow.h"
#include "parallel/chunk.h"

namespace trireme {

struct DitChunkOptions {
  RectifiedFlowConfig flow;
  uint64_t seed = 0;
  DType dtype = DType::kFloat32;
  int64_t microbatch_size = 1;
  // Number of the local batch's first microbatch.
  int64_t first_microbatch = 0;
  // Samples of a step over the whole job: the loss is Σ / (global_batch·
  // pixels), never a mean of local means.
  int64_t global_batch = 1;
};

// What chunks of the model read of a batch: the embedding pixels, labels and
// text, the head pixels, all blocks the number of text tokens.
std::vector<FieldSpec> DitFields(const DitConfig& config, bool embedding,
                                 bool head);

class DitChunk final : public Chunk {
 public:
  // Both outlive the chunk.
  DitChunk(const DitPart& part, const DitChunkOptions& options)
      : part_(part), options_(options) {}

  // The local batch of the step to come: microbatches × microbatch_size
  // samples, with the chunk's fields.
  void set_batch(Batch batch) {
    batch_ = std::move(batch);
    shared_ = {};
  }

  int num_units() const override;
  std::vector<BoundarySpec> Boundary(int unit) const override;
  bool Recomputes(int unit) const override;
  std::vector<ShardedVariable> RunUnit(
      ForwardContext& context, int64_t microbatch, int unit,
      std::vector<ShardedVariable> state) override;

  // The weight of the squared error's sum in the objective.
  double loss_factor() const;

 private:
  Batch Microbatch(int64_t microbatch) const;
  NoisedBatch Noised(int64_t microbatch) const;
  DitState Embed(ForwardContext& context, int64_t microbatch);
  const DitConstants& Constants(int64_t microbatch);

  const DitPart& part_;
  DitChunkOptions options_;
  Batch batch_;
  // What the units of one microbatch share, so that it is computed once: kept
  // for the microbatch that ran last.
  struct Shared {
    int64_t microbatch = -1;
    std::optional<DitConstants> constants;
    // From the embedding until the head has read it.
    Tensor target;
  };
  Shared shared_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DIT_DIT_CHUNK_H_
