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
// What element-wise backwards move relative to their forwards: norms and
// activation functions read two tensors and write one, sums only pass gradients
// on, a softmax reads two.
constexpr double kBackwardElementwise = 1.5;
// Reads and writes of the logits in the loss and its gradient, in fp32.
constexpr double kLogitPasses = 6;

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

double PlanCoster::SecondsOf(double flops, double bytes, int32_t node) const {
  const ClusterDevice& device = cluster_.DeviceOfNode(node);
  const double rate = model_.element_bytes == 2 ? device.achieved_bf16_flops
                                                : device.achieved_fp32_flops;
  return (flops / rate + bytes / device.memory_bytes_per_s) *
         cluster_.nodes[node].slowdown;
}

// Reads weight, gradient and state, writes weight and state.
double PlanCoster::UpdateSeconds(double parameters, int32_t node) const {
  const auto bytes =
      static_cast<double>(model_.element_bytes + model_.gradient_bytes +
                          2 * model_.optimizer_bytes);
  return SecondsOf(0, parameters * bytes, node);
}

DeviceArithmetic PlanCoster::ArithmeticOn(int32_t node) const {
  const double embedding = EmbeddingSeconds(node);
  const double head = HeadSeconds(node);
  const BlockTime block = ArithmeticOfBlock(node, /*recomputed=*/false);
  return {.embedding = {embedding, 2 * embedding, 0},
          .block = {block.forward_s, block.backward_s, block.backward_weight_s},
          .head = {head, 2 * head, 0},
          .update_s = UpdateSeconds(1, node)};
}

