// The machines of a launch: their list, whether they can be reached, and what
// takes the place of those that cannot.

#ifndef TRIREME_TOOLS_HOSTS_H_
#define TRIREME_TOOLS_HOSTS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trireme {

struct Host {
  std::string name;
  int64_t ranks = 0;
  // What of the job's paths lies elsewhere there, as ParseMovedFolders
  // (trainer/config/local_path.h) takes it; empty: nothing.
  std::string paths = {};

  friend bool operator==(const Host&, const Host&) = default;
};

// "a:4,b:4". `option`: for errors, which are InvalidArgument.
absl::StatusOr<std::vector<Host>> ParseHosts(const std::string& option,
                                             const std::string& text);
// OpenMPI's host file, "a slots=4" a line, # before comments, and behind that
// "paths=/data:/scratch/data". A host without slots has one rank. Errors: no
// such file, and as above with file and line.
absl::StatusOr<std::vector<Host>> ReadHostFile(const std::string& path);
std::string HostsText(const std::vector<Host>& hosts);
int64_t RanksOn(const std::vector<Host>& hosts);

// Why mpirun cannot start a process on a machine, by the machine's name;
// nothing of those where it can. A few for each processor here are tried at
// once, for `patience` at most, and not once `given_up` says so.
std::vector<std::pair<std::string, std::string>> FindUnreachable(
    const std::vector<Host>& hosts, std::chrono::seconds patience,
    const std::function<bool()>& given_up = [] { return false; });

// Machines in use, in the order of their ranks, and those that wait.
struct Machines {
  std::vector<Host> hosts;
  std::vector<Host> spares;
};

// Without the `lost` ones, by name: the first spare that has room takes the
// place of each, and keeps to its ranks; where none has, the place is gone.
Machines WithoutLost(const Machines& machines,
                     const std::vector<std::string>& lost);

// What a launch begins with: all are asked as above, and a spare takes the
// place of each host where no process can be started; `say` is told. Spares
// that do not answer come last. Errors: NotFound where neither the system nor
// mpirun's agent, which may have names of its own (ssh's aliases), knows a
// name; Unavailable where no spare has room.
absl::StatusOr<Machines> ReachableMachines(
    const Machines& machines, std::chrono::seconds patience,
    const std::function<void(const std::string&)>& say);

// How long machines have to answer.
struct Patience {
  std::chrono::seconds silent;  // whose ranks have not been heard for long
  std::chrono::seconds others;
};

// After ranks were lost: the names of the machines that cannot be reached, of
// spares where hosts are among them; `say` is told why. `silent`: machines
// whose ranks were not heard, as they call themselves. Where nobody is reached,
// it may well be this machine that is cut off, or busy: all are asked thrice
// more, each time for twice as long. Nothing once `given_up` says so.
std::vector<std::string> FindLost(
    const Machines& machines, const std::set<std::string>& silent,
    Patience patience, const std::function<bool()>& given_up,
    const std::function<void(const std::string&)>& say);

// The first `ranks` of the hosts' ranks; there are as many.
std::vector<Host> FirstRanks(std::vector<Host> hosts, int64_t ranks);

}  // namespace trireme

#endif  // TRIREME_TOOLS_HOSTS_H_
