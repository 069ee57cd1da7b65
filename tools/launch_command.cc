// trireme launch: runs `trireme train` on several ranks, here or on other
// machines, with everything that mpirun needs.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "fmt/format.h"
#include "models/resolve.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/core/check_range.h"
#include "runtime/core/file.h"
#include "runtime/core/processes.h"
#include "runtime/core/processors.h"
#include "runtime/core/status.h"
#include "runtime/core/timeouts.h"
#include "runtime/device/compute_device.h"
#include "runtime/device/kernel_libraries.h"
#include "scheduler/explain/tables.h"
#include "scheduler/plan/plan.h"
#include "tools/batch_scripts.h"
#include "tools/commands.h"
#include "tools/device_option.h"
#include "tools/hosts.h"
#include "tools/launch_batch.h"
#include "tools/launch_log.h"
#include "tools/launch_machines.h"
#include "tools/mpirun.h"
#include "tools/restarts.h"
#include "tools/supervise.h"
#include "tools/training_options.h"
#include "trainer/config/local_path.h"
#include "trainer/config/textproto.h"
#include "trainer/config/written_file.h"
#include "trainer/coordinator/coordinator_server.h"
#include "trainer/coordinator/metrics_server.h"
#include "trainer/coordinator/metrics_text.h"
#include "trainer/job/batches.h"
#include "trainer/job/job.h"
#include "trainer/job/job_file.h"
#include "trainer/job/memory_limit.h"
#include "trainer/preflight/cluster_devices.h"
#include "trainer/preflight/device_plan.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

constexpr char kName[] = "launch";
constexpr int64_t kMostSeconds = 1'000'000;
// Strangers' connections must leave some for the launch itself.
constexpr int64_t kOpenFiles = 65'536;

// The most ranks, up to one a processor, for which there is a default plan.
int64_t RanksOfDefaultPlan(const TrainingSetup& setup) {
  int64_t ranks = AvailableProcessors();
  while (ranks > 1 && !DefaultPlan(PlanContextOf(setup, ranks)).ok()) --ranks;
  return ranks;
}

// What the command line and the job's and the plan's files say.
struct Launch {
  LaunchedJob job;
  std::optional<Cluster> cluster;
  std::string name;
  // For train, beside those that launch was given.
  std::vector<std::string> options;
};

// Finds a plan for which so much memory of each device is enough, and writes it
// beside the run's folder.
absl::Status PlanForDeviceMemory(const ParsedCommand& arguments,
                                 std::optional<Cluster> cluster, Job job,
                                 Launch& launch) {
  LaunchedJob& launched = launch.job;
  if (arguments.Has("plan")) {
    return InvalidArgument(
        "--device_memory: found with --plan, expected one of them: it finds a "
        "plan");
  }
  ASSIGN_OR_RETURN(const int64_t bytes, arguments.GetBytes("device_memory"));
  const std::string path = launched.folder + ".plan.textproto";
  const std::string parent = std::filesystem::path(path).parent_path().string();
  if (!parent.empty()) RETURN_IF_ERROR(MakeDirectories(parent));
  const absl::Status replaceable = CheckReplaceable(path, kName);
  if (absl::IsFailedPrecondition(replaceable)) {
    return FailedPrecondition(
        "--device_memory: found {} with changes of someone's, expected it "
        "elsewhere, or --plan={} to train under it",
        path, path);
  }
  RETURN_IF_ERROR(replaceable);
  ASSIGN_OR_RETURN(const ComputeDevice chosen,
                   DeviceOf(arguments, /*local_rank=*/0, /*local_ranks=*/1));
  if (!cluster.has_value()) {
    if (!launched.machines.hosts.empty() || launched.allocation.has_value() ||
        launched.ranks.value_or(1) != 1) {
      return InvalidArgument(
          "--device_memory: found several ranks and no --cluster, expected one "
          "(`trireme profile` writes it), or one rank here");
    }
    fmt::print("measures this machine\n");
    std::fflush(stdout);
    const int processors = AvailableProcessors();
    UseThreadsOf({.processors = processors, .threads = processors});
    const int64_t memory = HostMemoryLimit(/*local_ranks=*/1);
    const bool on_host = chosen.kind() == DeviceKind::kCpu;
    const std::unique_ptr<Device> device = chosen.Make(
        on_host ? memory : chosen.memory_bytes(), KernelLibraries());
    std::error_code error;
    const std::string drive =
        arguments.Has("drive")
            ? std::filesystem::absolute(arguments.Get("drive"), error).string()
            : "";
    ASSIGN_OR_RETURN(cluster,
                     MeasureDevice(chosen, *device,
                                   on_host ? memory - bytes : memory, drive));
  }
  ASSIGN_OR_RETURN(const auto dataset, OpenDataset(job.data()));
  ASSIGN_OR_RETURN(const TrainingSetup setup,
                   ResolveJob(job, {dataset->size(), dataset->num_classes()}));
  ASSIGN_OR_RETURN(
      const DevicePlan found,
      PlanWithin(setup, *std::move(cluster), chosen.kind(), bytes));
  fmt::print("plan: {}\n{}device memory: {} of {} in a step\n",
             Summary(found.chosen.plan), OffloadText(found.input, found.chosen),
             BytesText(found.peak_bytes), BytesText(bytes));
  RETURN_IF_ERROR(WriteMarkedFile(found.chosen.plan, kName, path));
  ASSIGN_OR_RETURN(const PlanFile plan, LoadPlanFile(path));
  launched.files[path] = plan.text;
  launched.plan = plan.plan;
  ASSIGN_OR_RETURN(launched.ranks, RanksOf(plan.plan));
  launch.options = {"--plan=" + path,
                    fmt::format("--set=memory_limit_bytes={}", bytes)};
  return absl::OkStatus();
}

