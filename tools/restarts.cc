#include "tools/restarts.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <set>
#include <thread>
#include <utility>

#include "fmt/format.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/core/processes.h"
#include "runtime/core/status.h"
#include "scheduler/plan/fewer_ranks.h"
#include "tools/host_questions.h"
#include "trainer/config/local_path.h"
#include "trainer/config/textproto.h"
#include "trainer/coordinator/coordinator_client.h"
#include "trainer/job/job_file.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

using std::chrono_literals::operator""s;

constexpr std::chrono::milliseconds kBetweenLooks(50);
// What mpirun ends with where a signal ended a rank is above.
constexpr int kSignalled = 128;

// From the newest checkpoint, also where the first start was told of another.
void MakeItResume(std::vector<std::string>& program) {
  std::erase_if(program, [](const std::string& argument) {
    return argument == "--resume" || argument.starts_with("--checkpoint=");
  });
  program.emplace_back("--resume");
}

// Leaves out the machines that are gone, with a plan for what is left where no
// spare takes their place. `unanswered`: did not answer while their ranks were
// silent. Errors: nothing is left.
absl::Status LeaveOutLost(LaunchedJob& job,
                          const std::set<std::string>& unanswered,
                          const LaunchLog& log,
                          const std::function<bool()>& given_up) {
  if (job.machines.hosts.empty()) return absl::OkStatus();
  Machines machines = MachinesLeft(
      job.machines, unanswered,
      {.spared = job.timeouts.reach,
       .unanswered = job.timeouts.named,
       .others = job.timeouts.probe},
      given_up, [&log](const std::string& text) { log.Say(text); });
  const int64_t before = RanksOn(job.machines.hosts);
  const bool same = machines.hosts == job.machines.hosts;
  job.machines = std::move(machines);
  if (same) return absl::OkStatus();
  const int64_t left = RanksOn(job.machines.hosts);
  log.Say(fmt::format("goes on with {}",
                      left > 0 ? HostsText(job.machines.hosts) : "no host"));
  if (left == 0) return Unavailable("--hosts: none of them can be reached");
  if (left == before) return absl::OkStatus();
  job.context.world_size = left;
  ASSIGN_OR_RETURN(const DefaultedPlan fewer,
                   PlanForFewerRanks(job.plan, job.context));
  log.Say(fewer.explanation);
  const int64_t ranks = GridSize(fewer.plan.grid());
  job.ranks = ranks;
  job.machines.hosts = FirstRanks(std::move(job.machines.hosts), ranks);
  const std::string path =
      fmt::format("{}/plan.for_{}_ranks.textproto", job.folder, ranks);
  RETURN_IF_ERROR(WriteTextProtoFile(fewer.plan, path));
  job.files[path] = PrintTextProto(fewer.plan);
  std::erase_if(job.program, [](const std::string& argument) {
    return argument.starts_with("--plan=");
  });
  job.program.push_back("--plan=" + path);
  return absl::OkStatus();
}

absl::StatusOr<StartedRanks> Start(const LaunchedJob& job, int64_t start,
                                   const SignalQueue& signals) {
  setenv(kStartVariable, fmt::to_string(start).c_str(), /*overwrite=*/1);
  SetCarriedFiles(job.files);
  ASSIGN_OR_RETURN(RankStart ranks, StartOfJob(job));
  return StartRanks(std::move(ranks.command), ranks.environment, signals,
                    job.hear_us);
}

// The hosts as they follow one another, with the same paths each time.
std::vector<std::vector<Host>> ByPaths(const std::vector<Host>& hosts) {
  std::vector<std::vector<Host>> groups;
  for (const Host& host : hosts) {
    if (groups.empty() || groups.back().back().paths != host.paths) {
      groups.emplace_back();
    }
    groups.back().push_back(host);
  }
  return groups;
}

// What of this process's environment ranks on other machines are handed.
std::vector<std::string> HandedOn(const LaunchedJob& job) {
  std::vector<std::string> names;
  for (const CarriedPart& part : CarriedFiles(job.files)) {
    names.push_back(part.variable);
  }
  // Elsewhere 127.0.0.1 is someone else, whom the token is not for.
  if (!job.hear_us) return names;
  names.insert(names.end(), {kEndpointVariable, kTokenVariable, kStartVariable,
                             kLostVariable});
  // mpirun warns of what is not set.
  if (!job.private_key.empty()) names.emplace_back(kCertificateVariable);
  return names;
}

