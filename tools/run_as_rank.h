// What commands share whose ranks all compute the same thing together.

#ifndef TRIREME_TOOLS_RUN_AS_RANK_H_
#define TRIREME_TOOLS_RUN_AS_RANK_H_

#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "runtime/comm/mpi/mpi_world.h"

namespace trireme {

// Joins the world of mpirun (without one, that of this process alone), computes
// with the rank's share of the processors, and does `work`. The exit status; an
// error of one rank is printed and ends all.
int RunAsRank(std::string_view command, int argc, char** argv,
              absl::FunctionRef<absl::Status(MpiWorld&)> work);

}  // namespace trireme

#endif  // TRIREME_TOOLS_RUN_AS_RANK_H_
