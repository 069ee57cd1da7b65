#include "tools/bench/figures.h"

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"

namespace trireme {

std::optional<double> Find(const Figures& figures, const std::string& key) {
  const auto found = figures.find(key);
  if (found == figures.end()) return std::nullopt;
  return found->second;
}

FigureReporter::FigureReporter(Figures* figures)
    : ConsoleReporter(OO_Tabular), figures_(figures) {}

void FigureReporter::ReportRuns(const std::vector<Run>& runs) {
  ConsoleReporter::ReportRuns(runs);
  for (const Run& run : runs) {
    if (run.run_type != Run::RT_Aggregate || run.aggregate_name != "median") {
      continue;
    }
    const std::string& name = run.run_name.function_name;
    (*figures_)[name + ".s"] = run.GetAdjustedRealTime() /
                               benchmark::GetTimeUnitMultiplier(run.time_unit);
    for (const auto& [counter, value] : run.counters) {
      (*figures_)[name + "." + counter] = value;
    }
  }
}

void AddKeysWithoutThreads(int threads, Figures* figures) {
  const std::string infix = fmt::format(".threads{}", threads);
  Figures added;
  for (const auto& [key, value] : *figures) {
    const size_t at = key.find(infix + ".");
    if (at == std::string::npos) continue;
    std::string shorter = key;
    added[shorter.erase(at, infix.size())] = value;
  }
  figures->insert(added.begin(), added.end());
}

absl::Status WriteJson(const Figures& figures, const std::string& path) {
  return WriteFileAtomically(path, nlohmann::json(figures).dump(2) + "\n");
}

}  // namespace trireme
