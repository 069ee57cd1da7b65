#include "tools/hosts.h"

#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "fmt/format.h"
#include "runtime/core/file.h"
#include "runtime/core/processors.h"
#include "runtime/core/status.h"
#include "trainer/config/local_path.h"

namespace trireme {
namespace {

constexpr int64_t kMostRanksOfHost = 4096;
constexpr int64_t kMostHostFileBytes = 16 << 20;
constexpr std::chrono::milliseconds kBetweenLooks(50);
// What a pipe holds: all that an ended process has left in it.
constexpr size_t kMostReasonBytes = 64 << 10;
constexpr char kNoMpirun[] =
    "cannot run mpirun; expected OpenMPI's mpirun on the PATH\n";
// What ssh says of a name that neither the system nor its configuration knows;
// of one that it knows it says what became of the connection.
constexpr char kUnknownToSsh[] = "Could not resolve hostname";
// Of times that nobody is reached, each waited for twice as long.
constexpr int kProbesInVain = 3;
// More of them at once would take longer than they are given.
constexpr size_t kMostProbesPerProcessor = 4;

// A machine's name or address, perhaps after "user@".
bool NamesHost(const std::string& text) {
  return !text.empty() && text.front() != '-' &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '.' || c == '-' || c == '_' ||
                  c == '@';
         });
}

// Whether the system knows what the name stands for.
bool IsKnown(const std::string& host) {
  const std::string name = host.substr(host.rfind('@') + 1);
  addrinfo* found = nullptr;
  if (getaddrinfo(name.c_str(), nullptr, nullptr, &found) != 0) return false;
  freeaddrinfo(found);
  return true;
}

// Up to the first dot, behind "user@": what a machine calls itself may have
// more or less of its domain than what others call it.
std::string FirstLabel(const std::string& host) {
  const std::string name = host.substr(host.rfind('@') + 1);
  return name.substr(0, name.find('.'));
}

// An mpirun that runs `true` on one host; what it says comes through a pipe.
struct Probe {
  std::string host;
  pid_t process = -1;
  int output = -1;
};

Probe StartProbe(const std::string& host) {
  Probe probe{.host = host};
  std::vector<std::string> command = {"mpirun", "-np", "1", "--host",
                                      host + ":1"};
  if (geteuid() == 0) command.emplace_back("--allow-run-as-root");
  command.emplace_back("true");
  std::vector<char*> raw;
  for (std::string& part : command) raw.push_back(part.data());
  raw.push_back(nullptr);
  std::array<int, 2> pipe{};
  if (pipe2(pipe.data(), O_CLOEXEC) != 0) return probe;
  probe.process = fork();
  if (probe.process == 0) {
    setpgid(0, 0);
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(nothing, STDIN_FILENO);
    dup2(pipe[1], STDOUT_FILENO);
    dup2(pipe[1], STDERR_FILENO);
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, nullptr);
    execvp(raw[0], raw.data());
    [[maybe_unused]] const ssize_t told =
        write(STDERR_FILENO, kNoMpirun, sizeof(kNoMpirun) - 1);
    _exit(127);
  }
  close(pipe[1]);
  fcntl(pipe[0], F_SETFL, O_NONBLOCK);
  probe.output = pipe[0];
  return probe;
}

// The first line of what mpirun says that says something.
std::string FirstLine(const std::string& text) {
  for (const auto line : absl::StrSplit(text, '\n')) {
    const std::string stripped(absl::StripAsciiWhitespace(line));
    if (!stripped.empty() && stripped.find_first_not_of('-') != stripped.npos) {
      return stripped;
    }
  }
  return "mpirun ended without a word";
}