// Of a launch on this machine whose mpirun is still there.
std::optional<LaunchRecord> RecordOfRanks(const std::string& folder) {
  const absl::StatusOr<LaunchRecord> record = ReadLaunchRecord(folder);
  if (!record.ok() || record->host != HostName()) return std::nullopt;
  const auto mpirun = static_cast<pid_t>(record->mpirun);
  if (mpirun <= 1 || StartTicksOf(mpirun) != record->mpirun_ticks) {
    return std::nullopt;
  }
  return *record;
}

// Its path, which sorts as its step does; empty: there is none.
std::string NewestCheckpoint(const std::string& folder) {
  return LatestCheckpoint(RunFolder(folder).checkpoints()).value_or("");
}

// How often people have ordered that the job stops.
int64_t Stops(const JobWatch& watch) {
  return watch.Status(JobWatch::Clock::now()).orders().stops();
}

// By which commands, and a launch that takes this one's place, find it.
void Record(const LaunchedJob& job, const CoordinatorAddress& address,
            int64_t start, pid_t mpirun, const LaunchLog& log) {
  const absl::Status status =
      WriteLaunchRecord({.address = address,
                         .private_key = job.private_key,
                         .start = start,
                         .host = HostName(),
                         .mpirun = mpirun,
                         .mpirun_ticks = StartTicksOf(mpirun).value_or(0)},
                        job.folder);
  if (!status.ok()) log.Say(MessageOf(status));
}

}  // namespace

absl::StatusOr<RankStart> StartOfJob(const LaunchedJob& job) {
  const bool hosts = !job.machines.hosts.empty();
  if (!hosts && job.allocation.has_value()) {
    ASSIGN_OR_RETURN(RankStart start,
                     StartInAllocation(job.ranks, *job.allocation));
    start.command.insert(start.command.end(), job.program.begin(),
                         job.program.end());
    return start;
  }
  ASSIGN_OR_RETURN(RankStart start,
                   StartOf(job.ranks,
                           hosts ? std::optional(HostsText(job.machines.hosts))
                                 : std::nullopt,
                           job.timeouts));
  if (!hosts) {
    start.command.insert(start.command.end(), job.program.begin(),
                         job.program.end());
    return start;
  }
  // mpirun takes several programs, separated by colons, each with hosts and an
  // environment of its own; their ranks are numbered one after the other.
  start.command.clear();
  for (const std::vector<Host>& group : ByPaths(job.machines.hosts)) {
    ASSIGN_OR_RETURN(RankStart part,
                     StartOf(RanksOn(group), HostsText(group), job.timeouts));
    for (const std::string& name : HandedOn(job)) {
      part.command.insert(part.command.end(), {"-x", name});
    }
    if (!group.front().paths.empty()) {
      part.command.insert(
          part.command.end(),
          {"-x", fmt::format("{}={}", kPathsVariable, group.front().paths)});
    }
    part.command.insert(part.command.end(), job.program.begin(),
                        job.program.end());
    if (!start.command.empty()) part.command.front() = ":";
    start.command.insert(start.command.end(), part.command.begin(),
                         part.command.end());
  }
  return start;
}

bool HasRanks(const std::string& folder) {
  return RecordOfRanks(folder).has_value();
}

std::optional<LeftRanks> FindLeftRanks(const std::string& folder) {
  const std::optional<LaunchRecord> record = RecordOfRanks(folder);
  if (!record.has_value()) return std::nullopt;
  // One that is stopped does not answer, but is there.
  if (!absl::IsUnavailable(
          CoordinatorClient(record->address).GetStatus().status())) {
    return std::nullopt;
  }
  return LeftRanks{.record = *record,
                   .ranks = {.mpirun = static_cast<pid_t>(record->mpirun),
                             .taken_up = true}};
}

