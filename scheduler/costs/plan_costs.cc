#include "scheduler/costs/plan_costs.h"

#include <algorithm>
#include <utility>

#include "runtime/core/log.h"
#include "scheduler/cluster/collectives.h"
#include "scheduler/pieces/model_shape.h"
#include "scheduler/plan/plan.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {
namespace {

// More would only slow the simulation down.
constexpr int64_t kMaxBuckets = 32;

// What a communication of `seconds` behind `hidden_behind` seconds of compute
// leaves to see.
double Exposed(double seconds, double hidden_behind) {
  return std::max(0.0, seconds - hidden_behind);
}

// Collectives of one pass that go one after the other behind products, for each
// of which something else waits in the end.
class BehindProducts {
 public:
  void Add(double times, double once, double behind) {
    all_ += times * once;
    exposed_ += times * Exposed(once, behind);
    longest_ = std::max(longest_, behind);
  }
  // Where the products take longer, what has too few behind it is seen; else
  // all but what the last one waited for.
  double exposed() const { return std::max(exposed_, all_ - longest_); }
  double hidden() const { return all_ - exposed(); }

 private:
  double all_ = 0, exposed_ = 0, longest_ = 0;
};

// Of the device that suffers most.
double BesideCommunication(const ClusterModel& cluster) {
  double factor = 1;
  for (const ClusterNode& node : cluster.nodes) {
    factor = std::max(
        factor, cluster.devices[node.device].compute_beside_communication);
  }
  return factor;
}

double SecondsOnce(const PieceCollective& collective, double bytes,
                   const BlockRings& rings) {
  const RingCost& ring = rings.Of(collective.group);
  using Kind = PieceCollective::Kind;
  static_assert(static_cast<size_t>(Kind::kRingStep) == kCollectiveKinds.size(),
                "the kinds before it are CollectiveKind's");
  if (collective.kind == Kind::kRingStep) return ring.RingStep(bytes);
  return ring.SecondsOf(static_cast<CollectiveKind>(collective.kind)).Of(bytes);
}

}  // namespace

int32_t BucketsOfGradients(const Plan& plan, int64_t gradient_bytes) {
  const auto bucket = static_cast<int64_t>(plan.gradient_bucket_bytes());
  return static_cast<int32_t>(
      std::clamp<int64_t>(CeilDivide(gradient_bytes, bucket), 1, kMaxBuckets));
}

Plan::MemoryBytes ToProto(const MemoryBytes& bytes) {
  Plan::MemoryBytes proto;
  proto.set_parameters(bytes.parameters);
  proto.set_gradients(bytes.gradients);
  proto.set_optimizer(bytes.optimizer);
  proto.set_activations(bytes.activations);
  proto.set_communication(bytes.communication);
  proto.set_workspace(bytes.workspace);
  return proto;
}

PlanCoster::PlanCoster(const ModelShape& model, const ClusterModel& cluster,
                       const Plan& plan, std::shared_ptr<const PlanRings> rings)
    : model_(model),
      cluster_(cluster),
      plan_(plan),
      split_(SplitOf(plan)),
      tp_(static_cast<int32_t>(plan.grid().tp())),
      cp_(static_cast<int32_t>(plan.grid().cp())),
      dp_(static_cast<int32_t>(plan.grid().dp())),
      pp_(static_cast<int32_t>(plan.grid().pp())),
      ep_(static_cast<int32_t>(split_.ep)),
      stages_(StagesOf(plan)),
      pieces_(PiecesOf(model, split_, plan.recompute(),
                       ScheduleOf(plan).splits_backward)),
      pieces_kept_(plan.recompute() != Plan::NONE
                       ? PiecesOf(model, split_, Plan::NONE,
                                  ScheduleOf(plan).splits_backward)
                       : pieces_),
      seconds_(TimePieces()),
      beside_communication_(BesideCommunication(cluster)),
      rings_(std::move(rings)) {
  CHECK_EQ(GridSize(plan.grid()), cluster.num_ranks());
  if (rings_ == nullptr) {
    rings_ = std::make_shared<const PlanRings>(MakeRings());
  }
}