absl::Status SetLimits(const ParsedCommand& arguments, double communication_s,
                       LaunchedJob& job) {
  ASSIGN_OR_RETURN(const int64_t seconds, arguments.GetInt("lost_after_s"));
  ASSIGN_OR_RETURN(job.restarts, arguments.GetInt("restarts"));
  RETURN_IF_ERROR(CheckRange("--lost_after_s", seconds, 0, kMostSeconds));
  if (job.restarts < 0) {
    return InvalidArgument("--restarts: found {}, expected 0 or more",
                           job.restarts);
  }
  job.timeouts = {.lost = std::chrono::seconds(seconds),
                  .communication = std::chrono::ceil<Timeouts::Duration>(
                      std::chrono::duration<double>(communication_s))};
  return CheckOrder(job.timeouts);
}

// What would be passed over without a word otherwise.
absl::Status CheckOptions(const ParsedCommand& arguments) {
  RETURN_IF_ERROR(CheckBatchOptions(arguments));
  // What a batch system runs has --resume in any case: it would not ask.
  RETURN_IF_ERROR(CheckTrainingOptions(arguments));
  if (arguments.Has("drive") &&
      (!arguments.Has("device_memory") || arguments.Has("cluster"))) {
    return InvalidArgument(
        "--drive: found {}, expected it with --device_memory and without "
        "--cluster, which names its drive_folder",
        arguments.Has("cluster") ? "with --cluster"
                                 : "without --device_memory");
  }
  return absl::OkStatus();
}

// Whether the job can be split among the ranks that there are to be. A check of
// machines does without.
absl::Status CheckSplit(const ParsedCommand& arguments, const LaunchedJob& job,
                        const TrainingSetup& setup,
                        const FieldLocations& of_plan) {
  if (arguments.Has("check")) return absl::OkStatus();
  const int64_t ranks = job.ranks.value_or(
      !job.machines.hosts.empty()  ? RanksOn(job.machines.hosts)
      : job.allocation.has_value() ? job.allocation->tasks
                                   : 0);
  // What wants none is told of the option.
  if (ranks < 1) return absl::OkStatus();
  const PlanContext context = PlanContextOf(setup, ranks);
  return job.plan.has_value()
             ? of_plan.Locate(ResolvePlan(*job.plan, context).status())
             : DefaultPlan(context).status();
}

