// A DiT part as a pipeline chunk under the rectified-flow objective: turns
// microbatches of pictures into the first stage's inputs, passes (x, silu(c),
// text) between stages, and ends in the loss.

#ifndef TRIREME_MODELS_DIT_DIT_CHUNK_H_
#define TRIREME_MODELS_DIT_DIT_CHUNK_H_

#include <cstdint>
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
  void set_batch(Batch batch) { batch_ = std::move(batch); }

  // The factor of all gradients, not of the loss.
  void set_loss_scale(double scale) { loss_scale_ = scale; }

  std::vector<TensorSpec> InputSpecs() const override;
  std::vector<TensorSpec> OutputSpecs() const override;
  bool computes_loss() const override { return part_.has_head(); }
  std::vector<ShardedVariable> Forward(
      ForwardContext& context, int64_t microbatch,
      const std::vector<Variable>& inputs) override;

  // The loss sum of Forward times this is this rank's part of the mean.
  double loss_factor() const;

 private:
  std::vector<TensorSpec> BoundarySpecs() const;

  const DitPart& part_;
  DitChunkOptions options_;
  Batch batch_;
  double loss_scale_ = 1;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DIT_DIT_CHUNK_H_