// Adds to `unreachable` those of these hosts that are, asked all at once.
void AskAtOnce(std::span<const Host> hosts, std::chrono::seconds patience,
               const std::function<bool()>& given_up,
               std::vector<std::pair<std::string, std::string>>& unreachable) {
  std::vector<Probe> probes;
  for (const Host& host : hosts) probes.push_back(StartProbe(host.name));
  const auto end = std::chrono::steady_clock::now() + patience;
  for (const Probe& probe : probes) {
    std::optional<int> status;
    std::string said;
    while (probe.process > 0 && !status.has_value()) {
      // All of it: one that has ended is not late, however late it is heard.
      std::array<char, 4096> text{};
      ssize_t count = read(probe.output, text.data(), text.size());
      while (count > 0 && said.size() < kMostReasonBytes) {
        said.append(text.data(), count);
        count = read(probe.output, text.data(), text.size());
      }
      int ended = 0;
      if (count <= 0 && waitpid(probe.process, &ended, WNOHANG) != 0) {
        status = ended;
      } else if (std::chrono::steady_clock::now() > end || given_up()) {
        // With what it started: its agent may wait for a machine for minutes.
        kill(-probe.process, SIGKILL);
        waitpid(probe.process, nullptr, 0);
        said = fmt::format("no answer within {} s", patience.count());
        break;
      } else if (count <= 0) {
        std::this_thread::sleep_for(kBetweenLooks);
      }
    }
    if (probe.output >= 0) close(probe.output);
    if (status == 0) continue;
    unreachable.emplace_back(probe.host, FirstLine(said));
  }
}

}  // namespace

absl::StatusOr<std::vector<Host>> ParseHosts(const std::string& option,
                                             const std::string& text) {
  std::vector<Host> hosts;
  std::set<std::string> names;
  for (const auto host : absl::StrSplit(text, ',')) {
    const std::vector<std::string> parts = absl::StrSplit(host, ':');
    int64_t ranks = 0;
    if (parts.size() != 2 || !NamesHost(parts[0]) ||
        !absl::SimpleAtoi(parts[1], &ranks) || ranks < 1 ||
        ranks > kMostRanksOfHost) {
      return InvalidArgument(
          "--{}: found '{}', expected NAME:RANKS, separated by commas", option,
          std::string(host));
    }
    if (!names.insert(parts[0]).second) {
      return InvalidArgument("--{}: found '{}' twice, expected it once", option,
                             parts[0]);
    }
    hosts.push_back({parts[0], ranks});
  }
  return hosts;
}

absl::StatusOr<std::vector<Host>> ReadHostFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMostHostFileBytes));
  std::vector<Host> hosts;
  std::set<std::string> names;
  int number = 0;
  for (const auto view : absl::StrSplit(text, '\n')) {
    ++number;
    const std::string line(view.substr(0, view.find('#')));
    const std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    Host host{.name = words[0], .ranks = 1};
    bool good = NamesHost(host.name);
    std::set<std::string> keys;
    for (const std::string& word : std::span(words).subspan(1)) {
      absl::string_view value = word;
      if (absl::ConsumePrefix(&value, "slots=")) {
        good = good && keys.insert("slots").second &&
               absl::SimpleAtoi(value, &host.ranks) && host.ranks >= 1 &&
               host.ranks <= kMostRanksOfHost;
      } else if (absl::ConsumePrefix(&value, "paths=")) {
        good = good && keys.insert("paths").second;
        host.paths = std::string(value);
        RETURN_IF_ERROR(
            ParseMovedFolders(fmt::format("{}:{}: paths", path, number),
                              host.paths)
                .status());
      } else {
        good = false;
      }
    }
    if (!good || !names.insert(host.name).second) {
      return InvalidArgument(
          "{}:{}: found '{}', expected NAME slots=RANKS paths=FROM:TO, each "
          "name once",
          path, number, line);
    }
    hosts.push_back(host);
  }
  if (hosts.empty()) {
    return InvalidArgument("{}: found no host, expected NAME slots=RANKS",
                           path);
  }
  return hosts;
}

std::string HostsText(const std::vector<Host>& hosts) {
  return absl::StrJoin(hosts, ",", [](std::string* text, const Host& host) {
    text->append(fmt::format("{}:{}", host.name, host.ranks));
  });
}

int64_t RanksOn(const std::vector<Host>& hosts) {
  int64_t ranks = 0;
  for (const Host& host : hosts) ranks += host.ranks;
  return ranks;
}

std::vector<std::pair<std::string, std::string>> FindUnreachable(
    const std::vector<Host>& hosts, std::chrono::seconds patience,
    const std::function<bool()>& given_up) {
  std::vector<std::pair<std::string, std::string>> unreachable;
  const std::span<const Host> all(hosts);
  const size_t at_once = kMostProbesPerProcessor * AvailableProcessors();
  for (size_t first = 0; first < all.size(); first += at_once) {
    AskAtOnce(all.subspan(first, std::min(at_once, all.size() - first)),
              patience, given_up, unreachable);
  }
  return unreachable;
}