// What the ranks are to read is read here first: a mistake is then told once.
absl::StatusOr<Launch> CheckFiles(const ParsedCommand& arguments) {
  RETURN_IF_ERROR(CheckOptions(arguments));
  Launch launch;
  LaunchedJob& launched = launch.job;
  std::optional<int64_t> steps;
  if (arguments.Has("ranks")) {
    ASSIGN_OR_RETURN(launched.ranks, arguments.GetInt("ranks"));
  }
  if (arguments.Has("steps")) {
    ASSIGN_OR_RETURN(steps, arguments.GetInt("steps"));
  }
  const std::string& path = arguments.positionals()[0];
  ASSIGN_OR_RETURN(JobFile job, LoadJobFile(path, arguments.All("set"), steps));
  launched.files[path] = job.text;
  ASSIGN_OR_RETURN(launched.folder,
                   LocalPath(OutFolder(arguments.Given("out"), job.job)));
  ASSIGN_OR_RETURN(launch.cluster, ClusterOf(arguments));
  ASSIGN_OR_RETURN(launched.machines, MachinesOf(arguments, launch.cluster));
  const bool hosts = !launched.machines.hosts.empty();
  launched.hear_us = !hosts || arguments.Has("listen");
  if (!hosts && !arguments.Has("slurm"))
    launched.allocation = SlurmAllocation();
  const Job as_given = job.job;
  // The data set is for the ranks to open, and so are checks of its classes.
  const auto setup = ResolveJob(
      job.job, {.samples = 1, .classes = LeastClasses(job.job.model())});
  RETURN_IF_ERROR(job.locations.Locate(setup.status()));
  launched.context = PlanContextOf(*setup, /*world_size=*/1);
  RETURN_IF_ERROR(
      SetLimits(arguments, job.job.communication_deadline_s(), launched));
  launch.name = job.job.name();
  if (arguments.Has("device_memory")) {
    RETURN_IF_ERROR(job.locations.Locate(
        PlanForDeviceMemory(arguments, launch.cluster, as_given, launch)));
    return launch;
  }
  const bool given =
      launched.ranks.has_value() || hosts || launched.allocation.has_value();
  if (!arguments.Has("plan")) {
    if (!given) launched.ranks = RanksOfDefaultPlan(*setup);
    RETURN_IF_ERROR(CheckSplit(arguments, launched, *setup, job.locations));
    return launch;
  }
  ASSIGN_OR_RETURN(const PlanFile plan, LoadPlanFile(arguments.Get("plan")));
  launched.files[arguments.Get("plan")] = plan.text;
  launched.plan = plan.plan;
  if (!given || launch.cluster.has_value()) {
    const absl::StatusOr<int64_t> of_plan = RanksOf(plan.plan);
    RETURN_IF_ERROR(plan.locations.Locate(of_plan.status()));
    // With a cluster, whose devices are then counted.
    if (!launched.ranks.has_value()) launched.ranks = *of_plan;
  }
  RETURN_IF_ERROR(CheckSplit(arguments, launched, *setup, plan.locations));
  return launch;
}

// What train is to be given of what launch was, and more.
std::vector<std::string> TrainArguments(const ParsedCommand& arguments,
                                        const Launch& launch) {
  std::vector<std::string> command = {"train", arguments.positionals()[0]};
  const std::vector<std::string> given = GivenTrainingOptions(arguments);
  command.insert(command.end(), given.begin(), given.end());
  command.insert(command.end(), launch.options.begin(), launch.options.end());
  return command;
}

// Prints what would be run, then the ranks' own account of it.
int PrintDryRun(const ParsedCommand& arguments, const Launch& launch,
                const RankStart& start, const std::string& self) {
  for (const auto& [name, value] : start.environment) {
    const char* own = std::getenv(name.c_str());
    fmt::print("{}={} \\\n", name, ShellText({own != nullptr ? own : value}));
  }
  fmt::print("  {}\n\n", ShellText(start.command));
  std::fflush(stdout);
  // One process speaks for all.
  std::vector<std::string> account = TrainArguments(arguments, launch);
  account.insert(account.begin(), self);
  account.emplace_back("--dry_run");
  account.push_back(fmt::format("--ranks={}", start.ranks));
  return Fail(kName, Become(std::move(account), start.environment));
}

