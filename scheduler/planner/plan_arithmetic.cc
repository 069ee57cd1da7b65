// What arithmetic on a plan's ranks takes, without communication.

#include "scheduler/planner/plan_costs.h"

namespace trireme {
namespace {

// What element-wise backwards move relative to their forwards: norms and
// activation functions read two tensors and write one, sums only pass gradients
// on, a softmax reads two.
constexpr double kBackwardElementwise = 1.5;
// Reads and writes of the logits in the loss and its gradient, in fp32.
constexpr double kLogitPasses = 6;

}  // namespace

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
  const double moved = ElementwiseBytes(model_, split_);
  const double products = ProductFlopsOnRank(model_, split_);
  const double flops = products + AttentionFlopsOnRank(model_, split_);
  BlockTime time;
  time.forward_s = SecondsOf(flops, moved, node);
  time.backward_s = SecondsOf(2 * flops, kBackwardElementwise * moved, node);
  time.backward_weight_s = SecondsOf(products, 0, node);
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

double PlanCoster::StageArithmetic(int32_t node, int32_t pp) const {
  const BlockTime kept = ArithmeticOfBlock(node, /*recomputed=*/false);
  const BlockTime again = ArithmeticOfBlock(node, /*recomputed=*/true);
  double seconds = 0;
  for (size_t stage = 0; stage < stages_.size(); ++stage) {
    if (stages_[stage].rank != pp) continue;
    const auto [recomputed, others] = BlocksOf(static_cast<int32_t>(stage));
    seconds += recomputed * (again.forward_s + again.backward_s) +
               others * (kept.forward_s + kept.backward_s);
    if (stage == 0) seconds += 3 * EmbeddingSeconds(node);
    if (stage + 1 == stages_.size()) seconds += 3 * HeadSeconds(node);
  }
  return seconds;
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

}  // namespace trireme
