// Where a run's weights start: from random numbers, a checkpoint of this
// program, or a folder of the ecosystem's.

#ifndef TRIREME_TRAINER_CHECKPOINTS_INITIAL_WEIGHTS_H_
#define TRIREME_TRAINER_CHECKPOINTS_INITIAL_WEIGHTS_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/family.h"
#include "models/weights/tensor_source.h"
#include "trainer/rank/rank_model.h"

namespace trireme {

// `path`: a folder of weights (models/weights/weight_folder.h) or of a
// checkpoint, of which `ema` takes the moving average. Where a checkpoint has
// what trained of a model alone, that is laid over the weights that it started
// from; adapters are merged into them. Errors: neither, or one of another
// model.
absl::StatusOr<std::unique_ptr<TensorSource>> OpenWeights(
    const std::string& path, bool ema, const ModelFamily& family);

// Gives a model, and its moving average, these weights; adapters stay as they
// are. Each rank reads its parts, and rank 0 all of a checkpoint, whose
// checksums it compares.
// Rank 0 prints what quantising weights that do not train has changed of each.
// Collective over the world; the same status on every rank.
absl::Status LoadInitialWeights(RankModel& model, const std::string& path,
                                bool ema);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_INITIAL_WEIGHTS_H_