// Ranks elsewhere then train what lies there, or say that nothing does.
void SayWhatDoesNotTravel(const LaunchedJob& job) {
  const bool far = !job.machines.hosts.empty() ||
                   (job.allocation.has_value() && job.allocation->nodes > 1);
  if (!far || !CarriedFiles(job.files).front().value.empty()) return;
  std::vector<std::string> paths;
  for (const auto& [path, text] : job.files) paths.push_back(path);
  fmt::print(stderr,
             "trireme launch: {} are too long to travel with the launch; "
             "expected the same files at these paths on every host\n",
             absl::StrJoin(paths, ", "));
}

// Tries what the launch will need, and ends. Returns only if that fails.
int Check(const ParsedCommand& arguments, Launch launch) {
  LaunchedJob& job = launch.job;
  std::vector<Host> hosts = job.machines.hosts;
  hosts.insert(hosts.end(), job.machines.spares.begin(),
               job.machines.spares.end());
  const auto unreachable = FindUnreachable(hosts, 2 * job.timeouts.probe);
  for (const auto& [host, reason] : unreachable) {
    fmt::print(stderr,
               "host {}: no process can be started there: {}; expected that "
               "`ssh {} true` works without a password, and OpenMPI there\n",
               host, reason, host);
  }
  if (!unreachable.empty()) return 1;
  job.program.emplace_back("--check");
  if (launch.cluster.has_value()) {
    const std::string path = arguments.Get("cluster");
    job.program.push_back("--cluster=" + path);
    job.files[path] = PrintTextProto(DevicesOnly(*launch.cluster));
  }
  job.hear_us = false;
  SetCarriedFiles(job.files);
  SayWhatDoesNotTravel(job);
  absl::StatusOr<RankStart> start = StartOfJob(job);
  if (!start.ok()) return Fail(kName, start.status());
  return Fail(kName, Become(std::move(start->command), start->environment));
}

// Whether nothing is left to do, as the ranks have told.
bool AllStepsAreDone(const JobStatus& status) {
  return std::any_of(status.ranks().begin(), status.ranks().end(),
                     [](const RankStatus& rank) {
                       return rank.report().steps() > 0 &&
                              rank.report().step() >= rank.report().steps();
                     });
}

// After an end that was not asked for.
void PrintWayOn(const std::string& folder) {
  const absl::StatusOr<std::string> newest =
      LatestCheckpoint(RunFolder(folder).checkpoints());
  if (newest.ok()) {
    fmt::print(stderr,
               "trireme launch: the newest checkpoint is {}; --resume goes on "
               "from it\n",
               *newest);
  }
}

// Of an allocation other nodes' ranks report too.
std::string ListenAt(const ParsedCommand& arguments, const LaunchedJob& job) {
  const bool far = job.allocation.has_value() && job.allocation->nodes > 1;
  if (!far || arguments.Has("listen")) return arguments.Get("listen");
  return HostName() + ":0";
}

// Of a launch whose place this one takes, or a new one with --tls.
absl::StatusOr<std::optional<TlsIdentity>> IdentityOf(
    const ParsedCommand& arguments, const std::optional<LeftRanks>& left) {
  if (left.has_value()) {
    if (left->record.address.certificate.empty()) return std::nullopt;
    return TlsIdentity{.certificate = left->record.address.certificate,
                       .private_key = left->record.private_key};
  }
  if (!arguments.Has("tls")) return std::nullopt;
  return NewTlsIdentity();
}

