// What the reduction of a plan's gradients and the gathers of its parameters
// take, and for how long they occupy the shared cards and links they pass.

#include <algorithm>
#include <map>
#include <vector>

#include "scheduler/costs/plan_costs.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {
namespace {

using BusySeconds = std::map<int32_t, double>;

void Add(const std::vector<Channel>& channels, double bytes,
         BusySeconds& busy_s) {
  for (const Channel& channel : channels) {
    busy_s[channel.number] += bytes * channel.s_per_byte;
  }
}

// A collective that was measured may take less than its links' figures give: it
// is not in the way for longer than it takes.
std::vector<ChannelTime> TimesOf(const BusySeconds& busy_s, double seconds) {
  std::vector<ChannelTime> times;
  for (const auto& [number, busy] : busy_s) {
    times.push_back({.number = number, .busy_s = std::min(busy, seconds)});
  }
  return times;
}

}  // namespace

PlanCoster::BucketBytes PlanCoster::BucketBytesOf(int64_t parameters_of_stage,
                                                  int32_t buckets) const {
  const auto parameters = static_cast<double>(parameters_of_stage);
  const auto count = static_cast<double>(buckets);
  const double gradient = plan_.bf16_gradient_messages()
                              ? 2.0
                              : static_cast<double>(model_.gradient_bytes);
  return {.gradients = parameters * gradient / count,
          .weights =
              parameters * static_cast<double>(model_.element_bytes) / count};
}

bool PlanCoster::SumsShardCopies() const {
  return plan_.sharding() != Plan::REPLICATED &&
         (plan_.shard_group() < plan_.grid().dp() || cp_ > 1);
}

PlanCoster::BucketSeconds PlanCoster::ReductionOf(
    const BucketBytes& bytes, const RingCost& reduction,
    const RingCost& shards) const {
  if (plan_.sharding() == Plan::REPLICATED) {
    return {.reduce_s = reduction.AllReduce(bytes.gradients)};
  }
  BucketSeconds seconds;
  // Those of PARAMETERS have been reduced inside each backward.
  if (!ShardsParameters()) {
    seconds.reduce_s = shards.ReduceScatter(bytes.gradients);
  }
  if (!ShardsParameters()) seconds.gather_s = shards.AllGather(bytes.weights);
  if (SumsShardCopies()) {
    seconds.reduce_s += reduction.AllReduce(
        bytes.gradients / static_cast<double>(plan_.shard_group()));
  }
  return seconds;
}

void PlanCoster::ChargeTravels(double travel_s, int32_t buckets,
                               ChunkCost& chunk, ChunkParts& parts) const {
  // The first has none before it: the waits of the others are shared out.
  const double exposed =
      std::max(0.0, travel_s - chunk.forward_s - chunk.backward_s) *
      (1 - 1.0 / plan_.microbatches());
  chunk.backward_s += exposed;
  if (ScheduleOf(plan_).splits_backward) chunk.backward_weight_s += exposed;
  parts.dp_s += exposed;
  // The last one's travel behind its own backward, which does not wait.
  chunk.reduce_s += exposed * (1 - 1.0 / buckets) / buckets;
}

void PlanCoster::ChargeReductions(int32_t stage, PlanCosts& costs) const {
  const auto [pp, index] = stages_[stage];
  ChunkCost& chunk = costs.cost.chunks[pp][index];
  const int32_t buckets = costs.buckets[stage];
  // Those of blocks that leave are summed then.
  const bool leave = plan_.has_offload() && model_.trained_leaves;
  int64_t of_experts = 0, before = 0;
  for (const StageBlocks& blocks : BlocksOf(stage)) {
    const int64_t count =
        leave ? StayingBlocks(before, blocks.count()) : blocks.count();
    of_experts += count * pieces_.blocks[blocks.kind].expert_parameters;
    before += blocks.count();
  }
  const int64_t parameters = StayingParameters(stage);
  const BucketBytes bytes = BucketBytesOf(parameters - of_experts, buckets);
  const BucketBytes expert_bytes = BucketBytesOf(of_experts, buckets);
  const StageRings& rings = (*rings_)[pp];
  const RingCost& expert_ring = rings.experts.slowest;
  BucketSeconds seconds =
      ReductionOf(bytes, rings.reduction.slowest, rings.shards.slowest);
  const bool experts_whole = ep_ > 1 || plan_.sharding() == Plan::REPLICATED;
  if (of_experts > 0 && experts_whole) {
    seconds.reduce_s += expert_ring.AllReduce(expert_bytes.gradients);
  } else if (of_experts > 0) {
    // Shards over dp, of which the ranks of tp hold copies, too.
    const BucketSeconds experts =
        ReductionOf(expert_bytes, expert_ring, rings.shards.slowest);
    seconds.reduce_s += experts.reduce_s;
    seconds.gather_s += experts.gather_s;
    if (tp_ > 1 && !SumsShardCopies()) {
      seconds.reduce_s += expert_ring.AllReduce(
          expert_bytes.gradients / static_cast<double>(plan_.shard_group()));
    }
  }
  chunk.reduce_s = seconds.reduce_s;
  chunk.gather_s = seconds.gather_s;
  // An all-reduce is a reduce-scatter and an all-gather.
  const std::vector<Channel>& all = rings.reduction.reduce_channels;
  BusySeconds reduce_busy_s, gather_busy_s;
  if (plan_.sharding() == Plan::REPLICATED) {
    Add(all, 2 * bytes.gradients, reduce_busy_s);
    Add(rings.experts.reduce_channels, 2 * expert_bytes.gradients,
        reduce_busy_s);
  } else {
    const BucketBytes shared =
        BucketBytesOf(Shardable(parameters, of_experts), buckets);
    if (!ShardsParameters()) {
      Add(rings.shards.reduce_channels, shared.gradients, reduce_busy_s);
      Add(rings.shards.gather_channels, shared.weights, gather_busy_s);
    }
    if (plan_.sharding() == Plan::GRADIENTS) {
      ChargeTravels(
          buckets * rings.shards.slowest.ReduceScatter(shared.gradients),
          buckets, chunk, costs.parts[pp][index]);
    }
    if (SumsShardCopies()) {
      Add(all, 2 * shared.gradients / static_cast<double>(plan_.shard_group()),
          reduce_busy_s);
    }
    if (ep_ > 1) {
      Add(rings.experts.reduce_channels, 2 * expert_bytes.gradients,
          reduce_busy_s);
    }
  }
  chunk.reduce_channels = TimesOf(reduce_busy_s, chunk.reduce_s);
  chunk.gather_channels = TimesOf(gather_busy_s, chunk.gather_s);
}

}  // namespace trireme
