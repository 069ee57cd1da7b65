#include "scheduler/planner/placement_filter.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "scheduler/planner/node_assignments.h"

namespace trireme {
namespace {

constexpr double kRounding = 1e-9;
// Of finding how few blocks a rank must have by how many the others can.
constexpr int kMostRounds = 4;
// Their numbers are bytes.
constexpr int32_t kMostNodes = 256;

double TripSeconds(const PassSeconds& pass) {
  return pass.forward_s + pass.input_s;
}

}  // namespace

bool CanFilterPlacements(const ClusterModel& cluster, const Plan& plan) {
  static constexpr std::array kKnown = {
      Plan::kVersionFieldNumber,
      Plan::kGridFieldNumber,
      Plan::kPlacementFieldNumber,
      Plan::kScheduleFieldNumber,
      Plan::kMicrobatchesFieldNumber,
      Plan::kMicrobatchSizeFieldNumber,
      Plan::kStagesFieldNumber,
      Plan::kRecomputeFieldNumber,
      Plan::kGradientBucketBytesFieldNumber,
      Plan::kPredictedFieldNumber,
      Plan::kChunksPerRankFieldNumber,
      Plan::kMicrobatchGroupFieldNumber,
      Plan::kSequenceParallelFieldNumber,
      Plan::kUlyssesFieldNumber,
      Plan::kShardingFieldNumber,
      Plan::kShardGroupFieldNumber,
      Plan::kBf16GradientMessagesFieldNumber,
      Plan::kRecomputeBlocksFieldNumber,
  };
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  plan.GetReflection()->ListFields(plan, &fields);
  return cluster.num_nodes() <= kMostNodes &&
         std::all_of(fields.begin(), fields.end(), [](const auto* field) {
           return std::find(kKnown.begin(), kKnown.end(), field->number()) !=
                  kKnown.end();
         });
}

PlacementFilter::PlacementFilter(const ModelShape& model,
                                 const ClusterModel& cluster, const Plan& plan,
                                 const RuntimeTraits& traits, double limit_s,
                                 RingsByNodes& rings)
    : limit_s_(limit_s * (1 + kRounding)),
      stages_(model, cluster, plan, traits, rings),
      schedule_(plan.schedule()),
      n_(plan.microbatches()),
      cp_(static_cast<int32_t>(plan.grid().cp())),
      dp_(static_cast<int32_t>(plan.grid().dp())),
      pp_(static_cast<int32_t>(plan.grid().pp())),
      layers_(model.layers),
      one_chunk_(plan.chunks_per_rank() == 1),
      message_bytes_(static_cast<double>(
          MessageBytes(model, SplitOf(plan), traits.scatter_messages))),
      full_(UnitsPerNode(cluster, static_cast<int32_t>(plan.grid().tp()))),
      log_ranks_(std::ceil(std::log2(
          static_cast<double>(std::max<int64_t>(1, cluster.num_ranks()))))),
      order_(cluster.num_nodes()),
      at_best_(order_.size()),
      ranks_(pp_),
      paths_(static_cast<size_t>(pp_ + 1) * dp_),
      prefixes_(pp_ + 1) {
  std::iota(order_.begin(), order_.end(), 0);
  std::sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
    return stages_.BlockOn(a).forward_s < stages_.BlockOn(b).forward_s;
  });
  for (size_t i = order_.size(); i-- > 0;) {
    at_best_[i] = stages_.BlockOn(order_[i]);
    if (i + 1 == order_.size()) continue;
    const PassSeconds& later = at_best_[i + 1];
    PassSeconds& best = at_best_[i];
    best.input_s = std::min(best.input_s, later.input_s);
    best.work_s = std::min(best.work_s, later.work_s);
    best.last_s = std::min(best.last_s, later.last_s);
  }
  for (Rank& rank : ranks_) rank.hops.resize(dp_);
  prefixes_[0].next_least = pp_ == 1 ? layers_ : stages_.least_blocks();
  prefixes_[0].next.resize(dp_);
}

bool PlacementFilter::Keeps(const std::vector<int32_t>& nodes) {
  const auto unit = static_cast<int32_t>(nodes.size()) - 1;
  stages_.Place(unit, nodes.back());
  if ((unit + 1) % cp_ != 0) return true;
  const int32_t pp = unit / (cp_ * dp_);
  const int32_t replica = unit / cp_ % dp_;
  if (!ReplicaMayFit(pp, replica)) return false;
  if (replica + 1 < dp_) return true;
  room_ = full_;
  for (const int32_t node : nodes) --room_[node];
  return RanksMayFit(pp + 1);
}