int RunToTheEnd(LaunchedJob job, const CoordinatorAddress& address,
                const SignalQueue& signals,
                const std::optional<LeftRanks>& left, JobWatch& watch,
                const LaunchLog& log) {
  const auto fail = [&](const absl::Status& status) {
    log.Say(MessageOf(status));
    return 1;
  };
  int64_t furthest = 0, in_vain = 0;
  std::string newest = NewestCheckpoint(job.folder);
  for (int64_t start = left ? left->record.start : 1;; ++start) {
    watch.Begin(start);
    const int64_t stops = Stops(watch);
    absl::StatusOr<StartedRanks> ranks;
    if (left.has_value() && start == left->record.start) {
      ranks = left->ranks;
      log.Say(
          fmt::format("takes up the run in {}: its launch is gone, its ranks "
                      "(mpirun, process {}) go on",
                      job.folder, left->ranks.mpirun));
    } else {
      ranks = Start(job, start, signals);
      if (!ranks.ok()) return fail(ranks.status());
      // Whoever takes them up looks there, also before their first step. A
      // first start does not know yet that the folder is its own.
      if (watch.last_step() > 0) {
        Record(job, address, start, ranks->mpirun, log);
      }
    }
    const auto begin = JobWatch::Clock::now();
    SilentHosts silent_hosts(job.timeouts);
    const auto out_of_reach = [&](JobWatch::Clock::time_point now) {
      std::set<int64_t> silent;
      for (const RankReport& rank : watch.SilentFor(now, job.timeouts.named)) {
        silent.insert(rank.rank());
      }
      silent_hosts.Look(HostsOfRanks(job.machines.hosts, silent), now);
      return !silent_hosts.Unanswered().empty();
    };
    const auto on_training = [&] {
      Record(job, address, start, ranks->mpirun, log);
      // Slurm's srun may wait for longer, as for a node that is not yet
      // known to be dead.
      if (job.allocation.has_value()) return;
      const auto took =
          std::chrono::ceil<Timeouts::Duration>(JobWatch::Clock::now() - begin);
      job.timeouts.start = std::max(job.timeouts.start_at_least,
                                    job.timeouts.start_times * took);
    };
    const SupervisedEnd end = Supervise(*ranks, signals, job.timeouts, watch,
                                        log, on_training, out_of_reach);
    // A mistake in the job shows before its first step, by a rank's own word or
    // end; what kills ranks while they start, or fails a file of a run that has
    // trained, may be gone the next time.
    const bool worth =
        end.lost || (!watch.AnyFailedForGood() &&
                     (watch.last_step() > 0 || end.status > kSignalled));
    // Ranks that are lost while they carry out a stop are not to begin anew.
    if (end.status == 0 || end.asked || !worth || Stops(watch) > stops) {
      return end.status;
    }
    // A newer checkpoint is progress, too: the next start goes on from there.
    const std::string newest_now = NewestCheckpoint(job.folder);
    in_vain =
        watch.last_step() > furthest || newest_now > newest ? 1 : in_vain + 1;
    furthest = std::max(furthest, watch.last_step());
    newest = std::max(newest, newest_now);
    if (in_vain > job.restarts) return end.status;
    const Timeouts::Duration pause = job.timeouts.before_start(in_vain);
    log.Say(fmt::format(
        "ranks were lost after step {}; starts again from the newest "
        "checkpoint{} (attempt {} of {} without a new step)",
        watch.last_step(),
        pause.count() > 0 ? fmt::format(" in {} s", pause / 1.0s) : "", in_vain,
        job.restarts));
    // Pauses and asking hosts take minutes where nothing goes right; who wants
    // the end does not wait for that.
    int asked = 0;
    const auto given_up = [&] {
      for (int next = SIGCHLD; asked == 0 && next != 0;) {
        next = signals.Next(std::chrono::milliseconds(0));
        if (next != SIGCHLD) asked = next;
      }
      // No rank is there to carry that out.
      if (asked == 0 && Stops(watch) > stops) asked = SIGTERM;
      return asked != 0;
    };
    const auto over = JobWatch::Clock::now() + pause;
    while (JobWatch::Clock::now() < over && !given_up()) {
      std::this_thread::sleep_for(kBetweenLooks);
    }
    const absl::Status goes_on =
        LeaveOutLost(job, silent_hosts.Unanswered(), log, given_up);
    if (given_up()) {
      log.Say("ends as it was told to, while no rank runs");
      return kSignalled + asked;
    }
    if (!goes_on.ok()) return fail(goes_on);
    MakeItResume(job.program);
  }
}

}  // namespace trireme