void PlanCoster::AddCollectives(const PieceFigures& piece,
                                const BlockRings& rings, bool recomputed,
                                BlockTime& time) const {
  using Behind = PieceCollective::Behind;
  if (piece.collectives.empty()) return;
  const bool puts_off = ScheduleOf(plan_).splits_backward;
  const double attention_flops = AttentionFlops(piece.kernels.forward);
  const double attention_s = attention_flops == 0
                                 ? 0
                                 : time.forward_s * attention_flops /
                                       ProductFlops(piece.kernels.forward);
  const double weights_s = time.backward_weight_s;
  // Behind attention, which hides what it takes.
  double forward_ring_s = 0, backward_ring_s = 0;
  const double products_s = time.forward_s;
  const bool in_chunks = split_.row_chunks > 1 && model_.hides_collectives;
  BehindProducts forward_rows, backward_rows;
  for (const PieceCollective& collective : piece.collectives) {
    const double once =
        SecondsOnce(collective, static_cast<double>(collective.bytes), rings);
    double forward = collective.forward * once;
    double backward = collective.backward * once;
    if (collective.behind == Behind::kAttention && model_.hides_collectives) {
      forward_ring_s += forward;
      backward_ring_s += backward;
      continue;
    }
    if (collective.group == PieceCollective::Group::kExperts && in_chunks) {
      const double behind = collective.product_share * products_s;
      forward_rows.Add(collective.forward, once, behind);
      backward_rows.Add(collective.backward, once, behind);
      continue;
    }
    if (collective.behind == Behind::kProduct && model_.hides_collectives &&
        !puts_off) {
      const double hidden_s =
          std::min(once, weights_s * collective.product_share);
      backward = collective.backward *
                 (once - hidden_s + (beside_communication_ - 1) * hidden_s);
    }
    if (puts_off && collective.for_weight_gradient) {
      time.backward_weight_s += backward;
    }
    if (recomputed) backward += forward;
    time.forward_s += forward;
    time.backward_s += backward;
    double* cause = &time.parts.ep_s;
    switch (collective.group) {
      case PieceCollective::Group::kTensor:
        cause = &time.parts.tp_s;
        time.parts.tp_latency_s +=
            ((recomputed ? 2 : 1) * collective.forward + collective.backward) *
            SecondsOnce(collective, 0, rings);
        break;
      case PieceCollective::Group::kContext:
      case PieceCollective::Group::kHeads:
      case PieceCollective::Group::kRing:
        cause = &time.parts.cp_s;
        break;
      default:
        break;
    }
    *cause += forward + backward;
  }
  const auto add_rows = [&](const BehindProducts& rows, double& seconds) {
    const double added =
        rows.exposed() + (beside_communication_ - 1) * rows.hidden();
    seconds += added;
    time.parts.ep_s += added;
  };
  add_rows(forward_rows, time.forward_s);
  add_rows(backward_rows, time.backward_s);
  if (recomputed) add_rows(forward_rows, time.backward_s);
  const double forward = Exposed(forward_ring_s, attention_s);
  const double backward =
      Exposed(backward_ring_s, 2 * attention_s) + (recomputed ? forward : 0);
  time.forward_s += forward;
  time.backward_s += backward;
  time.parts.cp_s += forward + backward;
}

void PlanCoster::AddSharding(const PieceFigures& piece, const RingCost& ring,
                             BlockTime& time) const {
  // Offloaded blocks are gathered as they come.
  if (!ShardsParameters() || (plan_.has_offload() && model_.trained_leaves)) {
    return;
  }
  const auto parameters =
      static_cast<double>(Shardable(piece.parameters, piece.expert_parameters));
  const double gather =
      ring.AllGather(parameters * static_cast<double>(model_.element_bytes));
  const double scatter = ring.ReduceScatter(
      parameters * (plan_.bf16_gradient_messages()
                        ? 2.0
                        : static_cast<double>(model_.gradient_bytes)));
  const double forward = Exposed(gather, time.forward_s);
  const double backward = Exposed(gather + scatter, time.backward_s);
  time.forward_s += forward;
  time.backward_s += backward;
  time.parts.dp_s += forward + backward;
}

int32_t PlanCoster::SlowestNode(int32_t replica, int32_t pp) const {
  int32_t slowest = -1, last = -1;
  double largest = 0;
  for (int32_t cp = 0; cp < cp_; ++cp) {
    for (int32_t tp = 0; tp < tp_; ++tp) {
      const int32_t node = cluster_.node_of_rank[Physical(tp, cp, replica, pp)];
      if (node == last) continue;
      last = node;
      const double seconds = ArithmeticOfModel(node, false);
      if (slowest < 0 || seconds > largest) {
        slowest = node;
        largest = seconds;
      }
    }
  }
  return slowest;
}

