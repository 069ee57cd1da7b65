// trireme profile: measures machines and links for `trireme plan`.

#include <unistd.h>

#include <array>
#include <optional>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "tools/commands.h"
#include "tools/mpirun.h"
#include "trainer/config/textproto.h"
#include "trainer/memory_limit.h"
#include "trainer/profile_cluster.h"

namespace trireme {
namespace {

constexpr char kName[] = "profile";

// Starts this command again as ranks.
absl::Status StartRanks(const ParsedCommand& arguments) {
  std::optional<int64_t> ranks;
  if (arguments.Has("ranks")) {
    ASSIGN_OR_RETURN(ranks, arguments.GetInt("ranks"));
  }
  ASSIGN_OR_RETURN(
      const RankStart start,
      StartOf(ranks, arguments.Has("hosts") ? arguments.Get("hosts") : ""));
  ASSIGN_OR_RETURN(const std::string self, ThisProgram());
  std::vector<std::string> command = start.command;
  command.insert(command.end(), {self, kName, "--out=" + arguments.Get("out")});
  return Become(std::move(command), start.environment);
}

absl::Status Profile(const ParsedCommand& arguments, MpiWorld& world) {
  std::array<char, 64> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) {
    return Unavailable("cannot read this machine's name");
  }
  ProfileOptions options;
  options.host = host.data();
  options.memory_bytes = MemoryLimit(Job(), world.local_size());
  CpuDevice device(options.memory_bytes);
  ASSIGN_OR_RETURN(const ClusterProfile profile,
                   ProfileCluster(options, device, world));
  if (world.world_rank() != 0) return absl::OkStatus();
  RETURN_IF_ERROR(WriteTextProtoFile(profile.cluster, arguments.Get("out")));
  fmt::print("{}{}\n", profile.report, arguments.Get("out"));
  return absl::OkStatus();
}

int Run(const ParsedCommand& arguments, int argc, char** argv) {
  if (!UnderMpirun() && (arguments.Has("ranks") || arguments.Has("hosts"))) {
    return Fail(kName, StartRanks(arguments));
  }
  const auto world = MpiWorld::Create(&argc, &argv);
  if (!world.ok()) return Fail(kName, world.status());
  const absl::Status status = Profile(arguments, **world);
  if (status.ok()) return 0;
  const int result = Fail(kName, status);
  if ((*world)->world_size() > 1) MpiWorld::Abort(result);
  return result;
}

}  // namespace

Command ProfileCommand() {
  return {
      {.name = kName,
       .summary = "measures machines and links for `trireme plan`",
       .options = {{.name = "ranks",
                    .value = "N",
                    .help = "starts N ranks on this machine; without it "
                            "this is a rank itself (under mpirun)"},
                   {.name = "hosts",
                    .value = "LIST",
                    .help = "starts the ranks of these machines, as "
                            "a:4,b:4"},
                   {.name = "out",
                    .value = "FILE",
                    .default_value = "cluster.textproto",
                    .help = "the cluster"}},
       .example = "trireme profile --hosts a:8,b:8 --out cluster.textproto"},
      Run};
}

}  // namespace trireme
