// Weights from one kind of folder to another: of runs, and of the ecosystem's.

#ifndef TRIREME_TRAINER_RUN_CONVERT_H_
#define TRIREME_TRAINER_RUN_CONVERT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/core/dtype.h"

namespace trireme {

struct ConvertOptions {
  // A run, one of its checkpoints, or a folder of weights.
  std::string from;
  std::string to;
  // Whether `to` becomes a folder of weights or a run, whose job says the model
  // and no more, with one checkpoint of step 0. Absent: what `from` is not.
  std::optional<bool> to_weights;
  // The moving average of a checkpoint.
  bool ema = false;
  // Of a folder of weights; absent: see WeightFolderOptions.
  std::optional<DType> dtype;
  std::optional<int64_t> max_shard_bytes;
};

struct ConvertReport {
  std::string weights;  // what was read
  int64_t tensors = 0;  // of what was written
  bool to_weights = false;
};

// Reads and writes a piece of a tensor at a time. Errors: what either folder
// is; `to` is there; a model that no class of the ecosystem's computes; options
// for what is not written.
absl::StatusOr<ConvertReport> Convert(const ConvertOptions& options);

}  // namespace trireme

#endif  // TRIREME_TRAINER_RUN_CONVERT_H_
