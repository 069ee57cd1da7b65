// Weights from one kind of folder to another: of runs, and of the ecosystem's;
// and adapters to and from the ecosystem's files.

#ifndef TRIREME_TRAINER_CHECKPOINTS_CONVERT_H_
#define TRIREME_TRAINER_CHECKPOINTS_CONVERT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/core/dtype.h"

namespace trireme {

enum class ConvertTo {
  // A run, whose job says the model and no more, with one checkpoint of step 0:
  // of weights, or of adapters and the weights that they go with.
  kRun,
  // A folder of weights; adapters are merged into them.
  kWeights,
  // A file of adapters (models/weights/adapter_file.h), in the names of
  // diffusers and PEFT, or of kohya's scripts.
  kAdapter,
  kKohya,
};

struct ConvertOptions {
  // A run, one of its checkpoints, a folder of weights, or a file of adapters
  // (.safetensors), which need `base`.
  std::string from;
  // New; its folder is made where it is missing.
  std::string to;
  // Absent: of a folder of weights or a file of adapters a run, of a run a
  // folder of weights.
  std::optional<ConvertTo> kind;
  // The weights that a file of adapters goes with: as `from`.
  std::string base;
  // The moving average of a checkpoint.
  bool ema = false;
  // Of a folder of weights or adapters; absent: see WeightFolderOptions, of
  // adapters F32.
  std::optional<DType> dtype;
  std::optional<int64_t> max_shard_bytes;
};

struct ConvertReport {
  std::string weights;  // what was read
  int64_t tensors = 0;  // of what was written
  ConvertTo kind = ConvertTo::kRun;
};

// Reads and writes a piece of a tensor at a time. Errors: what either folder
// is; `to` is there; a model that no class of the ecosystem's computes; options
// for what is not written.
absl::StatusOr<ConvertReport> Convert(const ConvertOptions& options);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_CONVERT_H_
