#include "trainer/planning/model_shape_of.h"

#include <memory>
#include <utility>

#include "models/objective/classification.h"
#include "models/objective/rectified_flow.h"
#include "trainer/planning/recorded_pieces.h"

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
  // A model that is only evaluated has no objective: any of its samples' kind
  // shows its pieces.
  TrainingSetup recording = setup;
  // Of pictures of several sizes the first, which costs most.
  recording.buckets.clear();
  if (recording.objective == nullptr && setup.family->classifies()) {
    recording.objective = std::make_shared<ClassificationObjective>(
        /*smoothing=*/0, /*global_batch=*/1);
  } else if (recording.objective == nullptr) {
    recording.objective = std::make_shared<RectifiedFlowObjective>(
        RectifiedFlowConfig(), /*seed=*/0, /*global_batch=*/1);
  }
  shape.pieces = [recorder = std::make_shared<PieceRecorder>(
                      std::move(recording), expert_load)](
                     const ModelShape& /*model*/, const BlockSplit& split,
                     Plan::Recompute recompute, bool deferred) {
    return recorder->Record(split, recompute, deferred);
  };
  return shape;
}

}  // namespace trireme