PlanCoster::BlockTime PlanCoster::TimeOfBlock(int32_t replica, int32_t pp,
                                              int32_t kind, bool recomputed,
                                              const BlockRings& rings) const {
  BlockTime time =
      ArithmeticOfBlock(SlowestNode(replica, pp), kind, recomputed);
  AddCollectives(pieces_.blocks[kind], rings, recomputed, time);
  AddSharding(pieces_.blocks[kind], (*rings_)[pp].shards.slowest, time);
  return time;
}

std::vector<PlanCoster::StageBlocks> PlanCoster::Divide(int32_t stage,
                                                        int64_t first) const {
  int64_t begin = 0;
  for (int32_t before = 0; before < stage; ++before) {
    begin += plan_.stages(before).blocks();
  }
  std::vector<StageBlocks> blocks;
  for (const BlockRun& run :
       BlockRunsIn(model_, begin, begin + plan_.stages(stage).blocks())) {
    const int64_t again = std::min(first, run.count);
    first -= again;
    blocks.push_back(
        {.kind = run.kind, .again = again, .kept = run.count - again});
  }
  return blocks;
}

std::vector<PlanCoster::StageBlocks> PlanCoster::BlocksOf(int32_t stage) const {
  if (plan_.recompute() != Plan::FULL) return Divide(stage, 0);
  return DroppingBlocksOf(stage);
}

PartitionCosts PlanCoster::PartsToCut() const {
  const bool recomputed = plan_.recompute() == Plan::FULL;
  std::vector<double> arithmetic(cluster_.num_nodes());
  bool alike = true;
  for (int32_t node = 0; node < cluster_.num_nodes(); ++node) {
    arithmetic[node] = ArithmeticOfModel(node, recomputed);
    alike = alike && arithmetic[node] == arithmetic[0];
  }
  // The slowest node of each pipeline rank.
  std::vector<int32_t> slowest(pp_, 0);
  for (int32_t logical = 0; logical < tp_ * cp_ * dp_ * pp_ && !alike;
       ++logical) {
    const int32_t pp = logical / (tp_ * cp_ * dp_);
    const int32_t node = cluster_.node_of_rank[PhysicalRankOf(plan_, logical)];
    if (logical % (tp_ * cp_ * dp_) == 0 ||
        arithmetic[node] > arithmetic[slowest[pp]]) {
      slowest[pp] = node;
    }
  }
  const BlockRings rings = RingsOf(0, 0);
  const std::vector<BlockRun> runs = BlockRunsOf(model_);
  // Of each pipeline rank, by kind, and of all of the model's blocks.
  std::vector<std::vector<double>> blocks;
  std::vector<double> all;
  int32_t fastest = 0;
  for (int32_t pp = 0; pp < (alike ? 1 : pp_); ++pp) {
    blocks.emplace_back();
    for (size_t kind = 0; kind < pieces_.blocks.size(); ++kind) {
      BlockTime block = ArithmeticOfBlock(
          slowest[pp], static_cast<int32_t>(kind), recomputed);
      AddCollectives(pieces_.blocks[kind], rings, recomputed, block);
      AddSharding(pieces_.blocks[kind], (*rings_)[pp].shards.slowest, block);
      blocks[pp].push_back(block.forward_s + block.backward_s);
    }
    all.push_back(0);
    for (const BlockRun& run : runs) {
      all[pp] += static_cast<double>(run.count) * blocks[pp][run.kind];
    }
    if (all[pp] < all[fastest]) fastest = pp;
  }
  PartitionCosts costs;
  for (const BlockRun& run : runs) {
    costs.blocks.insert(costs.blocks.end(), run.count,
                        blocks[fastest][run.kind]);
  }
  const auto whole = [&](const ModelPiece& piece) {
    const ArithmeticSeconds seconds = SecondsOf(piece, slowest[fastest]);
    return seconds.forward_s + seconds.backward_s;
  };
  costs.embedding = whole(ModelPiece::kEmbedding);
  costs.head = whole(ModelPiece::kHead);
  for (size_t pp = 0; pp < all.size() && !alike; ++pp) {
    costs.slowness.push_back(all[pp] / all[fastest]);
  }
  return costs;
}

int32_t PlanCoster::BucketsOf(int32_t stage) const {
  if (plan_.has_offload()) {
    return static_cast<int32_t>(plan_.stages(stage).blocks());
  }
  if (dp_ * cp_ == 1) return 1;
  return BucketsOfGradients(plan_, StageParameters(stage) * 4);
}

double PlanCoster::OwnParameters(int32_t stage) const {
  const auto sharers = static_cast<double>(
      plan_.sharding() == Plan::REPLICATED ? 1 : plan_.shard_group());
  const int64_t all = StageParameters(stage);
  const int64_t shared = Shardable(all, StageExpertParameters(stage));
  return static_cast<double>(shared) / sharers +
         static_cast<double>(all - shared);
}