int Run(const ParsedCommand& arguments, int, char**) {
  absl::StatusOr<Launch> launch = CheckFiles(arguments);
  if (!launch.ok()) return Fail(kName, launch.status());
  LaunchedJob& job = launch->job;
  const absl::StatusOr<std::string> self = ThisProgram();
  if (!self.ok()) return Fail(kName, self.status());
  job.program = TrainArguments(arguments, *launch);
  job.program.insert(job.program.begin(), *self);
  // mpirun gives its ranks a terminal even where it has none itself.
  job.program.emplace_back(isatty(STDOUT_FILENO) == 1 ? "--progress=bar"
                                                      : "--progress=lines");
  if (arguments.Has("slurm") || arguments.Has("emit")) {
    std::vector<std::string> given = TrainArguments(arguments, *launch);
    given.erase(given.begin());
    return HandToBatch(arguments, {.name = launch->name,
                                   .ranks = launch->job.ranks.value_or(1),
                                   .program = *self,
                                   .arguments = std::move(given)});
  }
  // The first start went on from there; since then it has come further.
  if (job.allocation.has_value() && job.allocation->queued_again) {
    std::erase_if(job.program, [](const std::string& argument) {
      return argument.starts_with("--checkpoint=");
    });
  }
  const absl::StatusOr<RankStart> start = StartOfJob(job);
  if (!start.ok()) return Fail(kName, start.status());
  if (arguments.Has("check")) return Check(arguments, *std::move(launch));
  if (arguments.Has("dry_run")) {
    return PrintDryRun(arguments, *launch, *start, *self);
  }
  const bool may_take_up =
      arguments.Has("resume") && !arguments.Has("checkpoint");
  const LaunchLog log(job.folder);
  // mpirun would wait for one that is down for as long as its agent does, ssh
  // for two minutes. Ranks whose launch is gone do not wait for long, and start
  // nowhere.
  if (!job.machines.hosts.empty() && !(may_take_up && HasRanks(job.folder))) {
    absl::StatusOr<Machines> reachable =
        ReachableMachines(job.machines, 2 * job.timeouts.probe,
                          [&log](const std::string& text) { log.Say(text); });
    if (!reachable.ok()) return Fail(kName, reachable.status());
    job.machines = *std::move(reachable);
  }
  SayWhatDoesNotTravel(job);
  JobWatch watch(job.folder, JobWatch::Clock::now());
  // Before any thread, so that each of them leaves the signals to it.
  const SignalQueue signals;
  std::optional<LeftRanks> left;
  if (may_take_up) left = FindLeftRanks(job.folder);
  absl::StatusOr<std::optional<TlsIdentity>> identity =
      IdentityOf(arguments, left);
  if (!identity.ok()) return Fail(kName, identity.status());
  if (identity->has_value()) job.private_key = (*identity)->private_key;
  AllowOpenFiles(kOpenFiles);
  const auto server =
      left.has_value()
          ? CoordinatorServer::Start(watch, left->record.address.endpoint,
                                     left->record.address.token, *identity)
          : CoordinatorServer::Start(watch, ListenAt(arguments, job),
                                     /*token=*/std::nullopt, *identity);
  if (!server.ok()) return Fail(kName, server.status());
  const CoordinatorAddress& address = (*server)->address();
  SetInEnvironment(address, job.timeouts.lost);
  std::unique_ptr<MetricsServer> metrics;
  if (arguments.Has("metrics")) {
    auto started = MetricsServer::Start(arguments.Get("metrics"), [&watch] {
      return MetricsText(watch.Status(JobWatch::Clock::now()));
    });
    if (!started.ok()) return Fail(kName, started.status());
    metrics = *std::move(started);
    fmt::print("watch  Prometheus finds metrics at http://{}/metrics\n",
               metrics->endpoint());
  }
  fmt::print("{}", TimeoutsText(job.timeouts));
  std::fflush(stdout);
  const std::string folder = job.folder;
  const std::optional<Allocation> allocation = job.allocation;
  const int status =
      RunToTheEnd(std::move(job), address, signals, left, watch, log);
  RemoveLaunchRecord(address, folder);
  if (status == 0 || watch.last_step() == 0) return status;
  // One without a step in its time would not come further the next time.
  if (allocation.has_value() && status == 128 + SIGUSR1 &&
      !AllStepsAreDone(watch.Status(JobWatch::Clock::now()))) {
    log.Say("the time is up: the job is to be queued again");
    const absl::Status again = QueueSlurmJobAgain(allocation->id);
    if (!again.ok()) log.Say(MessageOf(again));
  }
  PrintWayOn(folder);
  return status;
}

}  // namespace

