#include "scheduler/planner/placed_stages.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "scheduler/compile.h"
#include "scheduler/planner/lower_bounds.h"

namespace trireme {

PlacedStages::PlacedStages(const ModelShape& model, const ClusterModel& cluster,
                           const Plan& plan, const RuntimeTraits& traits,
                           RingsByNodes& rings)
    : cluster_(cluster),
      plan_(plan),
      coster_(model, cluster, plan_, traits),
      halves_(plan.schedule() == Plan::ZB_H1 || plan.schedule() == Plan::ZB_V),
      units_per_replica_(static_cast<int32_t>(plan.grid().cp())),
      units_per_stage_(units_per_replica_ *
                       static_cast<int32_t>(plan.grid().dp())),
      pp_(static_cast<int32_t>(plan.grid().pp())),
      least_blocks_(pp_ == 1 ? model.layers : plan.chunks_per_rank()),
      most_blocks_(model.layers - least_blocks_ * (pp_ - 1)),
      stages_(StagesOf(plan)),
      nodes_(static_cast<size_t>(units_per_stage_) * pp_, 0),
      rings_(rings) {
  const bool again =
      plan.recompute() == Plan::FULL && !plan.has_recompute_blocks();
  for (int32_t node = 0; node < cluster.num_nodes(); ++node) {
    ArithmeticSeconds block = coster_.ArithmeticOn(node).block;
    if (again) block.backward_s += block.forward_s;
    blocks_.push_back(PassOf(block));
    update_s_.push_back(coster_.ArithmeticOn(node).update_s);
    const ClusterDevice& device = cluster.DeviceOfNode(node);
    node_limits_.push_back(device.memory_bytes -
                           CommunicatorsOf(plan) * device.communicator_bytes);
  }
  plan_.mutable_placement()->Resize(static_cast<int>(cluster.num_ranks()), 0);
  FindPeaks();
}

PassSeconds PlacedStages::PassOf(const ArithmeticSeconds& seconds) const {
  const double work = seconds.forward_s + seconds.backward_s;
  if (!halves_) {
    return {seconds.forward_s, seconds.backward_s, work, seconds.backward_s};
  }
  return {seconds.forward_s, seconds.backward_s - seconds.backward_weight_s,
          work, seconds.backward_weight_s};
}

// With all ranks alike: what one has does not depend on the others.
void PlacedStages::FindPeaks() {
  peak_bytes_.assign(pp_, {});
  for (int64_t blocks = least_blocks_; blocks <= most_blocks_; ++blocks) {
    for (size_t stage = 0; stage < stages_.size(); ++stage) {
      const int64_t own =
          stages_[stage].chunk == 0 ? blocks - plan_.chunks_per_rank() + 1 : 1;
      plan_.mutable_stages(static_cast<int>(stage))
          ->set_blocks(static_cast<uint32_t>(own));
    }
    const PlanCosts costs = coster_.CostsOf(0);
    for (int32_t pp = 0; pp < pp_; ++pp) {
      int64_t peak = PeakLowerBound(plan_, costs, pp);
      // Buffers depend on how the blocks are cut into the rank's stages.
      if (plan_.chunks_per_rank() > 1) {
        peak -= costs.memory.ranks[pp].always.communication;
      }
      peak_bytes_[pp].push_back(peak);
    }
  }
}

int64_t PlacedStages::MostBlocksIn(int32_t pp, int64_t limit_bytes) const {
  int64_t blocks = most_blocks_;
  while (blocks >= least_blocks_ &&
         peak_bytes_[pp][blocks - least_blocks_] > limit_bytes) {
    --blocks;
  }
  return blocks;
}

void PlacedStages::Place(int32_t unit, int32_t node) {
  nodes_[unit] = static_cast<char>(node);
  // Any of the node's ranks: only nodes count.
  const auto tp = static_cast<int32_t>(plan_.grid().tp());
  for (int32_t i = 0; i < tp; ++i) {
    plan_.set_placement(unit * tp + i,
                        static_cast<uint32_t>(cluster_.nodes[node].first_rank));
  }
}

const PlacedReplica& PlacedStages::ReplicaAt(int32_t pp, int32_t replica) {
  const auto [found, is_new] = replicas_.try_emplace(
      nodes_.substr(pp * units_per_stage_ + replica * units_per_replica_,
                    units_per_replica_));
  if (is_new) {
    const ReplicaSeconds seconds = coster_.SecondsOfReplica(replica, pp);
    found->second = {.block = PassOf(seconds.block),
                     .embedding = PassOf(seconds.embedding),
                     .head = PassOf(seconds.head),
                     .slowest_node = seconds.slowest_node,
                     .whole = seconds.block};
  }
  return found->second;
}

const PlacedStage& PlacedStages::StageAt(int32_t pp) {
  if (pp_ == 1) return only_ = MakeStage(pp);
  const int kind = pp == 0 ? 0 : pp + 1 == pp_ ? 1 : 2;
  const auto [found, is_new] = placed_[kind].try_emplace(
      nodes_.substr(pp * units_per_stage_, units_per_stage_));
  if (is_new) found->second = MakeStage(pp);
  return found->second;
}

PlacedStage PlacedStages::MakeStage(int32_t pp) {
  const std::string nodes =
      nodes_.substr(pp * units_per_stage_, units_per_stage_);
  const auto [found, is_new] = rings_.try_emplace(nodes);
  if (is_new) found->second = coster_.RingsOfStage(pp);
  const StageRings& rings = found->second;
  PlacedStage stage;
  stage.latency_s = std::max(rings.reduction.network_latency_s,
                             rings.reduction.node_latency_s);
  stage.limit_bytes = std::numeric_limits<int64_t>::max();
  for (const char node : nodes) {
    stage.limit_bytes =
        std::min(stage.limit_bytes, node_limits_[static_cast<uint8_t>(node)]);
  }
  const bool has_embedding = stages_.front().rank == pp;
  const bool has_head = stages_.back().rank == pp;
  for (int32_t i = 0; i < units_per_stage_ / units_per_replica_; ++i) {
    PlacedReplica& replica = stage.replicas.emplace_back(ReplicaAt(pp, i));
    replica.block = PassOf(coster_.WithSharding(replica.whole, rings.shards));
    if (!has_embedding) replica.embedding = {};
    if (!has_head) replica.head = {};
  }
  AddEnds(pp, rings, stage);
  return stage;
}

StageEnd PlacedStages::EndOfStage(int32_t stage, int64_t blocks,
                                  const StageRings& rings) {
  plan_.mutable_stages(stage)->set_blocks(static_cast<uint32_t>(blocks));
  return coster_.EndOfStage(stage, rings);
}

PlacedStages::RankEnd PlacedStages::EndOfRank(
    const std::vector<int32_t>& stages, int64_t blocks,
    const StageRings& rings) {
  RankEnd end;
  if (stages.size() == 1) {
    const StageEnd stage = EndOfStage(stages.front(), blocks, rings);
    const auto buckets = static_cast<double>(stage.buckets);
    return {.buckets = stage.buckets,
            .bucket_reduce_s = stage.reduce_s,
            .reduce_s = buckets * stage.reduce_s,
            .gather_s = buckets * stage.gather_s,
            .parameters = stage.parameters};
  }
  // However its blocks are cut into the stages: bytes add up, and each stage
  // has a bucket.
  int64_t own = blocks - static_cast<int64_t>(stages.size()) + 1;
  for (const int32_t stage : stages) {
    const StageEnd whole = EndOfStage(stage, own, rings);
    const auto others = static_cast<double>(whole.buckets - 1);
    end.reduce_s +=
        whole.reduce_s + others * (whole.reduce_s - whole.reduce_latency_s);
    end.gather_s +=
        whole.gather_s + others * (whole.gather_s - whole.gather_latency_s);
    end.parameters += whole.parameters;
    own = 1;
  }
  return end;
}

void PlacedStages::AddEnds(int32_t pp, const StageRings& rings,
                           PlacedStage& placed) {
  std::vector<int32_t> own;
  for (int32_t stage = 0; stage < static_cast<int32_t>(stages_.size());
       ++stage) {
    if (stages_[stage].rank == pp) own.push_back(stage);
  }
  const bool one = own.size() == 1;
  const double n = plan_.microbatches();
  const size_t replicas = placed.replicas.size();
  placed.least_blocks = least_blocks_;
  placed.seconds.reserve(replicas * (most_blocks_ - least_blocks_ + 1));
  for (int64_t blocks = least_blocks_; blocks <= most_blocks_; ++blocks) {
    const RankEnd end = EndOfRank(own, blocks, rings);
    const auto count = static_cast<double>(blocks);
    for (const PlacedReplica& replica : placed.replicas) {
      const PassSeconds& block = replica.block;
      const double work = n * (count * block.work_s + replica.embedding.work_s +
                               replica.head.work_s);
      double last = block.last_s;
      double reduced = 0, tail = 0;
      if (one) {
        // The last bucket leaves after the last backward; the first after its
        // share of it.
        last = count * block.last_s + replica.embedding.last_s +
               replica.head.last_s;
        tail = std::max(end.bucket_reduce_s,
                        end.reduce_s - last * (1 - 1.0 / end.buckets));
        reduced = work + tail;
      } else {
        // Nothing is reduced before one of the stages is in its last backward.
        reduced = std::max(work, n * block.work_s - last + end.reduce_s);
      }
      PlacedStage::Seconds& seconds = placed.seconds.emplace_back();
      seconds.update_s = std::max(
          end.parameters * update_s_[replica.slowest_node], end.gather_s);
      seconds.busy_s = reduced + seconds.update_s;
      seconds.end_s = (halves_ ? last : 0) + tail;
    }
  }
  for (size_t i = placed.seconds.size() - replicas; i-- > 0;) {
    PlacedStage::Seconds& seconds = placed.seconds[i];
    const PlacedStage::Seconds& of_more = placed.seconds[i + replicas];
    seconds.busy_s = std::min(seconds.busy_s, of_more.busy_s);
    seconds.end_s = std::min(seconds.end_s, of_more.end_s);
    seconds.update_s = std::min(seconds.update_s, of_more.update_s);
  }
}

}  // namespace trireme
