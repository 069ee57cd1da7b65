// The machines of a launch: their list, whether they can be reached, and what
// takes the place of those that cannot.

#ifndef TRIREME_TOOLS_HOSTS_H_
#define TRIREME_TOOLS_HOSTS_H_

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/core/timeouts.h"

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
// nothing of those where it can. Each may take `patience` (HostQuestions);
// none is waited for once `given_up` says so.
std::vector<std::pair<std::string, std::string>> FindUnreachable(
    const std::vector<Host>& hosts, Timeouts::Duration patience,
    const std::function<bool()>& given_up = [] { return false; });

// Machines in use, in the order of their ranks, and those that wait.
struct Machines {
  std::vector<Host> hosts;
  std::vector<Host> spares;
};

// Without the `lost` ones, by name: the first spare that has room takes the
// place of each, and keeps to its ranks; where none has, the place is gone.
// Lost spares come last: they may be there again when they are needed.
Machines WithoutLost(const Machines& machines,
                     const std::vector<std::string>& lost);

// What a launch begins with: all are asked as above, and a spare takes the
// place of each host where no process can be started; `say` is told. Errors:
// NotFound where neither the system nor mpirun's agent, which may have names of
// its own (ssh's aliases), knows a name; Unavailable where no spare has room.
absl::StatusOr<Machines> ReachableMachines(
    const Machines& machines, Timeouts::Duration patience,
    const std::function<void(const std::string&)>& say);

// How long machines have to answer.
struct Patience {
  // Those that were asked in vain already: until a spare may take the place,
  // and where there is none.
  Timeouts::Duration spared;
  Timeouts::Duration unanswered;
  Timeouts::Duration others;
};

// After ranks were lost, the machines to go on with: all are asked at once, and
// what is not heard is left out as above; `say` is told why. `unanswered`:
// did not answer while their ranks were silent (SilentHosts). Where spares have
// answered for all that are missed, neither those nor further spares are waited
// for. Where nobody is reached, it may well be this machine that is cut off, or
// busy: all are asked thrice more, each time for twice as long. The machines as
// they were once `given_up` says so.
Machines MachinesLeft(const Machines& machines,
                      const std::set<std::string>& unanswered,
                      Patience patience, const std::function<bool()>& given_up,
                      const std::function<void(const std::string&)>& say);

// The hosts that have these of the ranks, which are numbered as `hosts` lists
// them.
std::set<std::string> HostsOfRanks(const std::vector<Host>& hosts,
                                   const std::set<int64_t>& ranks);

// The first `ranks` of the hosts' ranks; there are as many.
std::vector<Host> FirstRanks(std::vector<Host> hosts, int64_t ranks);

}  // namespace trireme

#endif  // TRIREME_TOOLS_HOSTS_H_
