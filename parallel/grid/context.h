// What a layer needs to know of the machine: device, grid, communicators, and
// where to report that a model is wrongly built. One per rank; nothing global.

#ifndef TRIREME_PARALLEL_GRID_CONTEXT_H_
#define TRIREME_PARALLEL_GRID_CONTEXT_H_

#include <unordered_map>

#include "absl/status/status.h"
#include "parallel/grid/axis_state.h"
#include "parallel/grid/communicators.h"
#include "parallel/grid/expert_exchange.h"
#include "parallel/grid/process_grid.h"
#include "runtime/autograd/parameter.h"

namespace trireme {

struct ParallelOptions {
  // Between layers that are sharded over tp, tokens are Shard(1) over tp
  // (Korthikanti et al., "Reducing activation recomputation", section 4.2.2).
  bool sequence_parallel = false;
  ExpertExchange experts;
};

class ParallelContext {
 public:
  // All outlive the context.
  ParallelContext(Device& device, const ProcessGrid& grid,
                  Communicators& communicators, ParallelOptions options = {})
      : device_(device),
        grid_(grid),
        communicators_(communicators),
        options_(options) {}

  Device& device() const { return device_; }
  const ProcessGrid& grid() const { return grid_; }
  Communicators& communicators() const { return communicators_; }
  const ParallelOptions& options() const { return options_; }

  // Records that the model breaks a rule of axis_state.h, or a bound of the
  // plan. The first refusal stays; computation goes on (on meaningless values).
  // Whoever builds the model checks status() after its dry run, before any real
  // work, and the executor after each instruction.
  void Refuse(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }
  const absl::Status& status() const { return status_; }

  // Notes that `parameter` is applied to an activation in `states`, and so
  // over which axes its gradient is a part of a sum. Refuses a parameter that
  // is used under two different rules.
  void UseParameter(Parameter& parameter, const AxisStates& states);

 private:
  Device& device_;
  const ProcessGrid& grid_;
  Communicators& communicators_;
  ParallelOptions options_;
  absl::Status status_;
  std::unordered_map<const Parameter*, AxisSet> uses_;
};

// The part of a microbatch's forward that one tape records.
struct ForwardContext {
  Tape& tape;
  ParallelContext& parallel;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_GRID_CONTEXT_H_
