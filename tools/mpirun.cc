#include "tools/mpirun.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "runtime/core/processors.h"
#include "runtime/core/status.h"

namespace trireme {

namespace {

constexpr int64_t kMostRanks = 4096;

// What `ranks` ranks that share a machine need.
Environment EnvironmentFor(int64_t ranks, int processors, bool several_hosts) {
  Environment environment = {
      {"OMP_NUM_THREADS",
       fmt::format("{}", std::max<int64_t>(1, processors / ranks))},
      // Threads that spin would take the processor from other ranks.
      {"OMP_WAIT_POLICY", "passive"},
      // hwloc, looking for graphics, asks for X displays at localhost, which
      // takes seconds where that name does not resolve.
      {"HWLOC_COMPONENTS", "-gl"},
      {"OMPI_MCA_btl", several_hosts ? "self,vader,tcp" : "self,vader"},
      // Containers often forbid the copy from process to process.
      {"OMPI_MCA_btl_vader_single_copy_mechanism", "none"},
  };
  if (ranks > processors) {
    environment.emplace_back("OMPI_MCA_mpi_yield_when_idle", "1");
  }
  return environment;
}

// The ranks of each of "a:4,b:4".
absl::StatusOr<std::vector<int64_t>> RanksOfHosts(const std::string& hosts) {
  std::vector<int64_t> ranks;
  for (const auto host : absl::StrSplit(hosts, ',')) {
    const std::vector<std::string> parts = absl::StrSplit(host, ':');
    int64_t count = 0;
    if (parts.size() != 2 || parts[0].empty() || parts[0].front() == '-' ||
        !absl::SimpleAtoi(parts[1], &count) || count < 1 ||
        count > kMostRanks) {
      return InvalidArgument(
          "--hosts: found '{}', expected NAME:RANKS, separated by commas",
          std::string(host));
    }
    ranks.push_back(count);
  }
  return ranks;
}

}  // namespace

absl::StatusOr<RankStart> StartOf(std::optional<int64_t> ranks,
                                  const std::string& hosts) {
  const int processors = AvailableProcessors();
  std::vector<int64_t> by_host = {ranks.value_or(processors)};
  if (!hosts.empty()) {
    ASSIGN_OR_RETURN(by_host, RanksOfHosts(hosts));
  }
  const int64_t sum =
      std::accumulate(by_host.begin(), by_host.end(), int64_t{0});
  if (sum != ranks.value_or(sum)) {
    return InvalidArgument("--hosts: found {} ranks, expected {}", sum, *ranks);
  }
  if (sum < 1 || sum > kMostRanks) {
    return InvalidArgument("--ranks: found {}, expected 1 to {}", sum,
                           kMostRanks);
  }
  RankStart start;
  start.ranks = static_cast<int>(sum);
  start.environment =
      EnvironmentFor(*std::max_element(by_host.begin(), by_host.end()),
                     processors, !hosts.empty());
  start.command = {"mpirun",    "-np",  fmt::format("{}", sum),
                   "--bind-to", "none", "--oversubscribe"};
  if (!hosts.empty()) {
    start.command.insert(start.command.end(),
                         {"--host", hosts, "--map-by", "slot"});
    // mpirun hands on its own settings only.
    for (const auto& [name, value] : start.environment) {
      if (absl::StartsWith(name, "OMPI_")) continue;
      start.command.insert(start.command.end(), {"-x", name});
    }
  }
  // Root is usual in containers.
  if (geteuid() == 0) start.command.emplace_back("--allow-run-as-root");
  return start;
}

bool UnderMpirun() { return std::getenv("OMPI_COMM_WORLD_RANK") != nullptr; }

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
