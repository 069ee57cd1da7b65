// What arithmetic on a plan's ranks takes, without communication.

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "scheduler/costs/plan_costs.h"

namespace trireme {
namespace {

// What element-wise backwards move relative to their forwards: norms and
// activation functions read two tensors and write one, sums only pass gradients
// on, a softmax reads two.
constexpr double kBackwardElementwise = 1.5;

// Kernels of a block's forward that only read and write: two norms, two
// residual sums, an activation function, positions. Their bytes are taken to be
// alike.
constexpr int kBlockKernels = 6;
// Of the embedding's, and of the head's: conditioning, norm, loss.
constexpr int kEndKernels = 3;

// FLOPs of a block's matrix products on one rank: queries, keys and values in
// one, attention's output, and the MLP's two. Those of text are shared out
// among them.
std::array<double, 4> BlockProducts(const ModelShape& model,
                                    const BlockSplit& split) {
  const auto h = static_cast<double>(model.hidden);
  const auto m = static_cast<double>(model.mlp_hidden);
  const double all = ProductFlopsOnRank(model, split) / (4 * h + 2 * m);
  return {3 * h * all, h * all, m * all, m * all};
}

// How unlike two ways to divide a microbatch are: by how many doublings.
double Distance(const MeasuredPiece& measured, const BlockSplit& split) {
  auto doublings = [](int64_t a, int64_t b) {
    return std::abs(std::log2(static_cast<double>(a) / static_cast<double>(b)));
  };
  return doublings(measured.tp, split.tp) + doublings(measured.cp, split.cp) +
         doublings(measured.microbatch_size, split.microbatch_size) +
         (measured.sequence_parallel != split.sequence_parallel ? 0.5 : 0);
}

double Seconds(const MeasuredPiece& measured) {
  return measured.forward_s + measured.backward_s;
}

}  // namespace

// For each device and piece, from the measured split nearest to the plan's; for
// a device without a name, of the fastest device's.
PlanCoster::Corrections PlanCoster::MakeCorrections() const {
  if (model_.measured.empty()) return {};
  Corrections corrections(cluster_.devices.size());
  for (size_t device = 0; device < corrections.size(); ++device) {
    std::array<double, kNumModelPieces> distance;
    distance.fill(std::numeric_limits<double>::infinity());
    std::array<const MeasuredPiece*, kNumModelPieces> nearest{};
    for (const MeasuredPiece& measured : model_.measured) {
      const std::string& name = cluster_.devices[device].name;
      if (!name.empty() && measured.device != name) continue;
      const auto piece = static_cast<size_t>(measured.piece);
      const double away = Distance(measured, split_);
      if (away > distance[piece]) continue;
      if (away == distance[piece] &&
          Seconds(measured) >= Seconds(*nearest[piece])) {
        continue;
      }
      distance[piece] = away;
      nearest[piece] = &measured;
    }
    for (size_t piece = 0; piece < nearest.size(); ++piece) {
      if (nearest[piece] == nullptr) continue;
      const MeasuredPiece& measured = *nearest[piece];
      BlockSplit split = split_;
      split.tp = measured.tp;
      split.cp = measured.cp;
      split.microbatch_size = measured.microbatch_size;
      split.sequence_parallel = measured.sequence_parallel;
      const ArithmeticSeconds formula =
          FormulaOf(measured.piece, split, cluster_.devices[device]);
      corrections[device][piece] = MeasuredCorrection{
          .forward = measured.forward_s / formula.forward_s,
          .backward = measured.backward_s / formula.backward_s,
          .weight_share = measured.backward_weight_s / measured.backward_s};
    }
  }
  return corrections;
}

ArithmeticSeconds PlanCoster::FormulaOf(ModelPiece piece,
                                        const BlockSplit& split,
                                        const ClusterDevice& device) const {
  const auto elementwise_s = [&](int kernels, double bytes) {
    return kernels * device.ElementwiseSeconds(bytes / kernels);
  };
  if (piece == ModelPiece::kBlock) {
    const double moved = ElementwiseBytes(model_, split);
    double products_s = 0;
    for (const double flops : BlockProducts(model_, split)) {
      products_s += device.ProductSeconds(flops, model_.element_bytes);
    }
    const double attention = AttentionFlopsOnRank(model_, split);
    // A backward has two products for each of the forward's, as large.
    return {
        .forward_s = products_s +
                     device.AttentionSeconds(attention, model_.element_bytes) +
                     elementwise_s(kBlockKernels, moved),
        .backward_s =
            2 * products_s +
            device.AttentionSeconds(2 * attention, model_.element_bytes) +
            elementwise_s(kBlockKernels, kBackwardElementwise * moved),
        .backward_weight_s = products_s};
  }
  const double share = static_cast<double>(split.microbatch_size) /
                       static_cast<double>(split.tp * split.cp);
  const double boundary =
      2.0 * static_cast<double>(BoundaryBytes(model_, split));
  const double flops = piece == ModelPiece::kEmbedding ? model_.embedding_flops
                                                       : model_.head_flops;
  const double forward =
      device.ProductSeconds(flops * share, model_.element_bytes) +
      elementwise_s(kEndKernels, boundary);
  return {.forward_s = forward, .backward_s = 2 * forward};
}

ArithmeticSeconds PlanCoster::SecondsOf(ModelPiece piece, int32_t node) const {
  ArithmeticSeconds time =
      FormulaOf(piece, split_, cluster_.DeviceOfNode(node));
  const double slowdown = cluster_.nodes[node].slowdown;
  time.forward_s *= slowdown;
  time.backward_s *= slowdown;
  time.backward_weight_s *= slowdown;
  if (corrections_.empty()) return time;
  const std::optional<MeasuredCorrection>& correction =
      corrections_[cluster_.nodes[node].device][static_cast<size_t>(piece)];
  if (!correction.has_value()) return time;
  time.forward_s *= correction->forward;
  time.backward_s *= correction->backward;
  time.backward_weight_s = time.backward_s * correction->weight_share;
  return time;
}

// Reads weight, gradient and state, writes weight and state.
double PlanCoster::UpdateSeconds(double parameters, int32_t node) const {
  const auto bytes =
      static_cast<double>(model_.element_bytes + model_.gradient_bytes +
                          2 * model_.optimizer_bytes);
  return ElementwiseSeconds(parameters * bytes, node);
}

double PlanCoster::BucketUpdateSeconds(double parameters, int32_t node) const {
  return std::max(
      UpdateSeconds(parameters, node),
      cluster_.DeviceOfNode(node).launch_s * cluster_.nodes[node].slowdown);
}

double PlanCoster::ElementwiseSeconds(double bytes, int32_t node) const {
  return bytes / cluster_.DeviceOfNode(node).memory_bytes_per_s *
         cluster_.nodes[node].slowdown;
}

DeviceArithmetic PlanCoster::ArithmeticOn(int32_t node) const {
  const BlockTime block = ArithmeticOfBlock(node, /*recomputed=*/false);
  return {.embedding = SecondsOf(ModelPiece::kEmbedding, node),
          .block = {block.forward_s, block.backward_s, block.backward_weight_s},
          .head = SecondsOf(ModelPiece::kHead, node),
          .update_s = UpdateSeconds(1, node)};
}

PlanCoster::BlockTime PlanCoster::ArithmeticOfBlock(int32_t node,
                                                    bool recomputed) const {
  const ArithmeticSeconds seconds = SecondsOf(ModelPiece::kBlock, node);
  BlockTime time;
  time.forward_s = seconds.forward_s;
  time.backward_s = seconds.backward_s;
  time.backward_weight_s = seconds.backward_weight_s;
  if (plan_.recompute() == Plan::SELECTIVE) {
    // Norms and the activation function again: half of what a forward moves.
    time.parts.recompute_s =
        ElementwiseSeconds(ElementwiseBytes(model_, split_) / 2, node);
  } else if (recomputed) {
    time.parts.recompute_s = time.forward_s;
  }
  time.backward_s += time.parts.recompute_s;
  return time;
}

double PlanCoster::StageArithmetic(int32_t node, int32_t pp) const {
  const BlockTime kept = ArithmeticOfBlock(node, /*recomputed=*/false);
  const BlockTime again = ArithmeticOfBlock(node, /*recomputed=*/true);
  const auto whole = [&](ModelPiece piece) {
    const ArithmeticSeconds seconds = SecondsOf(piece, node);
    return seconds.forward_s + seconds.backward_s;
  };
  double seconds = 0;
  for (size_t stage = 0; stage < stages_.size(); ++stage) {
    if (stages_[stage].rank != pp) continue;
    const auto [recomputed, others] = BlocksOf(static_cast<int32_t>(stage));
    seconds += recomputed * (again.forward_s + again.backward_s) +
               others * (kept.forward_s + kept.backward_s);
    if (stage == 0) seconds += whole(ModelPiece::kEmbedding);
    if (stage + 1 == stages_.size()) seconds += whole(ModelPiece::kHead);
  }
  return seconds;
}

}  // namespace trireme
