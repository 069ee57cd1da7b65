// What arithmetic on a plan's ranks takes, without communication.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "scheduler/costs/plan_costs.h"
#include "scheduler/pieces/model_shape.h"

namespace trireme {
namespace {

constexpr int64_t kFloat8Bytes = 1;

double SecondsOf(const std::vector<PieceKernel>& kernels,
                 const ClusterDevice& device, int64_t element_bytes) {
  double seconds = 0;
  for (const PieceKernel& kernel : kernels) {
    double once = 0;
    switch (kernel.kind) {
      case PieceKernel::Kind::kProduct:
        once = std::max(device.ProductSeconds(kernel.flops, element_bytes),
                        kernel.bytes / device.memory_bytes_per_s);
        break;
      case PieceKernel::Kind::kFloat8Product:
        once = std::max(device.ProductSeconds(kernel.flops, kFloat8Bytes),
                        kernel.bytes / device.memory_bytes_per_s);
        break;
      case PieceKernel::Kind::kAttention:
        once = device.AttentionSeconds(kernel.flops, element_bytes);
        break;
      case PieceKernel::Kind::kElementwise:
        once = device.ElementwiseSeconds(kernel.bytes);
    }
    seconds += kernel.count * once;
  }
  return seconds;
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

// By the kernels and the device's rates.
ArithmeticSeconds PlanCoster::ByKernels(const PieceKernels& kernels,
                                        const ClusterDevice& device) const {
  const double weight_s =
      trireme::SecondsOf(kernels.backward_weight, device, model_.element_bytes);
  return {.forward_s =
              trireme::SecondsOf(kernels.forward, device, model_.element_bytes),
          .backward_s = trireme::SecondsOf(kernels.backward_input, device,
                                           model_.element_bytes) +
                        weight_s,
          .backward_weight_s = weight_s};
}

// Times of a piece are scaled as those are of the measured split nearest to the
// plan's; a device without a name takes the fastest device's.
const MeasuredPiece* PlanCoster::NearestMeasured(
    const ModelPiece& piece, const ClusterDevice& device) const {
  double distance = std::numeric_limits<double>::infinity();
  const MeasuredPiece* nearest = nullptr;
  for (const MeasuredPiece& measured : model_.measured) {
    if (measured.piece != piece) continue;
    if (!device.name.empty() && measured.device != device.name) continue;
    const double away = Distance(measured, split_);
    if (away > distance ||
        (away == distance && Seconds(measured) >= Seconds(*nearest))) {
      continue;
    }
    distance = away;
    nearest = &measured;
  }
  return nearest;
}

std::vector<std::vector<ArithmeticSeconds>> PlanCoster::TimePieces() const {
  const std::vector<ModelPiece> pieces = PiecesIn(model_);
  std::vector<std::vector<ArithmeticSeconds>> seconds;
  for (const ClusterDevice& device : cluster_.devices) {
    seconds.emplace_back();
    for (const ModelPiece& piece : pieces) {
      const PieceKernels& kernels = FiguresOf(pieces_kept_, piece).kernels;
      ArithmeticSeconds time = ByKernels(kernels, device);
      if (plan_.recompute() != Plan::NONE) {
        const ArithmeticSeconds whole =
            ByKernels(FiguresOf(pieces_, piece).kernels, device);
        time.again_s = std::max(0.0, whole.backward_s - time.backward_s);
      }
      if (const MeasuredPiece* measured = NearestMeasured(piece, device)) {
        BlockSplit split = split_;
        split.tp = measured->tp;
        split.cp = measured->cp;
        split.ulysses = 1;
        split.microbatch_size = measured->microbatch_size;
        split.sequence_parallel = measured->sequence_parallel;
        const ModelPieces of_split = PiecesOf(model_, split, Plan::NONE,
                                              /*deferred=*/false);
        const ArithmeticSeconds expected =
            ByKernels(FiguresOf(of_split, piece).kernels, device);
        const double forward = measured->forward_s / expected.forward_s;
        time.forward_s *= forward;
        time.again_s *= forward;
        time.backward_s *= measured->backward_s / expected.backward_s;
        time.backward_weight_s = time.backward_s * measured->backward_weight_s /
                                 measured->backward_s;
      }
      seconds.back().push_back(time);
    }
  }
  return seconds;
}

ArithmeticSeconds PlanCoster::SecondsOf(const ModelPiece& piece,
                                        int32_t node) const {
  ArithmeticSeconds time = seconds_[cluster_.nodes[node].device][piece.index()];
  const double slowdown = cluster_.nodes[node].slowdown;
  time.forward_s *= slowdown;
  time.backward_s *= slowdown;
  time.backward_weight_s *= slowdown;
  time.again_s *= slowdown;
  return time;
}

double PlanCoster::UpdatedBytes() const {
  const int64_t passes_of_weight = model_.element_bytes > 2 ? 2 : 1;
  return static_cast<double>(passes_of_weight * model_.element_bytes +
                             model_.gradient_bytes +
                             2 * model_.optimizer_bytes);
}

double PlanCoster::UpdateSeconds(double parameters, int32_t node) const {
  return ElementwiseSeconds(parameters * UpdatedBytes(), node);
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
  DeviceArithmetic arithmetic;
  for (const ModelPiece& piece : PiecesIn(model_)) {
    arithmetic.pieces.push_back(SecondsOf(piece, node));
    if (plan_.recompute() == Plan::SELECTIVE) {
      arithmetic.pieces.back().backward_s += arithmetic.pieces.back().again_s;
    }
  }
  arithmetic.update_s = UpdateSeconds(1, node);
  return arithmetic;
}

PlanCoster::BlockTime PlanCoster::ArithmeticOfBlock(int32_t node, int32_t kind,
                                                    bool recomputed) const {
  const ArithmeticSeconds seconds = SecondsOf({ModelPiece::kBlock, kind}, node);
  BlockTime time;
  time.forward_s = seconds.forward_s;
  time.backward_s = seconds.backward_s;
  time.backward_weight_s = seconds.backward_weight_s;
  if (recomputed || plan_.recompute() == Plan::SELECTIVE) {
    time.parts.recompute_s = seconds.again_s;
    time.backward_s += seconds.again_s;
  }
  return time;
}

double PlanCoster::ArithmeticOfModel(int32_t node, bool recomputed) const {
  double seconds = 0;
  for (const BlockRun& run : BlockRunsOf(model_)) {
    const BlockTime time = ArithmeticOfBlock(node, run.kind, recomputed);
    seconds +=
        static_cast<double>(run.count) * (time.forward_s + time.backward_s);
  }
  return seconds;
}

double PlanCoster::StageArithmetic(int32_t node, int32_t pp) const {
  const auto whole = [&](const ModelPiece& piece) {
    const ArithmeticSeconds seconds = SecondsOf(piece, node);
    return seconds.forward_s + seconds.backward_s;
  };
  double seconds = 0;
  for (size_t stage = 0; stage < stages_.size(); ++stage) {
    if (stages_[stage].rank != pp) continue;
    for (const StageBlocks& blocks : BlocksOf(static_cast<int32_t>(stage))) {
      const auto add = [&](int64_t count, bool recomputed) {
        if (count == 0) return;
        const BlockTime time = ArithmeticOfBlock(node, blocks.kind, recomputed);
        seconds +=
            static_cast<double>(count) * (time.forward_s + time.backward_s);
      };
      add(blocks.again, true);
      add(blocks.kept, false);
    }
    if (stage == 0) seconds += whole(ModelPiece::kEmbedding);
    if (stage + 1 == stages_.size()) seconds += whole(ModelPiece::kHead);
  }
  return seconds;
}

}  // namespace trireme
