// What a plan's ranks hold.

#include <algorithm>

#include "scheduler/costs/plan_costs.h"
#include "scheduler/plan/plan.h"
#include "scheduler/schedules/block_ranks.h"

namespace trireme {

int64_t CommunicatorsOf(const Plan& plan) {
  const Plan::Grid& grid = plan.grid();
  // Everybody, and activations over tp and cp.
  int64_t count = GridSize(grid) > 1 ? 1 : 0;
  count += grid.tp() > 1 ? 1 : 0;
  count += grid.cp() > 1 ? 1 : 0;
  // What tp sends behind a product of the backward.
  count += grid.tp() > 1 ? 1 : 0;
  // Gradients over every set of those of tp, cp and dp that are in use, and of
  // copies of shards over every set of such of tp and cp.
  const int64_t sharers =
      plan.sharding() == Plan::REPLICATED ? 1 : plan.shard_group();
  const int64_t copies = grid.dp() / sharers;
  const int whole = (grid.tp() > 1 ? 1 : 0) + (grid.cp() > 1 ? 1 : 0);
  count += (int64_t{1} << (whole + (grid.dp() > 1 ? 1 : 0))) - 1;
  count += (int64_t{1} << whole) - (copies > 1 ? 0 : 1);
  // Shards' gradients and parameters, and the ranks that hold each shard once.
  count += sharers > 1 ? 2 : 0;
  const int64_t model = int64_t{grid.tp()} * grid.cp() * grid.pp();
  count += model * sharers > 1 ? 1 : 0;
  // Rows to experts and back, and sums over those that hold the same.
  count += grid.ep() > 1 ? 1 : 0;
  const int64_t stage = int64_t{grid.tp()} * grid.cp() * grid.dp();
  count += grid.ep() > 1 && stage > grid.ep() ? 1 : 0;
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

int64_t PlanCoster::StageParameters(int32_t stage) const {
  int64_t parameters = 0;
  for (const StageBlocks& blocks : BlocksOf(stage)) {
    parameters += blocks.count() * pieces_.blocks[blocks.kind].parameters;
  }
  if (stage == 0) parameters += pieces_.embedding.parameters;
  if (stage + 1 == static_cast<int32_t>(stages_.size())) {
    parameters += pieces_.head.parameters;
  }
  return parameters;
}

int64_t PlanCoster::StageExpertParameters(int32_t stage) const {
  int64_t parameters = 0;
  for (const StageBlocks& blocks : BlocksOf(stage)) {
    parameters +=
        blocks.count() * pieces_.blocks[blocks.kind].expert_parameters;
  }
  return parameters;
}

std::vector<PlanCoster::StageBlocks> PlanCoster::DroppingBlocksOf(
    int32_t stage) const {
  const int64_t all = plan_.stages(stage).blocks();
  if (plan_.recompute() == Plan::NONE) return Divide(stage, 0);
  return Divide(stage, plan_.has_recompute_blocks()
                           ? std::min<int64_t>(all, plan_.recompute_blocks())
                           : all);
}

std::pair<int64_t, int64_t> PlanCoster::BlockRangeOf(int32_t stage) const {
  int64_t first = 0;
  for (int32_t before = 0; before < stage; ++before) {
    first += plan_.stages(before).blocks();
  }
  return {first, first + plan_.stages(stage).blocks()};
}

const PieceFigures& PlanCoster::FirstBlockOf(int32_t stage) const {
  // A stage that only has the head receives what the last block gives.
  const int64_t first = std::min(BlockRangeOf(stage).first, model_.layers - 1);
  return pieces_.blocks[BlockRunsIn(model_, first, first + 1).front().kind];
}

int64_t PlanCoster::ReceivedBytes(int32_t stage) const {
  const PieceFigures& block = FirstBlockOf(stage);
  if (block.skip_bytes == 0 || plan_.chunks_per_rank() == 1) {
    return block.message_bytes;
  }
  const int64_t first = BlockRangeOf(stage).first;
  const std::vector<int32_t> ranks = BlockRanks(plan_);
  const auto staying = std::count_if(
      model_.skips.begin(), model_.skips.end(), [&](const BlockSkip& skip) {
        return skip.made < first && skip.read >= first &&
               StaysOnRank(ranks, skip.made, skip.read);
      });
  return block.message_bytes - staying * block.skip_bytes;
}

int64_t PlanCoster::StayingBytes(int32_t stage) const {
  if (model_.skips.empty() || plan_.chunks_per_rank() == 1) return 0;
  const auto [first, end] = BlockRangeOf(stage);
  const std::vector<int32_t> ranks = BlockRanks(plan_);
  int64_t bytes = 0;
  for (const BlockSkip& skip : model_.skips) {
    if (skip.made < first || skip.made >= end ||
        !StaysOnRank(ranks, skip.made, skip.read)) {
      continue;
    }
    // The block that reads it receives it among others.
    const int32_t kind =
        BlockRunsIn(model_, skip.read, skip.read + 1).front().kind;
    bytes += pieces_.blocks[kind].skip_bytes;
  }
  return bytes;
}

int64_t PlanCoster::message_bytes() const {
  // Before any block it is what tensors between blocks have without skips.
  int64_t largest = ReceivedBytes(0);
  for (size_t stage = 1; stage < stages_.size(); ++stage) {
    if (stages_[stage].rank == stages_[stage - 1].rank) continue;
    largest = std::max(largest, ReceivedBytes(static_cast<int32_t>(stage)));
  }
  return largest;
}

int64_t PlanCoster::BlockActivationBytes(int32_t kind, bool dropped) const {
  return (dropped ? pieces_ : pieces_kept_).blocks[kind].activation_bytes;
}

int64_t PlanCoster::ChunkActivationBytes(int32_t stage) const {
  int64_t bytes = pieces_.chunk.activation_bytes;
  for (const StageBlocks& blocks : DroppingBlocksOf(stage)) {
    bytes += blocks.again * BlockActivationBytes(blocks.kind, true) +
             blocks.kept * BlockActivationBytes(blocks.kind, false);
  }
  if (stage == 0) bytes += pieces_.embedding.activation_bytes;
  if (stage + 1 == static_cast<int32_t>(stages_.size())) {
    bytes += pieces_.head.activation_bytes;
  }
  return bytes;
}

int64_t PlanCoster::TransientBytes(int32_t stage) const {
  const std::vector<StageBlocks> all = DroppingBlocksOf(stage);
  int64_t most = 0, behind = 0;
  for (auto blocks = all.rbegin(); blocks != all.rend(); ++blocks) {
    const PieceFigures& block = pieces_.blocks[blocks->kind];
    most = std::max(most, block.transient_bytes - behind);
    behind += blocks->again * BlockActivationBytes(blocks->kind, true) +
              blocks->kept * BlockActivationBytes(blocks->kind, false) -
              blocks->count() * block.deferred_bytes;
  }
  return most;
}

int64_t PlanCoster::ReductionBytes(int32_t pp) const {
  const int64_t members = plan_.sharding() == Plan::REPLICATED
                              ? (*rings_)[pp].reduction.slowest.members
                              : (*rings_)[pp].shards.slowest.members;
  // GRADIENTS and PARAMETERS reduce while other activations are there.
  if (members < 2 || plan_.sharding() >= Plan::GRADIENTS) return 0;
  const auto bucket = static_cast<int64_t>(plan_.gradient_bucket_bytes());
  int64_t bytes = 0;
  for (int32_t stage = 0; stage < static_cast<int32_t>(stages_.size());
       ++stage) {
    if (stages_[stage].rank != pp) continue;
    // All others' parts of this rank's share.
    const int64_t gradients = StayingParameters(stage) * model_.gradient_bytes;
    const int64_t buckets = CeilDivide(gradients, bucket);
    bytes += std::min(gradients / members * (members - 1),
                      buckets * pieces_.reduction_bytes);
  }
  return bytes;
}

RankMemory PlanCoster::MemoryOf(int32_t pp,
                                const std::vector<int32_t>& buckets) const {
  RankMemory memory;
  const int64_t group = plan_.shard_group();
  const auto num_stages = static_cast<int32_t>(stages_.size());
  int64_t parameters = 0, experts = 0, bucket_bytes = 0, largest_block = 0;
  for (int32_t stage = 0; stage < num_stages; ++stage) {
    if (stages_[stage].rank != pp) continue;
    const int64_t here = StageParameters(stage);
    parameters += here;
    experts += StageExpertParameters(stage);
    bucket_bytes =
        std::max(bucket_bytes, here * model_.gradient_bytes / buckets[stage]);
    ChunkMemory chunk;
    chunk.activation_bytes = ChunkActivationBytes(stage) + StayingBytes(stage);
    chunk.deferred_weight_bytes = pieces_.chunk.deferred_bytes;
    int64_t constants = pieces_.chunk.constant_bytes;
    const auto keep = [&constants](int64_t count, const PieceFigures& piece) {
      constants += count * (piece.constant_bytes + piece.frozen_bytes);
    };
    for (const StageBlocks& blocks : BlocksOf(stage)) {
      const PieceFigures& block = pieces_.blocks[blocks.kind];
      chunk.deferred_weight_bytes += blocks.count() * block.deferred_bytes;
      keep(blocks.count(), block);
      largest_block = std::max(
          largest_block, Shardable(block.parameters, block.expert_parameters));
    }
    int64_t transient = TransientBytes(stage);
    if (stage == 0) {
      keep(1, pieces_.embedding);
      chunk.deferred_weight_bytes += pieces_.embedding.deferred_bytes;
    }
    if (stage + 1 == num_stages) {
      keep(1, pieces_.head);
      transient = std::max(transient, pieces_.head.transient_bytes);
      chunk.deferred_weight_bytes += pieces_.head.deferred_bytes;
    }
    memory.always.parameters += constants;
    memory.always.workspace = std::max(memory.always.workspace, transient);
    chunk.activation_message_bytes = ReceivedBytes(stage);
    chunk.gradient_message_bytes =
        ReceivedBytes(std::min(stage + 1, num_stages - 1));
    if (memory.chunks.size() <= static_cast<size_t>(stages_[stage].chunk)) {
      memory.chunks.resize(stages_[stage].chunk + 1);
    }
    memory.chunks[stages_[stage].chunk] = chunk;
  }
  const int64_t shared = Shardable(parameters, experts);
  const int64_t whole = parameters - shared;
  const auto shard = [&](int64_t bytes, Plan::Sharding from) {
    return (plan_.sharding() >= from ? CeilDivide(shared * bytes, group)
                                     : shared * bytes) +
           whole * bytes;
  };
  MemoryBytes& always = memory.always;
  always.parameters += shard(model_.element_bytes, Plan::PARAMETERS);
  always.gradients = shard(model_.gradient_bytes, Plan::GRADIENTS);
  always.optimizer = shard(model_.optimizer_bytes, Plan::OPTIMIZER);
  if ((*rings_)[pp].reduction.slowest.members > 1)
    always.communication += 2 * bucket_bytes;
  if (plan_.sharding() >= Plan::GRADIENTS) {
    // Beside the shards a block's whole gradients, of which about half are on
    // their way already.
    const int64_t gradients = largest_block * model_.gradient_bytes / 2;
    if (plan_.sharding() == Plan::PARAMETERS) {
      // The block at work and the one that is gathered ahead.
      always.communication = 2 * largest_block * model_.element_bytes +
                             std::max(2 * bucket_bytes, gradients);
    } else {
      always.communication += gradients;
    }
  }
  if (plan_.has_offload()) OffloadMemory(pp, memory);
  memory.limit_bytes = (*rings_)[pp].limit_bytes;
  return memory;
}

}  // namespace trireme
