// What a plan's ranks hold.

#include <algorithm>

#include "scheduler/costs/plan_costs.h"
#include "scheduler/plan/plan.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {

int64_t CommunicatorsOf(const Plan& plan) {
  const Plan::Grid& grid = plan.grid();
  // Everybody, and activations over tp and cp.
  int64_t count = GridSize(grid) > 1 ? 1 : 0;
  count += grid.tp() > 1 ? 1 : 0;
  count += grid.cp() > 1 ? 1 : 0;
  // What tp sends behind a product of the backward.
  count += grid.tp() > 1 ? 1 : 0;
  // Gradients over every set of tp, cp and dp, and of copies of shards over
  // every set of tp and cp.
  const int64_t sharers =
      plan.sharding() == Plan::REPLICATED ? 1 : plan.shard_group();
  const int64_t copies = grid.dp() / sharers;
  for (int set = 1; set < 8; ++set) {
    const bool tp = (set & 1) != 0, cp = (set & 2) != 0, dp = (set & 4) != 0;
    const int64_t members = int64_t{tp ? grid.tp() : 1} * (cp ? grid.cp() : 1) *
                            (dp ? grid.dp() : 1);
    count += members > 1 ? 1 : 0;
    const int64_t holders =
        int64_t{tp ? grid.tp() : 1} * (cp ? grid.cp() : 1) * copies;
    count += !dp && holders > 1 ? 1 : 0;
  }
  count += copies > 1 ? 1 : 0;
  // Shards' gradients and parameters, and the ranks that hold each shard once.
  count += sharers > 1 ? 2 : 0;
  const int64_t model = int64_t{grid.tp()} * grid.cp() * grid.pp();
  count += model * sharers > 1 ? 1 : 0;
  // Heads and rings of context parallelism.
  count += plan.ulysses() > 1 ? 1 : 0;
  count += grid.cp() / plan.ulysses() > 1 ? 1 : 0;
  // Messages up and down, with the stages on both sides.
  if (grid.pp() > 1) count += grid.pp() > 2 ? 4 : 2;
  return count;
}

int64_t MemoryLimitOn(const ClusterModel& cluster, const Plan& plan,
                      int32_t node) {
  const ClusterDevice& device = cluster.DeviceOfNode(node);
  return device.memory_bytes -
         CommunicatorsOf(plan) * device.communicator_bytes;
}

void PlanCoster::MeasureParts() {
  if (!model_.measured_memory) return;
  const bool deferred = ScheduleOf(plan_).splits_backward;
  parts_ = model_.measured_memory(split_, plan_.recompute(), deferred);
  parts_kept_ = plan_.has_recompute_blocks()
                    ? model_.measured_memory(split_, Plan::NONE, deferred)
                    : parts_;
}

int64_t PlanCoster::BlockParametersOnRank() const {
  return parts_.has_value() ? parts_->block.parameters
                            : BlockParametersPerRank(model_, split_.tp);
}

int64_t PlanCoster::StageParameters(int32_t stage) const {
  if (parts_.has_value()) {
    int64_t parameters = plan_.stages(stage).blocks() * BlockParametersOnRank();
    if (stage == 0) parameters += parts_->embedding.parameters;
    if (stage + 1 == static_cast<int32_t>(stages_.size())) {
      parameters += parts_->head.parameters;
    }
    return parameters;
  }
  int64_t parameters = plan_.stages(stage).blocks() * BlockParametersOnRank();
  const int32_t last = static_cast<int32_t>(stages_.size()) - 1;
  if (stage == 0) {
    parameters += CeilDivide(model_.embedding_parameters, split_.tp);
  }
  if (stage == last) {
    parameters += CeilDivide(model_.head_parameters, split_.tp);
  }
  return parameters;
}

int64_t PlanCoster::DroppingBlocks(int32_t stage) const {
  const int64_t blocks = plan_.stages(stage).blocks();
  const int64_t dropped = plan_.recompute() == Plan::NONE ? 0 : blocks;
  return plan_.has_recompute_blocks()
             ? std::min<int64_t>(dropped, plan_.recompute_blocks())
             : dropped;
}

int64_t PlanCoster::BlockActivationBytes(bool dropped) const {
  if (parts_.has_value()) {
    return (dropped ? parts_ : parts_kept_)->block.activation_bytes;
  }
  return ActivationBytes(model_, split_,
                         dropped ? plan_.recompute() : Plan::NONE);
}

