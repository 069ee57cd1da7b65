// From a Plan to the Program that carries it out.

#ifndef TRIREME_SCHEDULER_PROGRAM_COMPILE_H_
#define TRIREME_SCHEDULER_PROGRAM_COMPILE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/plan/plan.pb.h"
#include "scheduler/program/program.h"

namespace trireme {

struct CompileOptions {
  // Gradient buckets of each stage. Empty: one each, with offload one for each
  // of its blocks; nothing else goes with offload. A stage's count changes
  // only the list of the rank that has the stage, so a rank that knows only
  // its own may give 1 for the others.
  std::vector<int32_t> buckets_per_stage;
};

// The validated Program of one step of `plan`, which must be resolved and
// valid (ResolvePlan). Errors: InvalidArgument for an unresolved plan or
// options that do not fit it.
absl::StatusOr<Program> CompilePlan(const Plan& plan,
                                    const CompileOptions& options = {});

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PROGRAM_COMPILE_H_
