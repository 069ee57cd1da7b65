// What commands share that run as ranks.

#ifndef TRIREME_TOOLS_RUN_AS_RANK_H_
#define TRIREME_TOOLS_RUN_AS_RANK_H_

#include <memory>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/comm/mpi/mpi_world.h"

namespace trireme {

// The world of mpirun; without one, that of this process alone. Errors:
// FailedPrecondition, this process is one of several that srun started and that
// do not know of one another; MpiWorld::Create's.
absl::StatusOr<std::unique_ptr<MpiWorld>> JoinWorld(
    int* argc, char*** argv, const MpiWorldOptions& options = {});

// Of commands whose ranks all compute the same thing together: joins the world,
// computes with the rank's share of the processors, and does `work`. The exit
// status; an error of one rank is printed and ends all.
int RunAsRank(std::string_view command, int argc, char** argv,
              absl::FunctionRef<absl::Status(MpiWorld&)> work);

}  // namespace trireme

#endif  // TRIREME_TOOLS_RUN_AS_RANK_H_
