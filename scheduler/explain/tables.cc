#include "scheduler/explain/tables.h"

#include <algorithm>
#include <map>
#include <utility>

#include "fmt/format.h"
#include "scheduler/explain/verdicts.h"
#include "scheduler/plan/plan.h"

namespace trireme {
namespace {

std::string Gigabytes(int64_t bytes) {
  return fmt::format("{:.2f}", static_cast<double>(bytes) / 1e9);
}

// Columns as wide as their widest cell; the first is left-aligned where asked.
std::string Table(const std::vector<std::vector<std::string>>& rows,
                  size_t left_column) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      line += i == left_column ? fmt::format("{:<{}}", row[i], widths[i])
                               : fmt::format("{:>{}}", row[i], widths[i]);
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    text += line + "\n";
  }
  return text;
}

}  // namespace

std::string PlanTable(const PlanReport& report) {
  std::vector<std::vector<std::string>> rows = {
      {"#", "step s", "samples/s", "MFU %"}};
  for (const StepPart& part : kStepParts) rows[0].emplace_back(part.name);
  rows[0].insert(rows[0].end(), {"peak GB", "plan"});
  const auto column = [header = rows[0]](std::string_view name) {
    return std::find(header.begin(), header.end(), name) - header.begin();
  };
  for (size_t i = 0; i < report.best.size(); ++i) {
    const Estimate& estimate = report.best[i].estimate;
    int64_t peak = 0;
    for (const MemoryBytes& rank : estimate.peak) {
      peak = std::max(peak, rank.total());
    }
    std::vector<std::string>& row = rows.emplace_back();
    row = {std::to_string(i + 1), fmt::format("{:.4g}", estimate.step_s),
           fmt::format("{:.4g}", estimate.samples_per_s),
           fmt::format("{:.1f}", 100 * estimate.mfu)};
    for (const auto& [name, part] : kStepParts) {
      row.push_back(fmt::format("{:.1f} %",
                                100 * estimate.parts.*part / estimate.step_s));
    }
    row.insert(row.end(), {Gigabytes(peak), ToText(report.best[i].candidate)});
  }
  const bool offloads = std::any_of(
      report.best.begin(), report.best.end(),
      [](const RankedPlan& ranked) { return ranked.plan.has_offload(); });
  const bool experts = std::any_of(
      report.best.begin(), report.best.end(),
      [](const RankedPlan& ranked) { return ranked.candidate.ep > 1; });
  for (auto& row : rows) {
    if (!offloads) row.erase(row.begin() + column("copies"));
    if (!experts) row.erase(row.begin() + column("ep"));
  }
  return Table(rows, rows.front().size() - 1);
}

std::string MemoryTable(const RankedPlan& plan) {
  std::vector<std::vector<std::string>> rows = {{"pipeline rank"}};
  for (const MemoryBytesOf& category : kMemoryCategories) {
    rows.front().emplace_back(category.name);
  }
  rows.front().insert(rows.front().end(), {"peak GB", "limit GB", "free GB"});
  for (size_t pp = 0; pp < plan.estimate.peak.size(); ++pp) {
    const MemoryBytes& peak = plan.estimate.peak[pp];
    const int64_t limit = plan.estimate.limit[pp];
    std::vector<std::string>& row = rows.emplace_back(1, std::to_string(pp));
    for (const MemoryBytesOf& category : kMemoryCategories) {
      row.push_back(Gigabytes(peak.*category.bytes));
    }
    row.insert(row.end(), {Gigabytes(peak.total()), Gigabytes(limit),
                           Gigabytes(limit - peak.total())});
  }
  return Table(rows, rows.front().size());
}

