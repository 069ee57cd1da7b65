// trireme profile: measures machines and links for `trireme plan`.

#include <unistd.h>

#include <array>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "models/data/dataset.h"
#include "runtime/comm/device_world.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/status.h"
#include "tools/commands.h"
#include "tools/device_option.h"
#include "tools/mpirun.h"
#include "tools/run_as_rank.h"
#include "trainer/config/written_file.h"
#include "trainer/job/batches.h"
#include "trainer/job/job.h"
#include "trainer/job/job_file.h"
#include "trainer/job/memory_limit.h"
#include "trainer/profile/profile_cluster.h"

namespace trireme {
namespace {

constexpr char kName[] = "profile";

// What was measured before may have taken an hour.
absl::Status CheckOutput(const ParsedCommand& arguments) {
  if (arguments.Has("overwrite")) return absl::OkStatus();
  return CheckReplaceable(arguments.Get("out"), /*command=*/"");
}

// Starts this command again as ranks.
absl::Status StartRanks(const ParsedCommand& arguments) {
  RETURN_IF_ERROR(CheckOutput(arguments));
  std::optional<int64_t> ranks;
  if (arguments.Has("ranks")) {
    ASSIGN_OR_RETURN(ranks, arguments.GetInt("ranks"));
  }
  ASSIGN_OR_RETURN(const RankStart start,
                   StartOf(ranks, arguments.Given("hosts")));
  ASSIGN_OR_RETURN(const std::string self, ThisProgram());
  std::vector<std::string> command = start.command;
  command.insert(command.end(), {self, kName, "--out=" + arguments.Get("out")});
  if (arguments.Has("job")) command.push_back("--job=" + arguments.Get("job"));
  for (const std::string& assignment : arguments.All("set")) {
    command.push_back("--set=" + assignment);
  }
  for (const char* option : {"device", "drive", "drive_bytes"}) {
    if (arguments.Given(option).has_value()) {
      command.push_back(fmt::format("--{}={}", option, arguments.Get(option)));
    }
  }
  if (arguments.Has("overwrite")) command.emplace_back("--overwrite");
  return Become(std::move(command), start.environment);
}

struct ProfiledJob {
  Job job;
  // Nothing without --job.
  std::optional<TrainingSetup> setup;
};

absl::StatusOr<ProfiledJob> JobOf(const ParsedCommand& arguments) {
  if (!arguments.Has("job")) {
    if (!arguments.All("set").empty()) {
      return InvalidArgument("--set: found without --job, expected with it");
    }
    return ProfiledJob();
  }
  ASSIGN_OR_RETURN(JobFile job,
                   LoadJobFile(arguments.Get("job"), arguments.All("set"), {}));
  ASSIGN_OR_RETURN(const auto dataset, OpenDataset(job.job.data()));
  const auto setup =
      ResolveJob(job.job, {dataset->size(), dataset->num_classes()});
  RETURN_IF_ERROR(job.locations.Locate(setup.status()));
  return ProfiledJob{job.job, *setup};
}

absl::Status Profile(const ParsedCommand& arguments, MpiWorld& world) {
  if (world.world_rank() == 0) RETURN_IF_ERROR(CheckOutput(arguments));
  std::array<char, 64> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) {
    return Unavailable("cannot read this machine's name");
  }
  ProfileOptions options;
  options.host = host.data();
  ASSIGN_OR_RETURN(const ProfiledJob job, JobOf(arguments));
  ASSIGN_OR_RETURN(options.computes_on,
                   DeviceOf(arguments, world.local_rank(), world.local_size()));
  options.memory_bytes =
      MemoryLimit(job.job, options.computes_on, world.local_size());
  if (job.setup.has_value()) options.job = &*job.setup;
  if (arguments.Has("drive")) {
    std::error_code error;
    options.drive_folder =
        std::filesystem::absolute(arguments.Get("drive"), error).string();
    ASSIGN_OR_RETURN(options.drive_bytes, arguments.GetBytes("drive_bytes"));
  }
  const std::unique_ptr<Device> device = options.computes_on.Make(
      options.memory_bytes,
      job.setup.has_value() ? job.setup->kernel_libraries : KernelLibraries());
  const DeviceWorld devices =
      MakeDeviceWorld(world, options.computes_on, world.hang_watch());
  ASSIGN_OR_RETURN(const ClusterProfile profile,
                   ProfileCluster(options, *device, *devices.factory));
  if (world.world_rank() != 0) return absl::OkStatus();
  fmt::print("device {}\n", options.computes_on.text());
  if (!devices.text.empty()) fmt::print("messages by {}\n", devices.text);
  RETURN_IF_ERROR(
      WriteMarkedFile(profile.cluster, kName, arguments.Get("out")));
  fmt::print("{}{}\n", profile.report, arguments.Get("out"));
  return absl::OkStatus();
}

int Run(const ParsedCommand& arguments, int argc, char** argv) {
  if (!UnderMpirun() && (arguments.Has("ranks") || arguments.Has("hosts"))) {
    return Fail(kName, StartRanks(arguments));
  }
  return RunAsRank(kName, argc, argv,
                   [&](MpiWorld& world) { return Profile(arguments, world); });
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
                   DeviceOption(),
                   {.name = "job",
                    .value = "FILE",
                    .help = "also times the blocks, embedding and head of this "
                            "job's model, as its plans may divide them"},
                   {.name = "set",
                    .value = "FIELD=VALUE",
                    .help = "overrides a field of the job",
                    .repeated = true},
                   {.name = "drive",
                    .value = "FOLDER",
                    .help = "also measures what this folder's drive reads and "
                            "writes at once, for plans whose optimizer lies "
                            "there"},
                   {.name = "drive_bytes",
                    .value = "SIZE",
                    .default_value = "1GiB",
                    .help = "that each rank writes twice there to measure"},
                   {.name = "out",
                    .value = "FILE",
                    .default_value = "cluster.textproto",
                    .help = "the cluster"},
                   {.name = "overwrite", .help = "replaces what --out names"}},
       .example = "trireme profile --hosts a:8,b:8 --job job.textproto "
                  "--out cluster.textproto"},
      Run};
}

}  // namespace trireme
