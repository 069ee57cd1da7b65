#include "tools/hosts.h"

#include <netdb.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "fmt/format.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "tools/host_questions.h"
#include "trainer/config/local_path.h"

namespace trireme {
namespace {

constexpr int64_t kMostRanksOfHost = 4096;
constexpr int64_t kMostHostFileBytes = 16 << 20;
constexpr std::chrono::milliseconds kBetweenLooks(50);
constexpr char kNoAnswer[] = "no answer yet";
// What ssh says of a name that neither the system nor its configuration knows;
// of one that it knows it says what became of the connection.
constexpr char kUnknownToSsh[] = "Could not resolve hostname";
// Of times that nobody is reached, each waited for twice as long.
constexpr int kTriesInVain = 3;

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

using Answers = std::map<std::string, std::optional<std::string>>;

// Asks on, until `enough` says that answers are.
void AwaitAnswers(HostQuestions& questions, Answers& answers,
                  const std::function<bool()>& enough) {
  for (;;) {
    for (HostQuestions::Answer& answer : questions.Hear()) {
      answers[answer.host] = std::move(answer.unreachable);
    }
    if (enough()) return;
    std::this_thread::sleep_for(kBetweenLooks);
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
    const std::vector<Host>& hosts, Timeouts::Duration patience,
    const std::function<bool()>& given_up) {
  HostQuestions questions;
  Answers answers;
  for (const Host& host : hosts) questions.Ask(host.name, patience);
  AwaitAnswers(questions, answers,
               [&] { return answers.size() == hosts.size() || given_up(); });
  std::vector<std::pair<std::string, std::string>> unreachable;
  for (const Host& host : hosts) {
    const auto [answer, is_new] = answers.try_emplace(host.name, kNoAnswer);
    if (!answer->second.has_value()) continue;
    unreachable.emplace_back(host.name, *answer->second);
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
  std::stable_partition(left.spares.begin(), left.spares.end(),
                        std::not_fn(is_lost));
  for (const Host& host : machines.hosts) {
    if (!is_lost(host)) {
      left.hosts.push_back(host);
      continue;
    }
    const auto spare = std::find_if(
        left.spares.begin(), left.spares.end(), [&](const Host& spare) {
          return spare.ranks >= host.ranks && !is_lost(spare);
        });
    if (spare == left.spares.end()) continue;
    left.hosts.push_back({spare->name, host.ranks, spare->paths});
    left.spares.erase(spare);
  }
  return left;
}

absl::StatusOr<Machines> ReachableMachines(
    const Machines& machines, Timeouts::Duration patience,
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
  return left;
}

Machines MachinesLeft(const Machines& machines,
                      const std::set<std::string>& unanswered,
                      Patience patience, const std::function<bool()>& given_up,
                      const std::function<void(const std::string&)>& say) {
  std::vector<Host> all = machines.hosts;
  all.insert(all.end(), machines.spares.begin(), machines.spares.end());
  std::set<std::string> doubted = unanswered;
  // Where all are silent it is not known who is out of reach of whom.
  if (std::all_of(
          machines.hosts.begin(), machines.hosts.end(),
          [&](const Host& host) { return doubted.contains(host.name); })) {
    doubted.clear();
  }
  Answers answers;
  const auto is_known = [&](const Host& host) {
    return answers.contains(host.name);
  };
  const auto left_out = [&] {
    std::vector<std::string> names;
    for (const Host& host : all) {
      const auto answer = answers.find(host.name);
      if (answer == answers.end() || answer->second.has_value()) {
        names.push_back(host.name);
      }
    }
    return names;
  };
  const auto spared = HostQuestions::Clock::now() + patience.spared;
  const auto enough = [&] {
    if (given_up() || answers.size() == all.size()) return true;
    const bool waits = HostQuestions::Clock::now() < spared;
    return std::all_of(machines.hosts.begin(), machines.hosts.end(),
                       [&](const Host& host) {
                         return is_known(host) ||
                                (!waits && doubted.contains(host.name));
                       }) &&
           RanksOn(WithoutLost(machines, left_out()).hosts) ==
               RanksOn(machines.hosts);
  };
  for (int tries = 0;; ++tries, patience.others *= 2) {
    HostQuestions questions;
    answers.clear();
    for (const Host& host : all) {
      questions.Ask(host.name, doubted.contains(host.name) ? patience.unanswered
                                                           : patience.others);
    }
    AwaitAnswers(questions, answers, enough);
    if (given_up()) return machines;
    if (left_out().size() < all.size() || tries == kTriesInVain) break;
    say(fmt::format("no host can be reached within {} s",
                    std::chrono::duration<double>(patience.others).count()));
    doubted.clear();
  }
  const Machines left = WithoutLost(machines, left_out());
  // Of spares that were not needed it does not matter who answered first.
  if (left.hosts == machines.hosts) return machines;
  for (const Host& host : all) {
    const auto [answer, is_new] = answers.try_emplace(host.name, kNoAnswer);
    // A spare that was not waited for is not out of reach.
    const bool waited_for = !is_new || doubted.contains(host.name);
    if (waited_for && answer->second.has_value()) {
      say(fmt::format("host {} cannot be reached: {}", host.name,
                      *answer->second));
    }
  }
  return left;
}

std::set<std::string> HostsOfRanks(const std::vector<Host>& hosts,
                                   const std::set<int64_t>& ranks) {
  std::set<std::string> found;
  int64_t first = 0;
  for (const Host& host : hosts) {
    const auto rank = ranks.lower_bound(first);
    first += host.ranks;
    if (rank != ranks.end() && *rank < first) found.insert(host.name);
  }
  return found;
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
