// What the reduction of a plan's gradients and the gathers of its parameters
// take, and for how long they occupy the shared cards and links they pass.

#include <algorithm>
#include <map>
#include <vector>

#include "scheduler/planner/plan_costs.h"

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

void PlanCoster::ChargeReductions(int32_t stage, PlanCosts& costs) const {
  const auto [pp, index] = stages_[stage];
  ChunkCost& chunk = costs.cost.chunks[pp][index];
  const auto parameters = static_cast<double>(StageParameters(stage));
  const auto buckets = static_cast<double>(costs.buckets[stage]);
  const double gradient_bytes =
      parameters *
      (plan_.bf16_gradient_messages()
           ? 2.0
           : static_cast<double>(model_.gradient_bytes)) /
      buckets;
  const double weight_bytes =
      parameters * static_cast<double>(model_.element_bytes) / buckets;
  // An all-reduce is a reduce-scatter and an all-gather.
  const std::vector<Channel>& all = rings_->reduction_channels[pp];
  const std::vector<Channel>& shards = rings_->shard_channels[pp];
  BusySeconds reduce_busy_s, gather_busy_s;
  if (plan_.sharding() == Plan::REPLICATED) {
    chunk.reduce_s = rings_->reduction[pp].AllReduce(gradient_bytes);
    Add(all, 2 * gradient_bytes, reduce_busy_s);
  } else {
    // GRADIENTS and PARAMETERS have been reduced inside each backward.
    if (!ShardsGradients()) {
      chunk.reduce_s = rings_->shards[pp].ReduceScatter(gradient_bytes);
      Add(shards, gradient_bytes, reduce_busy_s);
    }
    if (!ShardsParameters()) {
      chunk.gather_s = rings_->shards[pp].AllGather(weight_bytes);
      Add(shards, weight_bytes, gather_busy_s);
    }
    if (plan_.shard_group() < plan_.grid().dp() || cp_ > 1) {
      // The copies of a shard are summed too.
      const double shard_bytes =
          gradient_bytes / static_cast<double>(plan_.shard_group());
      chunk.reduce_s += rings_->reduction[pp].AllReduce(shard_bytes);
      Add(all, 2 * shard_bytes, reduce_busy_s);
    }
  }
  chunk.reduce_channels = TimesOf(reduce_busy_s, chunk.reduce_s);
  chunk.gather_channels = TimesOf(gather_busy_s, chunk.gather_s);
}

}  // namespace trireme