// Without what all replicas of its ranks do together.
bool PlacementFilter::ReplicaMayFit(int32_t pp, int32_t replica) {
  ++work_;
  const Prefix& prefix = prefixes_[pp];
  Path path = prefix.next[replica];
  if (pp > 0) {
    const Hop& hop = ranks_[pp - 1].hops[replica] = HopAbove(pp - 1, replica);
    path.forward_s += hop.up_s;
    path.backward_s += hop.down_s;
  }
  const PlacedReplica& cost = stages_.ReplicaAt(pp, replica);
  const auto blocks = static_cast<double>(prefix.next_least);
  double work_s = blocks * cost.block.work_s;
  double trip_s = blocks * TripSeconds(cost.block);
  if (pp == 0) {
    work_s += cost.embedding.work_s;
    trip_s += TripSeconds(cost.embedding);
  }
  if (pp == (schedule_ == Plan::ZB_V ? 0 : pp_ - 1)) {
    work_s += cost.head.work_s;
    trip_s += TripSeconds(cost.head);
  }
  return path.forward_s + std::max(n_ * work_s, n_ * trip_s + path.backward_s) +
             prefix.clip_s <=
         limit_s_;
}

PlacementFilter::Hop PlacementFilter::HopAbove(int32_t pp,
                                               int32_t replica) const {
  const LinkCost up = stages_.HopAt(replica, pp, pp + 1);
  const LinkCost down = stages_.HopAt(replica, pp + 1, pp);
  Hop hop;
  hop.link_up_s = message_bytes_ / up.bytes_per_s;
  hop.link_down_s = message_bytes_ / down.bytes_per_s;
  hop.up_s = hop.link_up_s + up.latency_s;
  hop.down_s = hop.link_down_s + down.latency_s;
  return hop;
}

bool PlacementFilter::RanksMayFit(int32_t placed) {
  work_ += placed * dp_;
  const int32_t last = placed - 1;
  ranks_[last].stage = &stages_.StageAt(last);
  const PlacedStage& stage = *ranks_[last].stage;
  const Prefix& before = prefixes_[last];
  Prefix& prefix = prefixes_[placed];
  prefix.clip_s = std::max(before.clip_s, 2 * stage.latency_s * log_ranks_);
  prefix.blocks = before.blocks;
  prefix.blocks.push_back(
      {before.next_least, stages_.MostBlocksIn(last, stage.limit_bytes)});
  bool tighter = true;
  for (int round = 0; tighter && round < kMostRounds; ++round) {
    FindPaths(prefix);
    if (!LimitBlocks(prefix, tighter)) return false;
  }
  if (tighter) FindPaths(prefix);
  for (int32_t replica = 0; replica < dp_ && one_chunk_; ++replica) {
    if (!MessagesFit(replica, prefix)) return false;
  }
  return true;
}

void PlacementFilter::FindPaths(Prefix& prefix) {
  const auto placed = static_cast<int32_t>(prefix.blocks.size());
  prefix.next.resize(dp_);
  for (int32_t replica = 0; replica < dp_; ++replica) {
    Path path;
    path.backward_s =
        ranks_[0].stage->Of(replica, prefix.blocks[0].least).end_s;
    for (int32_t pp = 0; pp < placed; ++pp) {
      paths_[static_cast<size_t>(pp) * dp_ + replica] = path;
      const PlacedReplica& cost = ranks_[pp].stage->replicas[replica];
      const auto blocks =
          one_chunk_ ? static_cast<double>(prefix.blocks[pp].least) : 1.0;
      path.forward_s += blocks * cost.block.forward_s;
      path.backward_s += blocks * cost.block.input_s;
      if (pp == 0) {
        path.forward_s += cost.embedding.forward_s;
        path.backward_s += cost.embedding.input_s;
      }
      if (pp + 1 == placed) break;
      path.forward_s += ranks_[pp].hops[replica].up_s;
      path.backward_s += ranks_[pp].hops[replica].down_s;
    }
    prefix.next[replica] = path;
  }
}

bool PlacementFilter::LimitBlocks(Prefix& prefix, bool& tighter) {
  const auto placed = static_cast<int32_t>(prefix.blocks.size());
  int64_t most = 0;
  for (int32_t pp = 0; pp < placed; ++pp) {
    if (!Limit(pp, prefix)) return false;
    most += prefix.blocks[pp].most;
  }
  int64_t slowest = 0;
  for (int32_t other = 0; other < pp_ - placed; ++other) {
    slowest = MostOfOther(other, prefix);
    if (slowest < stages_.least_blocks()) return false;
    most += slowest;
  }
  if (most < layers_) return false;
  // What the others cannot take.
  tighter = false;
  for (Blocks& blocks : prefix.blocks) {
    const int64_t least = layers_ - (most - blocks.most);
    if (least <= blocks.least) continue;
    blocks.least = least;
    tighter = true;
  }
  prefix.next_least =
      std::max(stages_.least_blocks(), layers_ - (most - slowest));
  return true;
}