PlanCosts PlanCoster::CostsOf(int32_t replica) const {
  PlanCosts result;
  const auto num_stages = static_cast<int32_t>(stages_.size());
  for (int32_t stage = 0; stage < num_stages; ++stage) {
    result.buckets.push_back(BucketsOf(stage));
  }
  result.cost.chunks.resize(pp_);
  result.parts.resize(pp_);
  std::vector<BlockTimes> blocks(pp_);
  std::vector<BlockRings> rings;
  for (int32_t pp = 0; pp < pp_; ++pp) {
    rings.push_back(RingsOf(replica, pp));
    for (size_t i = 0; i < pieces_.blocks.size(); ++i) {
      const auto kind = static_cast<int32_t>(i);
      blocks[pp].kept.push_back(
          TimeOfBlock(replica, pp, kind, false, rings[pp]));
      blocks[pp].again.push_back(
          plan_.recompute() == Plan::FULL
              ? TimeOfBlock(replica, pp, kind, true, rings[pp])
              : blocks[pp].kept.back());
    }
    result.cost.chunks[pp].resize(plan_.chunks_per_rank());
    result.parts[pp].resize(plan_.chunks_per_rank());
    result.memory.ranks.push_back(MemoryOf(pp, result.buckets));
    result.reduction_bytes.push_back(ReductionBytes(pp));
  }
  std::vector<StageTimes> stage_times(num_stages);
  for (int32_t stage = 0; stage < num_stages; ++stage) {
    const auto [pp, index] = stages_[stage];
    const int32_t node = SlowestNode(replica, pp);
    ChunkCost& chunk = result.cost.chunks[pp][index];
    ChunkParts& parts = result.parts[pp][index];
    const auto add = [&](int64_t times, const BlockTime& time) {
      const auto count = static_cast<double>(times);
      chunk.forward_s += count * time.forward_s;
      chunk.backward_s += count * time.backward_s;
      chunk.backward_weight_s += count * time.backward_weight_s;
      parts.tp_s += count * time.parts.tp_s;
      parts.tp_latency_s += count * time.parts.tp_latency_s;
      parts.cp_s += count * time.parts.cp_s;
      parts.ep_s += count * time.parts.ep_s;
      parts.dp_s += count * time.parts.dp_s;
      parts.recompute_s += count * time.parts.recompute_s;
    };
    for (const StageBlocks& of_stage : BlocksOf(stage)) {
      add(of_stage.again, blocks[pp].again[of_stage.kind]);
      add(of_stage.kept, blocks[pp].kept[of_stage.kind]);
    }
    const auto add_end = [&](const ModelPiece& piece) {
      const ArithmeticSeconds seconds = SecondsOf(piece, node);
      BlockTime end;
      end.forward_s = seconds.forward_s;
      end.backward_s = seconds.backward_s;
      end.backward_weight_s = seconds.backward_weight_s;
      AddCollectives(FiguresOf(pieces_, piece), rings[pp],
                     /*recomputed=*/false, end);
      add(1, end);
      return end;
    };
    stage_times[stage].blocks = &blocks[pp];
    if (stage == 0) {
      stage_times[stage].embedding = add_end(ModelPiece::kEmbedding);
    }
    if (stage == num_stages - 1) {
      stage_times[stage].head = add_end(ModelPiece::kHead);
    }
    chunk.backward_input_s = chunk.backward_s - chunk.backward_weight_s;
    chunk.message_bytes = ReceivedBytes(std::min(stage + 1, num_stages - 1));

    ChargeReductions(stage, result);
    chunk.update_s = BucketUpdateSeconds(
        OwnParameters(stage) / static_cast<double>(result.buckets[stage]),
        node);
  }
  ChargeMessages(replica, result);
  if (plan_.has_offload()) {
    result.host_bytes.assign(pp_, 0);
    result.drive_bytes.assign(pp_, 0);
    for (int32_t stage = 0; stage < num_stages; ++stage) {
      DivideIntoUnits(replica, stage, stage_times[stage], result);
    }
  }
  result.cost.compute_beside_communication = beside_communication_;
  for (const ClusterNode& node : cluster_.nodes) {
    result.cost.compute_beside_copies =
        std::max(result.cost.compute_beside_copies,
                 cluster_.devices[node.device].compute_beside_copies);
  }
  result.cost.clip_s = ClipSeconds(cluster_);
  return result;
}

}  // namespace trireme