PlanCoster::BlockTime PlanCoster::ArithmeticOfBlock(int32_t node,
                                                    bool recomputed) const {
  const double share = static_cast<double>(split_.microbatch_size) /
                       static_cast<double>(split_.tp * split_.cp);
  const double moved = ElementwiseBytes(model_, split_);
  BlockTime time;
  time.forward_s = SecondsOf(BlockFlops(model_) * share, moved, node);
  time.backward_s = SecondsOf(2 * BlockFlops(model_) * share,
                              kBackwardElementwise * moved, node);
  time.backward_weight_s =
      SecondsOf((BlockFlops(model_) - AttentionFlops(model_)) * share, 0, node);
  for (const MeasuredBlock& block : model_.measured) {
    if (block.device == cluster_.DeviceOfNode(node).name &&
        block.tp == split_.tp && block.cp == split_.cp &&
        block.microbatch_size == split_.microbatch_size) {
      const double slowdown = cluster_.nodes[node].slowdown;
      time.forward_s = block.forward_s * slowdown;
      time.backward_s = block.backward_s * slowdown;
      time.backward_weight_s =
          (block.backward_weight_s > 0 ? block.backward_weight_s
                                       : block.backward_s / 2) *
          slowdown;
    }
  }
  if (plan_.recompute() == Plan::SELECTIVE) {
    // Norms and the activation function again: half of what a forward moves.
    time.parts.recompute_s = SecondsOf(0, moved / 2, node);
  } else if (recomputed) {
    time.parts.recompute_s = time.forward_s;
  }
  time.backward_s += time.parts.recompute_s;
  return time;
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

double PlanCoster::EmbeddingSeconds(int32_t node) const {
  const double share = static_cast<double>(split_.microbatch_size) /
                       static_cast<double>(split_.tp * split_.cp);
  return SecondsOf(model_.embedding_flops * share,
                   2.0 * static_cast<double>(BoundaryBytes(model_, split_)),
                   node);
}

double PlanCoster::HeadSeconds(int32_t node) const {
  const double share = static_cast<double>(split_.microbatch_size) /
                       static_cast<double>(split_.tp * split_.cp);
  const double logits = static_cast<double>(model_.tokens) *
                        static_cast<double>(model_.vocabulary);
  return SecondsOf(HeadFlops(model_) * share,
                   logits * share * kLogitPasses * 4 / 2 +
                       2.0 * static_cast<double>(BoundaryBytes(model_, split_)),
                   node);
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

LinkCost PlanCoster::HopOf(int32_t replica, int32_t from_pp,
                           int32_t to_pp) const {
  auto node_of = [&](int32_t i, int32_t pp) {
    return cluster_
        .node_of_rank[PhysicalRankOf(plan_, i + tp_ * cp_ * dp_ * pp)];
  };
  const int32_t first = tp_ * cp_ * replica;
  const int32_t end = first + tp_ * cp_;
  LinkCost slowest;
  for (int32_t i = first; i < end; ++i) {
    const int32_t from = node_of(i, from_pp);
    const int32_t to = node_of(i, to_pp);
    const ClusterLink& link = cluster_.LinkBetweenNodes(from, to);
    slowest.latency_s = std::max(slowest.latency_s, link.latency_s);
    // The replica's own ranks send together; with those of others they queue.
    int64_t flows = 1;
    for (int32_t other = first; other < end && from != to; ++other) {
      if (other != i && node_of(other, from_pp) == from &&
          node_of(other, to_pp) != from) {
        ++flows;
      }
    }
    const double rate = from == to ? link.bytes_per_s
                                   : cluster_.BytesPerSecond(from, to, flows);
    if (rate >= slowest.bytes_per_s) continue;
    slowest.bytes_per_s = rate;
    slowest.channels = {};
    if (from == to) continue;
    const auto together = static_cast<double>(flows);
    if (std::isfinite(link.shared_bytes_per_s)) {
      slowest.channels[0] = {.number = cluster_.num_nodes() * (from + 1) + to,
                             .s_per_byte = together / link.shared_bytes_per_s};
    }
    const double card = cluster_.nodes[from].card_bytes_per_s;
    if (std::isfinite(card)) {
      slowest.channels[1] = {.number = from, .s_per_byte = together / card};
    }
  }
  return slowest;
}

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
  if (ShardsParameters(plan_)) {
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

void PlanCoster::ChargeMessages(int32_t replica, PlanCosts& costs) const {
  CostModel& cost = costs.cost;
  // Each neighbour pair of pipeline ranks, both ways; a chunk's successor may
  // be on the rank itself.
  cost.links.resize(static_cast<size_t>(pp_) * pp_);
  BlockSplit whole = split_;
  whole.sequence_parallel = false;
  const bool scatters =
      traits_.scatter_messages && tp_ > 1 && !split_.sequence_parallel;
  auto chunk_of = [&](int32_t stage) {
    const auto [rank, chunk] = stages_[stage];
    return std::pair(&cost.chunks[rank][chunk], &costs.parts[rank][chunk]);
  };
  for (int32_t hop = 0; hop + 1 < static_cast<int32_t>(stages_.size()); ++hop) {
    const int32_t below = stages_[hop].rank;
    const int32_t above = stages_[hop + 1].rank;
    if (below == above) continue;
    for (const bool up : {true, false}) {
      const int32_t from = up ? below : above;
      const int32_t to = up ? above : below;
      LinkCost& link = cost.links[static_cast<size_t>(from) * pp_ + to];
      if (std::isinf(link.bytes_per_s)) link = HopOf(replica, from, to);
      if (scatters) {
        const auto [chunk, parts] = chunk_of(up ? hop + 1 : hop);
        const double seconds =
            TensorRing(replica, to)
                .AllGather(static_cast<double>(BoundaryBytes(model_, whole)));
        if (up) {
          chunk->forward_s += seconds;
        } else {
          chunk->backward_s += seconds;
          chunk->backward_input_s += seconds;
        }
        parts->tp_s += seconds;
      }
      if (traits_.blocking_messages) {
        const auto [chunk, parts] = chunk_of(up ? hop : hop + 1);
        const double seconds =
            link.latency_s + static_cast<double>(MessageBytes(
                                 model_, split_, traits_.scatter_messages)) /
                                 link.bytes_per_s;
        if (up) {
          chunk->forward_s += seconds;
        } else {
          chunk->backward_s += seconds;
          chunk->backward_input_s += seconds;
        }
        parts->pp_s += seconds;
      }
    }
  }
  if (!traits_.blocking_messages) return;
  // They arrive with the end of the chunk that sends them.
  cost.links.clear();
  for (std::vector<ChunkCost>& chunks : cost.chunks) {
    for (ChunkCost& chunk : chunks) chunk.message_bytes = 0;
  }
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
