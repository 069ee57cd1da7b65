#include "tools/run_as_rank.h"

#include <string>

#include "tools/commands.h"
#include "tools/mpirun.h"

namespace trireme {

int RunAsRank(std::string_view command, int argc, char** argv,
              absl::FunctionRef<absl::Status(MpiWorld&)> work) {
  const std::string name(command);
  const auto world = MpiWorld::Create(&argc, &argv);
  if (!world.ok()) return Fail(name, world.status());
  UseThreadsOf((*world)->processor_share());
  const absl::Status status = work(**world);
  if (status.ok()) return 0;
  const int result = Fail(name, status);
  if ((*world)->world_size() > 1) MpiWorld::Abort(result);
  return result;
}

}  // namespace trireme
