#include "trainer/model_shape_of.h"

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>

#include "models/objective/rectified_flow.h"
#include "trainer/recorded_pieces.h"

namespace trireme {
namespace {

// By split, recomputation and whether weight gradients are put off.
struct RecordedPieces {
  using Key = std::tuple<int64_t, int64_t, int64_t, bool, int64_t, int, bool>;

  std::mutex mutex;
  std::map<Key, ModelPieces> by_key;
};

}  // namespace

ModelShape ModelShapeOf(const TrainingSetup& setup) {
  ModelShape shape = setup.family->Shape();
  shape.element_bytes = DTypeSize(setup.dtype);
  shape.dtype = DTypeName(setup.dtype);
  const bool masters = shape.element_bytes == 2;
  shape.gradient_bytes = setup.dtype == DType::kFloat64 ? 8 : 4;
  // Master weight, two moments and the average.
  shape.optimizer_bytes =
      shape.gradient_bytes *
      ((masters ? 3 : 2) + (setup.optimizer.ema_decay > 0 ? 1 : 0));
  // A model that is only evaluated has no objective: any shows its pieces.
  TrainingSetup recording = setup;
  if (recording.objective == nullptr) {
    recording.objective = std::make_shared<RectifiedFlowObjective>(
        RectifiedFlowConfig(), /*seed=*/0, /*global_batch=*/1);
  }
  shape.recorded_pieces = [setup = std::move(recording), hidden = shape.hidden,
                           mlp_hidden = shape.mlp_hidden, heads = shape.heads,
                           recorded = std::make_shared<RecordedPieces>()](
                              const BlockSplit& split,
                              Plan::Recompute recompute,
                              bool deferred) -> std::optional<ModelPieces> {
    if (hidden % split.tp != 0 || mlp_hidden % split.tp != 0 ||
        heads % (split.tp * split.ulysses) != 0) {
      return std::nullopt;
    }
    const RecordedPieces::Key key(
        split.tp, split.cp, split.ulysses, split.sequence_parallel,
        split.microbatch_size, static_cast<int>(recompute), deferred);
    const std::lock_guard lock(recorded->mutex);
    const auto found = recorded->by_key.find(key);
    if (found != recorded->by_key.end()) return found->second;
    return recorded->by_key
        .emplace(key, RecordPieces(setup, split, recompute, deferred))
        .first->second;
  };
  return shape;
}

}  // namespace trireme
