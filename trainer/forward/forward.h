// Evaluates a stored model at given inputs, and what a given gradient of its
// output leads to: for whoever compares it with another implementation.

#ifndef TRIREME_TRAINER_FORWARD_FORWARD_H_
#define TRIREME_TRAINER_FORWARD_FORWARD_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/core/dtype.h"
#include "runtime/device/compute_device.h"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

struct ForwardOptions {
  // See trainer/checkpoints/stored_model.h; `ema`: of a checkpoint its average.
  std::string model;
  bool ema = false;
  // Files of tensors; see trainer/forward/class_inputs.h. `out` gets
  //   sample               the output, as hidden_states; of a model that names
  //                        classes logits [n, classes]
  //   gradient.NAME        for each input of states and each parameter, by the
  //                        names of the class, or, where there is none, ours
  // in F32 (F64 where the model computes so).
  std::string inputs;
  std::string out;
  bool gradients = false;
  // As a file has it; absent: one rank's.
  std::optional<Plan> plan;
  DType dtype = DType::kFloat32;
  ComputeDevice device;
  int local_ranks = 1;  // that share the machine's memory
};

struct ForwardReport {
  int64_t samples = 0;
  int64_t tensors = 0;  // of the output
  std::string weights;
};

// Of files of outputs.
std::map<std::string, std::string> OutputMetadata();
// Errors: FailedPrecondition, `path` is a file other than an earlier output.
absl::Status CheckReplacesOutput(const std::string& path);

// Collective over the factory's world, whose size is the plan's; the same
// status on every rank. Rank 0 writes.
absl::StatusOr<ForwardReport> Forward(const ForwardOptions& options,
                                      CommunicatorFactory& factory);

}  // namespace trireme

#endif  // TRIREME_TRAINER_FORWARD_FORWARD_H_
