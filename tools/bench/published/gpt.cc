#include "tools/bench/published/gpt.h"

#include <numeric>
#include <vector>

#include "scheduler/cluster/collectives.h"
#include "scheduler/pieces/transformer_pieces_testing.h"
#include "scheduler/schedules/schedule.h"

namespace trireme {
namespace {

// Reads and writes of the logits in the loss, in fp32; twice as many in its
// gradient.
constexpr double kLogitPasses = 3;

double LogitFlops(const Gpt& gpt) {
  return 2.0 * static_cast<double>(gpt.tokens) *
         static_cast<double>(gpt.hidden) * static_cast<double>(gpt.vocabulary);
}

// To a chunk's forward, and to its backward.
void AddSeconds(double forward_s, double backward_s, ChunkCost& chunk) {
  chunk.forward_s += forward_s;
  chunk.backward_s += backward_s;
  chunk.backward_input_s += backward_s;
}

// Masks of dropout, one byte an element, and scores: written, half of them
// (causal) through softmax, through dropout (with a mask), read.
double UnfusedBytes(const Gpt& gpt, const Plan& plan, int64_t element_bytes) {
  const auto rows =
      static_cast<double>(gpt.tokens * int64_t{plan.microbatch_size()});
  const double scores = rows * static_cast<double>(gpt.heads * gpt.tokens) /
                        static_cast<double>(plan.grid().tp());
  return 2 * rows * static_cast<double>(gpt.hidden) +
         6 * scores * static_cast<double>(element_bytes);
}

void ChargeUnfusedBlocks(const Gpt& gpt, const ClusterModel& cluster,
                         const Plan& plan, PlanCosts& costs) {
  const double once_s =
      UnfusedBytes(gpt, plan, GptShape(gpt, 1).element_bytes) /
      cluster.DeviceOfNode(0).memory_bytes_per_s;
  const double again_s = plan.recompute() == Plan::FULL ? once_s : 0;
  const std::vector<StageLocation> stages = StagesOf(plan);
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    const auto [rank, index] = stages[stage];
    const double blocks = plan.stages(static_cast<int>(stage)).blocks();
    // The backward reads two tensors where the forward read one.
    AddSeconds(blocks * once_s, blocks * (1.5 * once_s + again_s),
               costs.cost.chunks[rank][index]);
    costs.parts[rank][index].recompute_s += blocks * again_s;
  }
}

// Each message becomes part of the chunk that sends it, and its gathering part
// of the one that reads it.
void ChargeScatteredMessages(const Gpt& gpt, const ClusterModel& cluster,
                             const Plan& plan, PlanCosts& costs) {
  const int64_t tp = plan.grid().tp();
  const ModelShape shape = GptShape(gpt, plan.grid().pp());
  const int64_t row_bytes =
      plan.microbatch_size() * gpt.hidden * shape.element_bytes;
  double gather_s = 0;
  if (tp > 1) {
    std::vector<int32_t> group(tp);
    std::iota(group.begin(), group.end(), 0);
    gather_s = RingOf(cluster, group, cluster.nodes.front().count)
                   .AllGather(static_cast<double>(gpt.tokens * row_bytes));
  }
  const auto sent_bytes =
      static_cast<double>(CeilDivide(gpt.tokens, tp) * row_bytes);
  const std::vector<StageLocation> stages = StagesOf(plan);
  for (size_t hop = 0; hop + 1 < stages.size(); ++hop) {
    const auto [below, below_chunk] = stages[hop];
    const auto [above, above_chunk] = stages[hop + 1];
    if (below == above) continue;
    ChunkCost& lower = costs.cost.chunks[below][below_chunk];
    ChunkCost& upper = costs.cost.chunks[above][above_chunk];
    const size_t ranks = costs.cost.chunks.size();
    const auto seconds = [&](int32_t from, int32_t to) {
      const LinkCost& link = costs.cost.links[from * ranks + to];
      return link.latency_s + sent_bytes / link.bytes_per_s;
    };
    AddSeconds(seconds(below, above), gather_s, lower);
    AddSeconds(gather_s, seconds(above, below), upper);
    costs.parts[below][below_chunk].tp_s += gather_s;
    costs.parts[above][above_chunk].tp_s += gather_s;
  }
  costs.cost.links.clear();
  for (std::vector<ChunkCost>& chunks : costs.cost.chunks) {
    for (ChunkCost& chunk : chunks) chunk.message_bytes = 0;
  }
}

}  // namespace

ModelShape GptShape(const Gpt& gpt, int64_t pp) {
  ModelShape model;
  model.name = gpt.name;
  model.layers = gpt.layers;
  model.hidden = gpt.hidden;
  model.mlp_hidden = 4 * gpt.hidden;
  model.heads = gpt.heads;
  model.tokens = gpt.tokens;
  const int64_t table = gpt.vocabulary * gpt.hidden;
  model.pieces =
      PiecesByFormulas({.embedding_parameters = gpt.tokens * gpt.hidden + table,
                        .head_parameters = pp > 1 ? table : 0,
                        .head_flops = LogitFlops(gpt)});
  model.gradient_bytes = gpt.gradient_bytes;
  // Published runs did not overlap them.
  model.hides_collectives = false;
  return model;
}

void ChargeGpt(const Gpt& gpt, const ClusterModel& cluster, const Plan& plan,
               PlanCosts& costs) {
  const double logits = static_cast<double>(gpt.tokens * gpt.vocabulary) *
                        plan.microbatch_size() /
                        static_cast<double>(plan.grid().tp());
  const double logits_s =
      logits * kLogitPasses * 4 / cluster.DeviceOfNode(0).memory_bytes_per_s;
  const auto [rank, index] = StagesOf(plan).back();
  AddSeconds(logits_s, 2 * logits_s, costs.cost.chunks[rank][index]);
  if (!gpt.megatron_2021) return;
  ChargeUnfusedBlocks(gpt, cluster, plan, costs);
  ChargeScatteredMessages(gpt, cluster, plan, costs);
}

}  // namespace trireme