std::string OffloadText(const PlannerInput& input, const RankedPlan& plan) {
  if (!plan.plan.has_offload()) return "";
  const Estimate& estimate = plan.estimate;
  const std::vector<int64_t> blocks = BlocksOfRanks(plan.plan);
  const auto part = [&](double seconds) {
    return fmt::format("{:.4g} s ({:.1f} % of the step)", seconds,
                       100 * seconds / estimate.step_s);
  };
  const uint32_t device_blocks = plan.plan.offload().device_blocks();
  std::string text = fmt::format(
      "offload: {} of {} blocks{}{} stay on a device; devices wait {} for "
      "copies "
      "and {} for the optimizer on the host\n",
      plan.plan.offload().resident_units(),
      *std::max_element(blocks.begin(), blocks.end()),
      device_blocks == 0
          ? ""
          : fmt::format(" and the first {} of a stage", device_blocks),
      plan.plan.offload().activations() ? " and the inputs at work" : "",
      part(estimate.parts.copy_s), part(estimate.parts.optimizer_s));
  for (size_t node = 0; node < estimate.host_bytes.size(); ++node) {
    if (estimate.host_bytes[node] == 0) continue;
    const Cluster::Node& host = input.cluster.nodes(static_cast<int>(node));
    text += fmt::format(
        "  host {}: {} GB{}\n", host.name(),
        Gigabytes(estimate.host_bytes[node]),
        host.host_memory_bytes() == 0
            ? ", of unknown memory"
            : fmt::format(" of {}", Gigabytes(static_cast<int64_t>(
                                        host.host_memory_bytes()))));
  }
  const uint32_t host_units = plan.plan.offload().nvme().host_units();
  const std::string on_drive =
      host_units == 0
          ? "optimizer states"
          : fmt::format("blocks and optimizer states (the host has {} blocks)",
                        host_units);
  for (size_t node = 0; node < estimate.drive_bytes.size(); ++node) {
    if (estimate.drive_bytes[node] == 0) continue;
    const Cluster::Node& host = input.cluster.nodes(static_cast<int>(node));
    text += fmt::format(
        "  drive of {}: {} GB of {} in {}, read and written each step{}\n",
        host.name(), Gigabytes(estimate.drive_bytes[node]), on_drive,
        plan.plan.offload().nvme().folder(),
        host.drive_free_bytes() == 0
            ? ""
            : fmt::format(
                  "; {} GB are free there",
                  Gigabytes(static_cast<int64_t>(host.drive_free_bytes()))));
  }
  return text;
}

std::string VerdictSummary(const PlannerInput& input,
                           const PlanReport& report) {
  // The example of a verdict: the nearest to being chosen.
  std::map<VerdictCode, std::pair<int64_t, const Candidate*>> by_code;
  for (const Candidate& candidate : report.candidates) {
    auto& [count, example] = by_code[candidate.verdict];
    ++count;
    if (example == nullptr || Nearer(candidate, *example)) {
      example = &candidate;
    }
  }
  std::string text = fmt::format("{} candidates, {} simulated\n",
                                 report.candidates.size(), report.simulated);
  if (report.complete) {
    text += fmt::format(
        "No candidate on any placement is more than {:.0f} % faster than the "
        "chosen plan.\n",
        100 * input.options.exact.tolerance);
  }
  for (const auto& [code, entry] : by_code) {
    text += fmt::format("{:>8} {:<16} e.g. {}\n{:27}{}\n", entry.first,
                        VerdictCodeName(code), ToText(*entry.second), "",
                        VerdictText(input, report, *entry.second));
  }
  return text;
}

std::string SensitivityTable(const PlannerInput& input,
                             const std::vector<LinkSensitivity>& links,
                             size_t most) {
  std::vector<std::vector<std::string>> rows = {
      {"link", "step if half as fast"}};
  for (size_t i = 0; i < std::min(most, links.size()); ++i) {
    const LinkSensitivity& link = links[i];
    const std::string& from = input.cluster.nodes(link.from).name();
    rows.push_back({link.from == link.to ? fmt::format("inside {}", from)
                    : link.to == LinkSensitivity::kHost
                        ? fmt::format("{} to its host and back", from)
                    : link.to == LinkSensitivity::kAllNodes
                        ? fmt::format("{} to all others", from)
                        : fmt::format("{} to {}", from,
                                      input.cluster.nodes(link.to).name()),
                    fmt::format("+{:.2f} %", 100 * link.growth)});
  }
  return Table(rows, 0);
}

}  // namespace trireme
