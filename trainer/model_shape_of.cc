#include "trainer/model_shape_of.h"

#include <memory>
#include <optional>
#include <utility>

#include "models/objective/rectified_flow.h"
#include "trainer/recorded_pieces.h"

namespace trireme {

ModelShape ModelShapeOf(const TrainingSetup& setup, double expert_load) {
  ModelShape shape = setup.family->Shape();
  shape.element_bytes = DTypeSize(setup.dtype);
  shape.dtype = DTypeName(setup.dtype);
  const bool masters = shape.element_bytes == 2;
  shape.gradient_bytes = setup.dtype == DType::kFloat64 ? 8 : 4;
  // Master weight, two moments and the average.
  shape.optimizer_bytes =
      shape.gradient_bytes *
      ((masters ? 3 : 2) + (setup.optimizer.ema_decay > 0 ? 1 : 0));
  shape.trained_leaves = setup.trained.LeaveTheDevice();
  // A model that is only evaluated has no objective: any shows its pieces.
  TrainingSetup recording = setup;
  // Of pictures of several sizes the first, which costs most.
  recording.buckets.clear();
  if (recording.objective == nullptr) {
    recording.objective = std::make_shared<RectifiedFlowObjective>(
        RectifiedFlowConfig(), /*seed=*/0, /*global_batch=*/1);
  }
  shape.recorded_pieces =
      [hidden = shape.hidden, mlp_hidden = shape.mlp_hidden,
       shared_hidden = shape.shared_hidden, heads = shape.heads,
       recorder =
           std::make_shared<PieceRecorder>(std::move(recording), expert_load)](
          const BlockSplit& split, Plan::Recompute recompute,
          bool deferred) -> std::optional<ModelPieces> {
    if (hidden % split.tp != 0 || mlp_hidden % split.tp != 0 ||
        shared_hidden % split.tp != 0 ||
        heads % (split.tp * split.ulysses) != 0) {
      return std::nullopt;
    }
    return recorder->Record(split, recompute, deferred);
  };
  return shape;
}

}  // namespace trireme
