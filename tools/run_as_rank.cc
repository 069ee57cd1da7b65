#include "tools/run_as_rank.h"

#include <string>

#include "runtime/core/status.h"
#include "tools/commands.h"
#include "tools/mpirun.h"

namespace trireme {

absl::StatusOr<std::unique_ptr<MpiWorld>> JoinWorld(
    int* argc, char*** argv, const MpiWorldOptions& options) {
  RETURN_IF_ERROR(CheckTasksAreRanks());
  return MpiWorld::Create(argc, argv, options);
}

int RunAsRank(std::string_view command, int argc, char** argv,
              absl::FunctionRef<absl::Status(MpiWorld&)> work) {
  const std::string name(command);
  const auto world = JoinWorld(&argc, &argv);
  if (!world.ok()) return Fail(name, world.status());
  UseThreadsOf((*world)->processor_share());
  const absl::Status status = work(**world);
  if (status.ok()) return 0;
  const int result = Fail(name, status);
  if ((*world)->world_size() > 1) MpiWorld::Abort(result);
  return result;
}

}  // namespace trireme
