// What a plan's ranks hold.

#include <algorithm>

#include "scheduler/planner/plan_costs.h"

namespace trireme {
int64_t PlanCoster::StageParameters(int32_t stage) const {
  int64_t parameters =
      plan_.stages(stage).blocks() * BlockParametersPerRank(model_, split_.tp);
  const int32_t last = static_cast<int32_t>(stages_.size()) - 1;
  if (stage == 0) {
    parameters += CeilDivide(EmbeddingParameters(model_), split_.tp);
  }
  if (stage == last) {
    parameters += CeilDivide(HeadParameters(model_), split_.tp);
    // The output shares the embedding's table, of which it has a copy.
    if (stage != 0) {
      parameters += CeilDivide(model_.vocabulary * model_.hidden, split_.tp);
    }
  }
  return parameters;
}

int64_t PlanCoster::ChunkActivationBytes(int32_t stage) const {
  const int64_t blocks = plan_.stages(stage).blocks();
  int64_t dropped = plan_.recompute() == Plan::NONE ? 0 : blocks;
  if (plan_.has_recompute_blocks()) {
    dropped = std::min<int64_t>(dropped, plan_.recompute_blocks());
  }
  int64_t bytes =
      dropped * ActivationBytes(model_, split_, plan_.recompute()) +
      (blocks - dropped) * ActivationBytes(model_, split_, Plan::NONE);
  if (stage == 0) bytes += BoundaryBytes(model_, split_);
  if (stage + 1 == static_cast<int32_t>(stages_.size())) {
    // Input of the last norm and of the head; logits in fp32.
    bytes += 2 * BoundaryBytes(model_, split_) +
             4 * model_.tokens * split_.microbatch_size *
                 CeilDivide(model_.vocabulary, split_.tp) / split_.cp;
  }
  return bytes;
}

RankMemory PlanCoster::MemoryOf(int32_t pp,
                                const std::vector<int32_t>& buckets) const {
  RankMemory memory;
  const int64_t group = plan_.shard_group();
  int64_t parameters = 0, bucket_bytes = 0;
  for (int32_t stage = 0; stage < static_cast<int32_t>(stages_.size());
       ++stage) {
    if (stages_[stage].rank != pp) continue;
    const int64_t here = StageParameters(stage);
    parameters += here;
    bucket_bytes =
        std::max(bucket_bytes, here * model_.gradient_bytes / buckets[stage]);
    ChunkMemory chunk;
    chunk.activation_bytes = ChunkActivationBytes(stage);
    chunk.deferred_weight_bytes =
        plan_.stages(stage).blocks() * DeferredWeightBytes(model_, split_);
    const int64_t message =
        MessageBytes(model_, split_, traits_.scatter_messages);
    chunk.activation_message_bytes = message;
    chunk.gradient_message_bytes = message;
    if (memory.chunks.size() <= static_cast<size_t>(stages_[stage].chunk)) {
      memory.chunks.resize(stages_[stage].chunk + 1);
    }
    memory.chunks[stages_[stage].chunk] = chunk;
  }
  auto shard = [&](int64_t bytes, Plan::Sharding from) {
    return plan_.sharding() >= from ? CeilDivide(bytes, group) : bytes;
  };
  MemoryBytes& always = memory.always;
  always.parameters =
      shard(parameters * model_.element_bytes, Plan::PARAMETERS);
  always.gradients = shard(parameters * model_.gradient_bytes, Plan::GRADIENTS);
  always.optimizer =
      shard(parameters * model_.optimizer_bytes, Plan::OPTIMIZER);
  if (rings_->reduction[pp].members > 1)
    always.communication += 2 * bucket_bytes;
  BlockSplit whole = split_;
  whole.sequence_parallel = false;
  if (split_.sequence_parallel) {
    always.communication += 2 * BoundaryBytes(model_, whole);
  }
  if (plan_.sharding() == Plan::PARAMETERS) {
    // The block at work and the one that is gathered ahead.
    always.communication += 2 * BlockParametersPerRank(model_, split_.tp) *
                            (model_.element_bytes + model_.gradient_bytes);
  }
  // Gradients inside one block, and what it computes again.
  always.workspace = DeferredWeightBytes(model_, split_);
  if (plan_.recompute() != Plan::NONE) {
    always.workspace += ActivationBytes(model_, split_, Plan::NONE) -
                        ActivationBytes(model_, split_, plan_.recompute());
  }
  memory.limit_bytes = rings_->limit_bytes[pp];
  return memory;
}

}  // namespace trireme
