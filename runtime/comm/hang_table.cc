#include "runtime/comm/hang_table.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/comm/collective.h"

namespace trireme {
namespace {

using Reports = std::span<const std::optional<HangReport>>;

std::vector<int> RanksOf(const HangReport::Communicator& communicator) {
  return communicator.ranks;
}

const HangReport::Communicator* CommunicatorOf(
    const HangReport& report, const CommunicationOperation& operation) {
  const int index = operation.communicator;
  if (index < 0 || index >= std::ssize(report.communicators)) return nullptr;
  return &report.communicators[index];
}

// True where two ranks mean the same communicator.
bool Same(const HangReport::Communicator& a,
          const HangReport::Communicator& b) {
  return a.name == b.name && a.occurrence == b.occurrence &&
         RanksOf(a) == RanksOf(b);
}

// "tp activations [0-3]".
std::string NameOf(const HangReport::Communicator& communicator) {
  const std::string ranks =
      fmt::format(" [{}]", RanksText(RanksOf(communicator)));
  std::string_view name = communicator.name;
  if (name.ends_with(ranks)) name.remove_suffix(ranks.size());
  return fmt::format("{}{}", name, ranks);
}

std::string NameOf(const HangReport& report,
                   const CommunicationOperation& operation) {
  const auto* communicator = CommunicatorOf(report, operation);
  return communicator == nullptr ? "?" : NameOf(*communicator);
}

std::string TextOf(const CommunicationOperation& operation) {
  if (operation.sequence < 0) return operation.text;
  return fmt::format("{} #{}", operation.text, operation.sequence);
}

// "rank 3", "ranks 0, 2".
std::string Ranks(std::span<const int> ranks) {
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s",
                     RanksText(ranks));
}

const std::optional<HangReport>* ReportOf(Reports reports, int rank) {
  if (rank < 0 || rank >= static_cast<int>(reports.size())) return nullptr;
  return &reports[rank];
}

// What `report`'s rank started as collective number `sequence` on
// `communicator`, if it did and remembers.
const CommunicationOperation* FindCollective(
    const HangReport& report, const HangReport::Communicator& communicator,
    int64_t sequence) {
  const auto is_it = [&](const CommunicationOperation& operation) {
    const auto* own = CommunicatorOf(report, operation);
    return own != nullptr && operation.sequence == sequence &&
           Same(*own, communicator);
  };
  // Waited for long ago, it may have left the recent ones.
  for (const HangReport::Wait& wait : report.waits) {
    if (is_it(wait.operation)) return &wait.operation;
  }
  for (const CommunicationOperation& operation : report.recent) {
    if (is_it(operation)) return &operation;
  }
  return nullptr;
}

bool HasStarted(const HangReport& report,
                const HangReport::Communicator& communicator,
                int64_t sequence) {
  for (const HangReport::Communicator& own : report.communicators) {
    if (Same(own, communicator)) return own.collectives_started > sequence;
  }
  return false;
}

// May two ranks' operations be one collective?
bool Match(const CommunicationOperation& a, const CommunicationOperation& b) {
  return a.text == b.text && (a.bytes < 0 || b.bytes < 0 || a.bytes == b.bytes);
}

std::string StateOf(const std::optional<HangReport>& report) {
  if (!report.has_value()) {
    return "no answer (dead or stuck outside communication)";
  }
  if (!report->failure.empty()) return "failed: " + report->failure;
  if (report->finished) {
    return fmt::format("finished {:.1f} s ago", report->activity_seconds);
  }
  std::string text = "computing";
  if (!report->activity.empty()) {
    text += fmt::format(" in {} for {:.1f} s", report->activity,
                        report->activity_seconds);
  }
  if (report->last.has_value()) {
    text += fmt::format("; started last: {} on {}", TextOf(*report->last),
                        NameOf(*report, *report->last));
  }
  return text;
}

// Whether members of its communicator started something else in place of
// `mine`, a collective of `report`'s rank; what, if so.
std::string MismatchOf(Reports reports, const HangReport& report,
                       const CommunicationOperation& mine) {
  const auto* communicator = CommunicatorOf(report, mine);
  if (mine.sequence < 0 || communicator == nullptr) return "";
  std::vector<int> with_me;
  std::vector<int> against;
  const CommunicationOperation* other = nullptr;
  for (int rank : communicator->ranks) {
    const auto* peer = ReportOf(reports, rank);
    if (peer == nullptr || !peer->has_value()) continue;
    const auto* theirs = FindCollective(**peer, *communicator, mine.sequence);
    if (theirs == nullptr) continue;
    if (Match(mine, *theirs)) {
      with_me.push_back(rank);
    } else if (other == nullptr || Match(*other, *theirs)) {
      other = theirs;
      against.push_back(rank);
    }
  }
  if (other == nullptr) return "";
  const bool sizes = mine.text == other->text;
  const auto text = [&](const CommunicationOperation& operation) {
    return sizes
               ? fmt::format("{} of {} bytes", operation.text, operation.bytes)
               : operation.text;
  };
  return fmt::format(
      "{} started {}, {} {}, both as collective #{} of {}: different {}",
      Ranks(with_me), text(mine), Ranks(against), text(*other), mine.sequence,
      NameOf(*communicator), sizes ? "sizes" : "operations");
}

// The mismatch with the lowest number: what follows one is out of step.
std::string FindMismatch(Reports reports) {
  std::string found;
  int64_t lowest = std::numeric_limits<int64_t>::max();
  const auto look = [&](const HangReport& report,
                        const CommunicationOperation& operation) {
    if (operation.sequence >= lowest) return;
    std::string mismatch = MismatchOf(reports, report, operation);
    if (mismatch.empty()) return;
    found = std::move(mismatch);
    lowest = operation.sequence;
  };
  for (const auto& report : reports) {
    if (!report.has_value()) continue;
    for (const auto& wait : report->waits) look(*report, wait.operation);
    for (const auto& operation : report->recent) look(*report, operation);
  }
  return found;
}

// The ranks that `of` waits for in `operation`.
std::vector<int> AwaitedRanks(Reports reports, const HangReport& of,
                              const CommunicationOperation& operation) {
  if (operation.sequence < 0) {
    return operation.peer < 0 ? std::vector<int>{}
                              : std::vector<int>{operation.peer};
  }
  const auto* communicator = CommunicatorOf(of, operation);
  if (communicator == nullptr) return {};
  std::vector<int> awaited;
  for (int rank : communicator->ranks) {
    if (rank == of.rank) continue;
    const auto* peer = ReportOf(reports, rank);
    if (peer != nullptr && peer->has_value()) {
      const auto* theirs =
          FindCollective(**peer, *communicator, operation.sequence);
      const bool started = theirs != nullptr ? Match(operation, *theirs)
                                             : HasStarted(**peer, *communicator,
                                                          operation.sequence);
      if (started) continue;
    }
    awaited.push_back(rank);
  }
  return awaited;
}

const HangReport::Wait* LongestWait(const HangReport& report) {
  const auto longest = std::max_element(
      report.waits.begin(), report.waits.end(),
      [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  return longest == report.waits.end() ? nullptr : &*longest;
}

// Follows who waits for whom from the rank that waits longest: to a rank that
// does not wait, or round in a circle.
std::string FollowWaits(Reports reports) {
  int rank = -1;
  double longest = -1;
  for (size_t i = 0; i < reports.size(); ++i) {
    if (!reports[i].has_value()) continue;
    const HangReport::Wait* wait = LongestWait(*reports[i]);
    if (wait == nullptr || wait->seconds <= longest) continue;
    rank = static_cast<int>(i);
    longest = wait->seconds;
  }
  if (rank < 0) return "no rank waits";
  const auto waits = [&](int of) {
    const auto* report = ReportOf(reports, of);
    return report != nullptr && report->has_value() &&
           !(*report)->waits.empty();
  };
  std::vector<int> path;
  while (true) {
    const auto seen = std::find(path.begin(), path.end(), rank);
    if (seen != path.end()) {
      // From its lowest rank on, whoever was looked at first.
      std::rotate(seen, std::min_element(seen, path.end()), path.end());
      std::string circle;
      for (auto at = seen; at != path.end(); ++at) {
        const HangReport& report = *reports[*at];
        circle += fmt::format("{} in {} -> ", *at,
                              TextOf(LongestWait(report)->operation));
      }
      return fmt::format("ranks wait for one another in a circle: {}{}", circle,
                         *seen);
    }
    path.push_back(rank);
    const HangReport& report = *reports[rank];
    const HangReport::Wait& wait = *LongestWait(report);
    const std::vector<int> awaited =
        AwaitedRanks(reports, report, wait.operation);
    if (awaited.empty()) {
      return fmt::format(
          "all that rank {} waits for in {} on {} have started it: its data "
          "is late or lost",
          rank, TextOf(wait.operation), NameOf(report, wait.operation));
    }
    const auto idle = std::find_if_not(awaited.begin(), awaited.end(), waits);
    if (idle == awaited.end()) {
      rank = awaited.front();
      continue;
    }
    const auto* state = ReportOf(reports, *idle);
    return fmt::format(
        "rank {} has not started its part of {} on {}, for which rank {} "
        "waits: {}",
        *idle, TextOf(wait.operation), NameOf(report, wait.operation), rank,
        StateOf(state == nullptr ? std::optional<HangReport>() : *state));
  }
}

}  // namespace

std::string HangTable(Reports reports) {
  using Row = std::array<std::string, 5>;
  std::vector<Row> rows = {
      {"rank", "waits", "in", "on communicator", "for ranks"}};
  for (size_t rank = 0; rank < reports.size(); ++rank) {
    const std::optional<HangReport>& report = reports[rank];
    if (!report.has_value() || report->waits.empty() ||
        !report->failure.empty()) {
      rows.push_back({fmt::to_string(rank), "-", StateOf(report), "", ""});
      continue;
    }
    for (const HangReport::Wait& wait : report->waits) {
      const CommunicationOperation& operation = wait.operation;
      std::string in = TextOf(operation);
      if (!report->activity.empty()) {
        in += fmt::format(", during {}", report->activity);
      }
      const std::vector<int> awaited =
          AwaitedRanks(reports, *report, operation);
      rows.push_back({fmt::to_string(rank),
                      fmt::format("{:.1f} s", wait.seconds), std::move(in),
                      NameOf(*report, operation),
                      awaited.empty() ? "none" : RanksText(awaited)});
    }
  }
  // A state fills the rest of its line.
  std::array<size_t, 5> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      if (i == 2 && row[3].empty()) break;
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string table;
  for (const Row& row : rows) {
    std::string line = fmt::format("{:>{}}  {:>{}}  {:<{}}  {:<{}}  {}", row[0],
                                   widths[0], row[1], widths[1], row[2],
                                   widths[2], row[3], widths[3], row[4]);
    line.erase(line.find_last_not_of(' ') + 1);
    table += line + '\n';
  }
  std::string verdict = FindMismatch(reports);
  for (const auto& report : reports) {
    if (!verdict.empty()) break;
    if (!report.has_value() || report->failure.empty()) continue;
    verdict = fmt::format("rank {} failed: {}", report->rank, report->failure);
  }
  if (verdict.empty()) verdict = FollowWaits(reports);
  return fmt::format("{}verdict: {}\n", table, verdict);
}

}  // namespace trireme