int64_t PlanCoster::ChunkActivationBytes(int32_t stage) const {
  const int64_t blocks = plan_.stages(stage).blocks();
  const int64_t dropped = DroppingBlocks(stage);
  const int64_t of_blocks = dropped * BlockActivationBytes(true) +
                            (blocks - dropped) * BlockActivationBytes(false);
  if (parts_.has_value()) {
    int64_t bytes = parts_->chunk.activation_bytes + of_blocks;
    if (stage == 0) bytes += parts_->embedding.activation_bytes;
    if (stage + 1 == static_cast<int32_t>(stages_.size())) {
      bytes += parts_->head.activation_bytes;
    }
    return bytes;
  }
  int64_t bytes = of_blocks;
  if (stage == 0) bytes += BoundaryBytes(model_, split_);
  if (stage + 1 == static_cast<int32_t>(stages_.size())) {
    // Input of the last norm and of the head.
    bytes += 2 * BoundaryBytes(model_, split_);
  }
  return bytes;
}

int64_t PlanCoster::ReductionBytes(int32_t pp) const {
  const int64_t members = plan_.sharding() == Plan::REPLICATED
                              ? rings_->reduction[pp].members
                              : rings_->shards[pp].members;
  // GRADIENTS and PARAMETERS reduce while other activations are there.
  if (!parts_.has_value() || members < 2 ||
      plan_.sharding() >= Plan::GRADIENTS) {
    return 0;
  }
  const auto bucket = static_cast<int64_t>(plan_.gradient_bucket_bytes());
  int64_t bytes = 0;
  for (int32_t stage = 0; stage < static_cast<int32_t>(stages_.size());
       ++stage) {
    if (stages_[stage].rank != pp) continue;
    // All others' parts of this rank's share.
    const int64_t gradients = StageParameters(stage) * model_.gradient_bytes;
    const int64_t buckets = CeilDivide(gradients, bucket);
    bytes += std::min(gradients / members * (members - 1),
                      buckets * parts_->reduction_bytes);
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
        plan_.stages(stage).blocks() *
        (parts_.has_value() ? parts_->block.deferred_bytes
                            : DeferredWeightBytes(model_, split_));
    if (parts_.has_value()) {
      memory.always.parameters +=
          parts_->chunk.constant_bytes +
          plan_.stages(stage).blocks() * parts_->block.constant_bytes;
      memory.always.workspace =
          std::max(memory.always.workspace, parts_->transient_bytes);
      chunk.deferred_weight_bytes += parts_->chunk.deferred_bytes;
      if (stage == 0) {
        memory.always.parameters += parts_->embedding.constant_bytes;
        chunk.deferred_weight_bytes += parts_->embedding.deferred_bytes;
      }
      if (stage + 1 == static_cast<int32_t>(stages_.size())) {
        memory.always.parameters += parts_->head.constant_bytes;
        memory.always.workspace =
            std::max(memory.always.workspace, parts_->head_transient_bytes);
        chunk.deferred_weight_bytes += parts_->head.deferred_bytes;
      }
    }
    const int64_t message = MessageBytes(model_, split_);
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
  always.parameters +=
      shard(parameters * model_.element_bytes, Plan::PARAMETERS);
  always.gradients = shard(parameters * model_.gradient_bytes, Plan::GRADIENTS);
  always.optimizer =
      shard(parameters * model_.optimizer_bytes, Plan::OPTIMIZER);
  if (rings_->reduction[pp].members > 1)
    always.communication += 2 * bucket_bytes;
  BlockSplit whole = split_;
  whole.sequence_parallel = false;
  if (split_.sequence_parallel && !parts_.has_value()) {
    always.communication += 2 * BoundaryBytes(model_, whole);
  }
  if (plan_.sharding() >= Plan::GRADIENTS) {
    // Beside the shards a block's whole gradients, of which about half are on
    // their way already.
    const int64_t block = BlockParametersPerRank(model_, split_.tp);
    const int64_t gradients = block * model_.gradient_bytes / 2;
    if (plan_.sharding() == Plan::PARAMETERS) {
      // The block at work and the one that is gathered ahead.
      always.communication = 2 * block * model_.element_bytes +
                             std::max(2 * bucket_bytes, gradients);
    } else {
      always.communication += gradients;
    }
  }
  if (!parts_.has_value()) {
    // Gradients inside one block, and what it computes again.
    always.workspace = DeferredWeightBytes(model_, split_);
    if (plan_.recompute() != Plan::NONE) {
      always.workspace += ActivationBytes(model_, split_, Plan::NONE) -
                          ActivationBytes(model_, split_, plan_.recompute());
    }
  }
  if (plan_.has_offload()) OffloadMemory(pp, memory);
  memory.limit_bytes = rings_->limit_bytes[pp];
  return memory;
}

}  // namespace trireme
