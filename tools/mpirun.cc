#include "tools/mpirun.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "fmt/format.h"
#include "runtime/core/check_range.h"
#include "runtime/core/processors.h"
#include "runtime/core/status.h"
#include "tools/hosts.h"

namespace trireme {

namespace {

constexpr int64_t kMostRanks = 4096;
// Linux takes no more for TCP_KEEPIDLE.
constexpr std::chrono::seconds kMostKeepAlive(32'767);
constexpr char kThreads[] = "OMP_NUM_THREADS";

// What ranks need wherever they run.
Environment CommonEnvironment() {
  return {
      // Threads that spin would take the processor from other ranks.
      {"OMP_WAIT_POLICY", "passive"},
      // hwloc, looking for graphics, asks for X displays at localhost, which
      // takes seconds where that name does not resolve.
      {"HWLOC_COMPONENTS", "-gl"},
      // Containers often forbid the copy from process to process.
      {"OMPI_MCA_btl_vader_single_copy_mechanism", "none"},
      // What mpirun ends does not save: it need not be given time.
      {"OMPI_MCA_odls_base_sigkill_timeout", "0"},
  };
}

// What `ranks` ranks that share this machine need.
Environment EnvironmentHere(int64_t ranks, int processors) {
  Environment environment = CommonEnvironment();
  environment.emplace_back(
      kThreads, fmt::format("{}", std::max<int64_t>(1, processors / ranks)));
  environment.emplace_back("OMPI_MCA_btl", "self,vader");
  if (ranks > processors) {
    environment.emplace_back("OMPI_MCA_mpi_yield_when_idle", "1");
  }
  return environment;
}

// What ranks on other machines need, whose processors this one does not know:
// each rank finds out its own share of them.
Environment EnvironmentOnHosts(const Timeouts& timeouts) {
  Environment environment = CommonEnvironment();
  environment.emplace_back("OMPI_MCA_btl", "self,vader,tcp");
  // Without it OpenMPI asks for "node1" where node1.example.com is meant.
  environment.emplace_back("OMPI_MCA_orte_keep_fqdn_hostnames", "1");
  // Daemons and mpirun find out, in less than the usual 8 minutes, that the
  // link between them is gone, and end.
  const auto seconds = [](Timeouts::Duration duration) {
    return fmt::to_string(
        std::min(kMostKeepAlive,
                 std::chrono::ceil<std::chrono::seconds>(duration))
            .count());
  };
  environment.emplace_back("OMPI_MCA_oob_tcp_keepalive_time",
                           seconds(timeouts.daemon_idle));
  environment.emplace_back("OMPI_MCA_oob_tcp_keepalive_intvl",
                           seconds(timeouts.daemon_question));
  environment.emplace_back("OMPI_MCA_oob_tcp_keepalive_probes",
                           fmt::to_string(timeouts.daemon_questions));
  return environment;
}

}  // namespace

absl::StatusOr<RankStart> StartOf(std::optional<int64_t> ranks,
                                  const std::optional<std::string>& hosts,
                                  const Timeouts& timeouts) {
  const int processors = AvailableProcessors();
  int64_t sum = ranks.value_or(processors);
  if (hosts.has_value()) {
    ASSIGN_OR_RETURN(const std::vector<Host> list, ParseHosts("hosts", *hosts));
    sum = RanksOn(list);
  }
  if (sum != ranks.value_or(sum)) {
    return InvalidArgument("--hosts: found {} ranks, expected {}", sum, *ranks);
  }
  RETURN_IF_ERROR(CheckRange("--ranks", sum, 1, kMostRanks));
  RankStart start;
  start.ranks = static_cast<int>(sum);
  start.environment = hosts.has_value() ? EnvironmentOnHosts(timeouts)
                                        : EnvironmentHere(sum, processors);
  start.command = {"mpirun",    "-np",  fmt::format("{}", sum),
                   "--bind-to", "none", "--oversubscribe"};
  if (hosts.has_value()) {
    start.command.insert(start.command.end(),
                         {"--host", *hosts, "--map-by", "slot"});
    // mpirun hands on its own settings only.
    std::vector<std::string> handed_on;
    for (const auto& [name, value] : start.environment) {
      if (!absl::StartsWith(name, "OMPI_")) handed_on.push_back(name);
    }
    if (std::getenv(kThreads) != nullptr) handed_on.emplace_back(kThreads);
    for (const std::string& name : handed_on) {
      start.command.insert(start.command.end(), {"-x", name});
    }
  }
  // Root is usual in containers.
  if (geteuid() == 0) start.command.emplace_back("--allow-run-as-root");
  return start;
}

std::optional<Allocation> SlurmAllocation() {
  const auto number = [](const char* name) -> std::optional<int64_t> {
    const char* const text = std::getenv(name);
    int64_t value = 0;
    if (text == nullptr || !absl::SimpleAtoi(text, &value) || value < 1) {
      return std::nullopt;
    }
    return value;
  };
  const char* const id = std::getenv("SLURM_JOB_ID");
  if (id == nullptr) return std::nullopt;
  const int64_t nodes = number("SLURM_JOB_NUM_NODES").value_or(1);
  return Allocation{.id = id,
                    .tasks = number("SLURM_NTASKS").value_or(nodes),
                    .nodes = nodes,
                    .queued_again = number("SLURM_RESTART_COUNT").has_value()};
}

absl::StatusOr<RankStart> StartInAllocation(std::optional<int64_t> ranks,
                                            const Allocation& allocation) {
  const int64_t tasks = ranks.value_or(allocation.tasks);
  RETURN_IF_ERROR(CheckRange("--ranks", tasks, 1, kMostRanks));
  RankStart start;
  start.ranks = static_cast<int>(tasks);
  start.environment = EnvironmentOnHosts(Timeouts());
  start.command = {"srun",
                   "--mpi=pmix",
                   fmt::format("--ntasks={}", tasks),
                   "--kill-on-bad-exit=1",
                   "--input=none",
                   "--cpu-bind=none"};
  return start;
}

bool UnderMpirun() { return RankUnderMpirun().has_value(); }

std::optional<std::string> RankUnderMpirun() {
  const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (rank == nullptr) rank = std::getenv("PMIX_RANK");
  if (rank == nullptr) return std::nullopt;
  return rank;
}

absl::Status CheckTasksAreRanks() {
  const char* const text = std::getenv("SLURM_STEP_NUM_TASKS");
  int64_t tasks = 0;
  if (UnderMpirun() || text == nullptr || !absl::SimpleAtoi(text, &tasks) ||
      tasks < 2) {
    return absl::OkStatus();
  }
  return FailedPrecondition(
      "found {} tasks of srun that do not know of one another, expected ranks: "
      "`srun --mpi=pmix`, or `trireme launch` in the allocation, without srun",
      tasks);
}

void UseThreadsOf(const ProcessorShare& share) {
  if (std::getenv(kThreads) == nullptr) omp_set_num_threads(share.threads);
}

std::string ShellText(const std::vector<std::string>& command) {
  std::vector<std::string> words;
  for (const std::string& part : command) {
    const bool plain =
        !part.empty() && std::all_of(part.begin(), part.end(), [](char c) {
          return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                 std::string_view("_-./:,=+@%").find(c) !=
                     std::string_view::npos;
        });
    words.push_back(plain ? part
                          : fmt::format("'{}'", absl::StrReplaceAll(
                                                    part, {{"'", "'\\''"}})));
  }
  return absl::StrJoin(words, " ");
}

absl::StatusOr<std::string> ThisProgram() {
  std::error_code error;
  const std::string path =
      std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return Internal("cannot find this program: {}", error.message());
  return path;
}

absl::Status Become(std::vector<std::string> command,
                    const Environment& environment) {
  for (const auto& [name, value] : environment) {
    setenv(name.c_str(), value.c_str(), /*overwrite=*/0);
  }
  std::vector<char*> raw;
  raw.reserve(command.size() + 1);
  for (std::string& part : command) raw.push_back(part.data());
  raw.push_back(nullptr);
  execvp(raw[0], raw.data());
  return Unavailable("cannot run {}: {}; expected OpenMPI's mpirun on the PATH",
                     command[0], std::strerror(errno));
}

}  // namespace trireme