Command LaunchCommand() {
  std::vector<OptionSpec> options = {
      {.name = "ranks",
       .value = "N",
       .help = "processes (default: the plan's, or as many as there are "
               "processors and the job can be split into); their threads "
               "share the processors"},
      {.name = "hosts",
       .value = "LIST",
       .help = "machines and their ranks, as a:4,b:4, reached by ssh "
               "(default: this one)"},
      {.name = "hostfile",
       .value = "FILE",
       .help = "the same as OpenMPI's host file: `a slots=4`, one a line; "
               "`paths=/data:/scratch/data,/runs:/mnt/runs` behind it says "
               "what of the job's paths lies elsewhere there"},
      {.name = "spares",
       .value = "LIST",
       .help = "machines like those of --hosts that take the place of lost "
               "ones; without one left the job goes on with fewer ranks"},
      {.name = "sparefile", .value = "FILE", .help = "the same as a host file"},
      {.name = "cluster",
       .value = "FILE",
       .help = "the machines of this cluster, in its order, which a plan for "
               "it counts on"},
      {.name = "only",
       .value = "NODES",
       .help = "with --cluster: these of its nodes, as a,b:4, as `trireme "
               "plan` was told"},
      {.name = "device_memory",
       .value = "SIZE",
       .help = "finds a plan that needs no more of each device, as 12GiB, with "
               "offload where the model does not fit, for this machine or "
               "--cluster"},
      {.name = "drive",
       .value = "FOLDER",
       .help =
           "with --device_memory: where the optimizer may lie if the host's "
           "memory is too small for it; its drive is measured too, with "
           "2 GiB of writes"},
      {.name = "listen",
       .value = "ADDRESS:PORT",
       .default_value = "127.0.0.1:0",
       .help = "where ranks report and `trireme status`, `watch`, "
               "`checkpoint` and `stop` ask; with --hosts an address by which "
               "they reach this machine, else only its own ranks report; port "
               "0: any free one"},
      {.name = "tls",
       .help = "encrypts what is said there, by a certificate of the launch's "
               "own that the run's folder holds with the token"},
      {.name = "metrics",
       .value = "ADDRESS:PORT",
       .help = "where Prometheus finds the run's figures, as 127.0.0.1:9400; "
               "who reaches it reads them"},
      {.name = "restarts",
       .value = "N",
       .default_value = "5",
       .help = "times in a row that ranks are started again from the newest "
               "checkpoint after some were lost, without a new step in "
               "between; the first at once, the others after pauses of 1 s, 2 "
               "s, 4 s and so on"},
      {.name = "lost_after_s",
       .value = "SECONDS",
       .default_value = "10",
       .help =
           "a rank that is silent for so long, more than 3, is lost; 0: only "
           "one that is stopped here is"},
      {.name = "check",
       .help = "trains nothing: says whether all hosts can be reached and have "
               "the same program, job, data and time, and the devices of "
               "--cluster, and how fast their links are"},
      {.name = "slurm",
       .help = "submits the launch to Slurm by sbatch; inside an allocation "
               "launch uses it, without this"},
      {.name = "nodes",
       .value = "N",
       .default_value = "1",
       .help = "with --slurm or --emit: machines for the ranks"},
      {.name = "sbatch",
       .value = "OPTION",
       .help = "with --slurm: an option of sbatch, as --partition=gpu",
       .repeated = true},
      {.name = "emit",
       .value = "KIND",
       .help =
           "prints the launch for another system: kubernetes, as an MPIJob"},
      {.name = "image",
       .value = "NAME",
       .default_value = "trireme",
       .help = "with --emit: the container image"},
      {.name = "dry_run",
       .help = "prints the command, the plan and each rank's memory, or the "
               "script for sbatch"}};
  const std::vector<OptionSpec> shared = TrainingOptions();
  options.insert(options.begin() + 2, shared.begin(), shared.end());
  return {
      {.name = kName,
       .summary = "trains a job on several ranks, here or on several machines",
       .positionals = {{.name = "JOB", .help = "job file (textproto or JSON)"}},
       .options = std::move(options),
       .example = "trireme launch examples/fashion_mnist.textproto --ranks 4"},
      Run};
}

}  // namespace trireme
