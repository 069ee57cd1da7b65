#include "scheduler/planner/plan_costs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "runtime/core/log.h"
#include "scheduler/compile.h"
#include "scheduler/plan.h"
#include "scheduler/planner/collectives.h"

namespace trireme {
namespace {

// More would only slow the simulation down.
constexpr int64_t kMaxBuckets = 32;
int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool ShardsParameters(const Plan& plan) {
  return plan.sharding() == Plan::PARAMETERS;
}

// Whole gradients live for one backward only and are scattered after each.
bool ShardsGradients(const Plan& plan) {
  return plan.sharding() >= Plan::GRADIENTS;
}

// What a communication of `seconds` behind `hidden_behind` seconds of compute
// leaves to see.
double Exposed(double seconds, double hidden_behind) {
  return std::max(0.0, seconds - hidden_behind);
}

}  // namespace

PlanCoster::PlanCoster(const ModelShape& model, const ClusterModel& cluster,
                       const Plan& plan, const RuntimeTraits& traits,
                       std::shared_ptr<const PlanRings> rings)
    : model_(model),
      cluster_(cluster),
      plan_(plan),
      traits_(traits),
      split_(SplitOf(plan)),
      tp_(static_cast<int32_t>(plan.grid().tp())),
      cp_(static_cast<int32_t>(plan.grid().cp())),
      dp_(static_cast<int32_t>(plan.grid().dp())),
      pp_(static_cast<int32_t>(plan.grid().pp())),
      stages_(StagesOf(plan)),
      rings_(std::move(rings)) {
  CHECK_EQ(GridSize(plan.grid()), cluster.num_ranks());
  if (rings_ == nullptr) {
    rings_ = std::make_shared<const PlanRings>(MakeRings());
  }
}

PlanRings PlanCoster::MakeRings() const {
  PlanRings rings;
  std::vector<int64_t> flows(cluster_.num_nodes());
  for (int32_t pp = 0; pp < pp_; ++pp) {
    std::fill(flows.begin(), flows.end(), 0);
    int64_t limit = std::numeric_limits<int64_t>::max();
    for (int32_t i = 0; i < tp_ * cp_ * dp_; ++i) {
      const int32_t logical = i + tp_ * cp_ * dp_ * pp;
      const int32_t node =
          cluster_.node_of_rank[PhysicalRankOf(plan_, logical)];
      ++flows[node];
      limit = std::min(limit, cluster_.DeviceOfNode(node).memory_bytes);
    }
    rings.limit_bytes.push_back(limit);
    const int64_t most = *std::max_element(flows.begin(), flows.end());
    // Gradients are also summed over cp: one group of dp · cp.
    RingCost slowest, slowest_shard;
    for (int32_t tp = 0; tp < tp_; ++tp) {
      std::vector<int32_t> group;
      for (int32_t dp = 0; dp < dp_; ++dp) {
        for (int32_t cp = 0; cp < cp_; ++cp) {
          group.push_back(Physical(tp, cp, dp, pp));
        }
      }
      const RingCost ring = RingOf(cluster_, group, most);
      if (tp == 0 || ring.ReduceScatter(1e9) > slowest.ReduceScatter(1e9)) {
        slowest = ring;
      }
      // Shards are spread over dp alone; the ranks of cp hold copies.
      const auto shard = static_cast<int32_t>(plan_.shard_group());
      for (int32_t cp = 0; cp < cp_; ++cp) {
        for (int32_t first = 0; first < dp_; first += shard) {
          std::vector<int32_t> sharers;
          for (int32_t dp = first; dp < first + shard; ++dp) {
            sharers.push_back(Physical(tp, cp, dp, pp));
          }
          const RingCost part = RingOf(cluster_, sharers, most);
          if (part.ReduceScatter(1e9) > slowest_shard.ReduceScatter(1e9)) {
            slowest_shard = part;
          }
        }
      }
    }
    rings.reduction.push_back(slowest);
    rings.shards.push_back(slowest_shard);
  }
  return rings;
}

int32_t PlanCoster::Physical(int64_t tp, int64_t cp, int64_t dp,
                             int64_t pp) const {
  return static_cast<int32_t>(
      PhysicalRankOf(plan_, tp + tp_ * (cp + cp_ * (dp + dp_ * pp))));
}

RingCost PlanCoster::TensorRing(int32_t replica, int32_t pp) const {
  RingCost slowest;
  for (int32_t cp = 0; cp < cp_; ++cp) {
    std::vector<int32_t> group;
    for (int32_t tp = 0; tp < tp_; ++tp) {
      group.push_back(Physical(tp, cp, replica, pp));
    }
    const RingCost ring = RingOf(cluster_, group, cluster_.nodes.front().count);
    if (cp == 0 || ring.AllReduce(1e9) > slowest.AllReduce(1e9)) {
      slowest = ring;
    }
  }
  return slowest;
}

void PlanCoster::AddCommunication(int32_t replica, int32_t pp, bool recomputed,
                                  BlockTime& time) const {
  const double forwards = recomputed ? 2 : 1;
  BlockSplit whole = split_;
  whole.sequence_parallel = false;
  const auto boundary = static_cast<double>(BoundaryBytes(model_, whole));
  const double compute = time.forward_s;
  if (tp_ > 1) {
    // Two all-reduces forward, two backward; with sequence parallelism each is
    // a reduce-scatter and an all-gather, and backward gathers two inputs
    // again.
    double reduce = 0, gather = 0;
    for (int32_t cp = 0; cp < cp_; ++cp) {
      std::vector<int32_t> group;
      for (int32_t tp = 0; tp < tp_; ++tp) {
        group.push_back(Physical(tp, cp, replica, pp));
      }
      const RingCost ring = RingOf(cluster_, group, cluster_.nodes[0].count);
      reduce = std::max(reduce, ring.AllReduce(boundary));
      gather = std::max(gather, ring.AllGather(boundary));
    }
    const double forward = 2 * reduce;
    const double backward =
        2 * reduce + (split_.sequence_parallel ? 2 : 0) * gather;
    time.forward_s += forward;
    time.backward_s += backward + (forwards - 1) * forward;
    time.parts.tp_s += forwards * forward + backward;
  }
  if (cp_ > 1) {
    const auto tokens = boundary / static_cast<double>(tp_);
    const int32_t rings = cp_ / static_cast<int32_t>(split_.ulysses);
    double exchange = 0, step = 0;
    for (int32_t tp = 0; tp < tp_; ++tp) {
      std::vector<int32_t> group;
      for (int32_t cp = 0; cp < cp_; ++cp) {
        group.push_back(Physical(tp, cp, replica, pp));
      }
      const auto heads = group.begin() + static_cast<int64_t>(split_.ulysses);
      const RingCost inner =
          RingOf(cluster_, {group.begin(), heads}, cluster_.nodes[0].count);
      exchange = std::max(exchange, inner.AllToAll(tokens));
      if (rings > 1) {
        const RingCost ring = RingOf(cluster_, group, cluster_.nodes[0].count);
        step = std::max(step, ring.RingStep(2 * tokens));
      }
    }
    // Queries, keys, values and the output change hands; keys and values go
    // round behind attention, forward once and backward twice (with their
    // gradients, which go home in one step more).
    const double attention =
        compute * AttentionFlops(model_) / BlockFlops(model_);
    const double forward =
        4 * exchange + Exposed((rings - 1) * step, attention);
    const double backward = 4 * exchange + (rings > 1 ? step : 0) +
                            Exposed(2 * (rings - 1) * step, 2 * attention);
    time.forward_s += forward;
    time.backward_s += backward + (forwards - 1) * forward;
    time.parts.cp_s += forwards * forward + backward;
  }
  if (ShardsGradients(plan_)) {
    const RingCost& ring = rings_->shards[pp];
    const auto parameters =
        static_cast<double>(BlockParametersPerRank(model_, tp_));
    const double gather =
        ShardsParameters(plan_)
            ? ring.AllGather(parameters *
                             static_cast<double>(model_.element_bytes))
            : 0;
    const double scatter = ring.ReduceScatter(
        parameters * (plan_.bf16_gradient_messages() ? 2.0 : 4.0));
    const double forward = Exposed(gather, time.forward_s);
    const double backward = Exposed(gather + scatter, time.backward_s);
    time.forward_s += forward;
    time.backward_s += backward;
    time.parts.dp_s += forward + backward;
  }
}

PlanCoster::BlockTime PlanCoster::TimeOfBlock(int32_t replica, int32_t pp,
                                              bool recomputed) const {
  BlockTime slowest;
  int32_t last = -1;
  for (int32_t cp = 0; cp < cp_; ++cp) {
    for (int32_t tp = 0; tp < tp_; ++tp) {
      const int32_t node = cluster_.node_of_rank[Physical(tp, cp, replica, pp)];
      if (node == last) continue;
      last = node;
      const BlockTime time = ArithmeticOfBlock(node, recomputed);
      if (time.forward_s > slowest.forward_s) slowest = time;
    }
  }
  AddCommunication(replica, pp, recomputed, slowest);
  return slowest;
}

PartitionCosts PlanCoster::BlockTimes() const {
  PartitionCosts costs;
  int32_t slowest = 0;
  double largest = 0;
  for (int32_t node = 0; node < cluster_.num_nodes(); ++node) {
    const double seconds = ArithmeticOfBlock(node, false).forward_s;
    if (seconds > largest) {
      largest = seconds;
      slowest = node;
    }
  }
  const bool recomputed = plan_.recompute() == Plan::FULL;
  BlockTime block = ArithmeticOfBlock(slowest, recomputed);
  AddCommunication(0, 0, recomputed, block);
  costs.blocks.assign(model_.layers, block.forward_s + block.backward_s);
  costs.embedding = 3 * EmbeddingSeconds(slowest);
  costs.head = 3 * HeadSeconds(slowest);
  return costs;
}

PlanCosts PlanCoster::CostsOf(int32_t replica) const {
  PlanCosts result;
  const auto num_stages = static_cast<int32_t>(stages_.size());
  const bool reduces = dp_ * cp_ > 1;
  for (int32_t stage = 0; stage < num_stages; ++stage) {
    const auto bucket = static_cast<int64_t>(plan_.gradient_bucket_bytes());
    const int64_t wanted = CeilDivide(StageParameters(stage) * 4, bucket);
    result.buckets.push_back(
        reduces && traits_.overlap_gradients
            ? static_cast<int32_t>(std::clamp<int64_t>(wanted, 1, kMaxBuckets))
            : 1);
  }
  const int64_t group = plan_.shard_group();
  result.cost.chunks.resize(pp_);
  result.parts.resize(pp_);
  const bool full = plan_.recompute() == Plan::FULL;
  std::vector<BlockTime> kept, again;
  for (int32_t pp = 0; pp < pp_; ++pp) {
    kept.push_back(TimeOfBlock(replica, pp, false));
    again.push_back(full ? TimeOfBlock(replica, pp, true) : kept.back());
    result.cost.chunks[pp].resize(plan_.chunks_per_rank());
    result.parts[pp].resize(plan_.chunks_per_rank());
    result.memory.ranks.push_back(MemoryOf(pp, result.buckets));
  }
  for (int32_t stage = 0; stage < num_stages; ++stage) {
    const auto [pp, index] = stages_[stage];
    const int32_t node = cluster_.node_of_rank[Physical(0, 0, replica, pp)];
    ChunkCost& chunk = result.cost.chunks[pp][index];
    ChunkParts& parts = result.parts[pp][index];
    const int64_t blocks = plan_.stages(stage).blocks();
    int64_t recomputed = full ? blocks : 0;
    if (plan_.has_recompute_blocks()) {
      recomputed = std::min<int64_t>(recomputed, plan_.recompute_blocks());
    }
    for (const auto& [count, time] :
         {std::pair(static_cast<double>(recomputed), &again[pp]),
          std::pair(static_cast<double>(blocks - recomputed), &kept[pp])}) {
      chunk.forward_s += count * time->forward_s;
      chunk.backward_s += count * time->backward_s;
      chunk.backward_weight_s += count * time->backward_weight_s;
      parts.tp_s += count * time->parts.tp_s;
      parts.cp_s += count * time->parts.cp_s;
      parts.dp_s += count * time->parts.dp_s;
      parts.recompute_s += count * time->parts.recompute_s;
    }
    double ends = 0;
    if (stage == 0) ends += EmbeddingSeconds(node);
    if (stage == num_stages - 1) ends += HeadSeconds(node);
    chunk.forward_s += ends;
    chunk.backward_s += 2 * ends;
    chunk.backward_input_s = chunk.backward_s - chunk.backward_weight_s;
    chunk.message_bytes =
        MessageBytes(model_, split_, traits_.scatter_messages);

    const auto parameters = static_cast<double>(StageParameters(stage));
    const auto buckets = static_cast<double>(result.buckets[stage]);
    const double gradient_bytes =
        parameters *
        (plan_.bf16_gradient_messages()
             ? 2.0
             : static_cast<double>(model_.gradient_bytes)) /
        buckets;
    const double weight_bytes =
        parameters * static_cast<double>(model_.element_bytes) / buckets;
    const double sharded = static_cast<double>(group);
    const bool copies = plan_.shard_group() < plan_.grid().dp() || cp_ > 1;
    if (plan_.sharding() == Plan::REPLICATED) {
      chunk.reduce_s = rings_->reduction[pp].AllReduce(gradient_bytes);
    } else {
      // GRADIENTS and PARAMETERS have been reduced inside each backward.
      if (!ShardsGradients(plan_)) {
        chunk.reduce_s = rings_->shards[pp].ReduceScatter(gradient_bytes);
      }
      if (!ShardsParameters(plan_)) {
        chunk.gather_s = rings_->shards[pp].AllGather(weight_bytes);
      }
      if (copies) {
        // The copies of a shard are summed too.
        chunk.reduce_s +=
            rings_->reduction[pp].AllReduce(gradient_bytes / sharded);
      }
    }
    const double own =
        plan_.sharding() == Plan::REPLICATED ? 1.0 : 1.0 / sharded;
    chunk.update_s = UpdateSeconds(parameters * own / buckets, node);
  }
  ChargeMessages(replica, result);
  // A scalar's all-reduce by a tree.
  double latency = 0;
  for (const RingCost& ring : rings_->reduction) {
    latency = std::max({latency, ring.network_latency_s, ring.node_latency_s});
  }
  result.cost.clip_s = 2 * latency *
                       std::ceil(std::log2(static_cast<double>(
                           std::max<int64_t>(1, cluster_.num_ranks()))));
  return result;
}

}  // namespace trireme