bool PlacementFilter::Limit(int32_t pp, Prefix& prefix) const {
  const PlacedStage& stage = *ranks_[pp].stage;
  Blocks& blocks = prefix.blocks[pp];
  for (int32_t replica = 0; replica < dp_; ++replica) {
    const PlacedReplica& cost = stage.replicas[replica];
    const Path& path = PathOf(pp, replica);
    const double left_s = limit_s_ - prefix.clip_s - path.forward_s;
    const double block_s = n_ * TripSeconds(cost.block);
    const double others_s =
        n_ * (TripSeconds(cost.embedding) + TripSeconds(cost.head)) +
        path.backward_s;
    const auto fits = [&](int64_t count) {
      const PlacedStage::Seconds& seconds = stage.Of(replica, count);
      return seconds.busy_s <= left_s && static_cast<double>(count) * block_s +
                                                 others_s + seconds.update_s <=
                                             left_s;
    };
    while (blocks.most >= blocks.least && !fits(blocks.most)) --blocks.most;
  }
  return blocks.most >= blocks.least;
}

// At best each of the others has units on devices that are alike.
int64_t PlacementFilter::MostOfOther(int32_t other,
                                     const Prefix& prefix) const {
  int32_t units = (other + 1) * cp_ * dp_;
  size_t slowest = 0;
  while ((units -= room_[order_[slowest]]) > 0) ++slowest;
  const PassSeconds& block = at_best_[slowest];
  // The slowest one may be in any replica.
  double forward_s = std::numeric_limits<double>::infinity();
  double both_s = forward_s;
  for (const Path& path : prefix.next) {
    forward_s = std::min(forward_s, path.forward_s);
    both_s = std::min(both_s, path.forward_s + path.backward_s);
  }
  const double left_s = limit_s_ - prefix.clip_s;
  const double blocks = std::min((left_s - forward_s) / (n_ * block.work_s),
                                 (left_s - both_s) / (n_ * TripSeconds(block)));
  if (!(blocks > 0)) return 0;
  return blocks < static_cast<double>(stages_.most_blocks())
             ? static_cast<int64_t>(blocks)
             : stages_.most_blocks();
}

bool PlacementFilter::MessagesFit(int32_t replica, const Prefix& prefix) const {
  const auto placed = static_cast<int32_t>(prefix.blocks.size());
  int64_t most_below = 0;
  double update_s = 0;
  for (int32_t pp = 0; pp < placed; ++pp) {
    const Blocks& blocks = prefix.blocks[pp];
    most_below += blocks.most;
    update_s = std::max(update_s,
                        ranks_[pp].stage->Of(replica, blocks.least).update_s);
  }
  const double left_s = limit_s_ - prefix.clip_s - update_s;
  // Of a microbatch from a rank up to the last one and back: with as few blocks
  // as there must be, and those that there must be beyond them where they are
  // cheapest.
  double fewest_s = 0, trip_s = 0;
  double cheapest_s = std::numeric_limits<double>::infinity();
  int64_t least = pp_ - placed;
  if (least > 0) {
    size_t fastest = 0;
    while (room_[order_[fastest]] == 0) ++fastest;
    cheapest_s = TripSeconds(at_best_[fastest]);
    fewest_s = static_cast<double>(least) * cheapest_s;
  }
  for (int32_t pp = placed - 1; pp >= 0; --pp) {
    const Blocks& blocks = prefix.blocks[pp];
    const PlacedReplica& cost = ranks_[pp].stage->replicas[replica];
    const Path& path = PathOf(pp, replica);
    if (pp + 1 < placed) {
      const Hop& hop = ranks_[pp].hops[replica];
      // Where the link, not the ranks at its ends, sets the pace.
      const double end_s =
          PathOf(pp + 1, replica).forward_s + trip_s + hop.down_s +
          (n_ - 1) * std::max(hop.link_up_s, hop.link_down_s) +
          static_cast<double>(blocks.least) * cost.block.input_s +
          cost.embedding.input_s + path.backward_s;
      if (end_s > left_s) return false;
      fewest_s += hop.up_s + hop.down_s;
    }
    const double block_s = TripSeconds(cost.block);
    fewest_s += static_cast<double>(blocks.least) * block_s +
                TripSeconds(cost.embedding) + TripSeconds(cost.head);
    if (blocks.most > blocks.least) cheapest_s = std::min(cheapest_s, block_s);
    least += blocks.least;
    most_below -= blocks.most;
    const int64_t beyond = layers_ - most_below - least;
    trip_s =
        fewest_s + (beyond > 0 ? static_cast<double>(beyond) * cheapest_s : 0);
    if (schedule_ != Plan::ONE_F_ONE_B && schedule_ != Plan::ZB_H1) continue;
    // At most so many microbatches are between here and the last rank: the next
    // waits until one is back.
    const double trips = std::ceil(n_ / static_cast<double>(pp_ - pp));
    if (path.forward_s + trips * trip_s + path.backward_s > left_s) {
      return false;
    }
  }
  return true;
}

}  // namespace trireme