Machines WithoutLost(const Machines& machines,
                     const std::vector<std::string>& lost) {
  const auto is_lost = [&](const Host& host) {
    return std::find(lost.begin(), lost.end(), host.name) != lost.end();
  };
  Machines left;
  left.spares = machines.spares;
  std::erase_if(left.spares, is_lost);
  for (const Host& host : machines.hosts) {
    if (!is_lost(host)) {
      left.hosts.push_back(host);
      continue;
    }
    const auto spare = std::find_if(
        left.spares.begin(), left.spares.end(),
        [&](const Host& spare) { return spare.ranks >= host.ranks; });
    if (spare == left.spares.end()) continue;
    left.hosts.push_back({spare->name, host.ranks, spare->paths});
    left.spares.erase(spare);
  }
  return left;
}

absl::StatusOr<Machines> ReachableMachines(
    const Machines& machines, std::chrono::seconds patience,
    const std::function<void(const std::string&)>& say) {
  std::vector<Host> all = machines.hosts;
  all.insert(all.end(), machines.spares.begin(), machines.spares.end());
  std::vector<std::string> lost;
  for (const auto& [name, reason] : FindUnreachable(all, patience)) {
    if (absl::StrContains(reason, kUnknownToSsh) && !IsKnown(name)) {
      return NotFound(
          "host {}: found no machine of that name ({}), expected one that `ssh "
          "{} true` reaches",
          name, reason, name);
    }
    say(fmt::format("host {} cannot be reached: {}", name, reason));
    lost.push_back(name);
  }
  Machines left = WithoutLost(machines, lost);
  if (RanksOn(left.hosts) < RanksOn(machines.hosts)) {
    return Unavailable(
        "--hosts: found {} out of reach, expected all to be reached, or "
        "--spares with room for their ranks",
        absl::StrJoin(lost, ", "));
  }
  if (left.hosts != machines.hosts) {
    say(fmt::format("goes on with {}", HostsText(left.hosts)));
  }
  // They may be there again when they are needed.
  for (const Host& spare : machines.spares) {
    if (std::find(lost.begin(), lost.end(), spare.name) != lost.end()) {
      left.spares.push_back(spare);
    }
  }
  return left;
}

std::vector<std::string> FindLost(
    const Machines& machines, const std::set<std::string>& silent,
    Patience patience, const std::function<bool()>& given_up,
    const std::function<void(const std::string&)>& say) {
  std::set<std::string> labels;
  for (const std::string& name : silent) labels.insert(FirstLabel(name));
  std::vector<Host> doubted, others;
  for (const Host& host : machines.hosts) {
    (labels.contains(FirstLabel(host.name)) ? doubted : others).push_back(host);
  }
  // Where all are silent it is not known who is out of reach of whom.
  if (others.empty()) others.swap(doubted);
  std::vector<std::pair<std::string, std::string>> unreachable;
  for (int tries = 0; tries <= kProbesInVain; ++tries, patience.others *= 2) {
    unreachable = FindUnreachable(doubted, patience.silent, given_up);
    const auto append = [&](const std::vector<Host>& hosts) {
      const auto more = FindUnreachable(hosts, patience.others, given_up);
      unreachable.insert(unreachable.end(), more.begin(), more.end());
    };
    append(others);
    if (unreachable.empty() || given_up()) return {};
    append(machines.spares);
    if (given_up()) return {};
    const size_t all = machines.hosts.size() + machines.spares.size();
    if (unreachable.size() < all) break;
    say(fmt::format("no host can be reached within {} s",
                    patience.others.count()));
    others = machines.hosts;
    doubted.clear();
  }
  std::vector<std::string> lost;
  for (const auto& [name, reason] : unreachable) {
    say(fmt::format("host {} cannot be reached: {}", name, reason));
    lost.push_back(name);
  }
  return lost;
}

std::vector<Host> FirstRanks(std::vector<Host> hosts, int64_t ranks) {
  for (Host& host : hosts) {
    host.ranks = std::min(host.ranks, ranks);
    ranks -= host.ranks;
  }
  std::erase_if(hosts, [](const Host& host) { return host.ranks == 0; });
  return hosts;
}

}  // namespace trireme
