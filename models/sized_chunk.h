// A chunk of a model over pictures of several sizes: one chunk for each of the
// buckets that they come in (models/data/buckets.h), all with the same
// parameters, of which a step runs that of its batch.

#ifndef TRIREME_MODELS_SIZED_CHUNK_H_
#define TRIREME_MODELS_SIZED_CHUNK_H_

#include <memory>
#include <utility>
#include <vector>

#include "models/family.h"
#include "parallel/executor/chunk.h"

namespace trireme {

class SizedChunk final : public Chunk {
 public:
  // By bucket. The inputs outlive it.
  SizedChunk(std::vector<std::unique_ptr<Chunk>> chunks,
             const StepInputs& inputs)
      : chunks_(std::move(chunks)), inputs_(inputs) {}

  int num_units() const override { return chunks_.front()->num_units(); }
  std::vector<BoundarySpec> Boundary(int unit) const override {
    return chunks_[bucket()]->Boundary(unit);
  }
  bool Recomputes(int unit) const override {
    return chunks_[bucket()]->Recomputes(unit);
  }
  std::vector<ShardedVariable> RunUnit(
      ForwardContext& context, int64_t microbatch, int unit,
      std::vector<ShardedVariable> state) override {
    // What a chunk keeps would lie beside another's until its bucket comes
    // again.
    if (ran_ != bucket()) chunks_[ran_]->Forget();
    ran_ = bucket();
    return chunks_[ran_]->RunUnit(context, microbatch, unit, std::move(state));
  }
  void Forget() override { chunks_[ran_]->Forget(); }

 private:
  int32_t bucket() const { return inputs_.batch().bucket; }

  std::vector<std::unique_ptr<Chunk>> chunks_;
  const StepInputs& inputs_;
  int32_t ran_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_SIZED_CHUNK_H_
