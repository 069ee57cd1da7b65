// Prints the published runs of the published 20-node instance again, and what
// the search makes of it, with the processor time it takes:
//   skippipe [FILE] [EVALUATIONS]

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "scheduler/partial/search.h"
#include "scheduler/partial/validator.h"
#include "tools/bench/published/skippipe_instance.h"
#include "tools/bench/published/skippipe_runs.h"

namespace trireme {
namespace {

// Of given paths: the heaviest load of a node, or the longest path alone.
double PathsLowerBound(const SkipInstance& instance,
                       const std::vector<NodePath>& paths) {
  std::vector<double> load_s(instance.num_nodes(), -instance.gap_s);
  double bound = 0;
  for (const NodePath& path : paths) {
    bound = std::max(bound, SoloSeconds(instance, path));
    for (int32_t task = 0; task < instance.tasks_per_microbatch(); ++task) {
      load_s[TaskNode(path, task)] +=
          TaskSeconds(instance, path, task) + instance.gap_s;
    }
  }
  return std::max(bound, *std::max_element(load_s.begin(), load_s.end()));
}

struct Case {
  const char* name;
  bool mended;
  // Every node outside group 0 serves as many microbatches as its peers, as
  // in the published plans.
  bool even_nodes;
};

constexpr Case kCases[] = {
    {"even nodes", false, true},
    {"any nodes", false, false},
    {"mended, even nodes", true, true},
    {"mended, any nodes", true, false},
};

int Main(int argc, char** argv) {
  const std::string file =
      argc > 1 ? argv[1]
               : "tools/bench/published/testdata/skippipe_20_nodes.json";
  const auto published = ReadPublishedInstance(file);
  if (!published.ok()) {
    fmt::print(stderr, "{}\n", published.status().ToString());
    return 1;
  }
  const auto runs = SimulatePublishedRuns(*published);
  if (!runs.ok()) {
    fmt::print(stderr, "{}\n", runs.status().ToString());
    return 1;
  }
  fmt::print("{:34} {:>11} {:>10}\n", "published run", "published s",
             "simulated s");
  for (const PublishedRun& run : *runs) {
    fmt::print("{:34} {:11.2f} {:10.2f}\n", run.name, run.published_s,
               run.simulated_s);
  }
  fmt::print("{:34} {:11.2f} {:>10}\n\n", "hop-count paths",
             published->hop_count_s, "not given");
  fmt::print("{:34} {:>8} {:>8} {:>8} {:>7} {:>8} {:>8}\n", "case", "greedy s",
             "found s", "bound s", "gap", "paths s", "search s");
  for (const Case& row : kCases) {
    SkipInstance instance = published->instance;
    if (row.mended) instance.transfer_s = published->mended_transfer_s;
    if (!row.even_nodes) instance.max_visits_per_node = 0;
    SkipSearchOptions options;
    if (argc > 2) options.evaluations = std::atoll(argv[2]);
    const std::clock_t start = std::clock();
    const auto result = SearchSkipSchedule(instance, options);
    const double seconds =
        static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    if (!result.ok()) {
      fmt::print("{:34} {}\n", row.name, result.status().ToString());
      continue;
    }
    const absl::Status valid = ValidateSkipSchedule(instance, result->schedule);
    if (!valid.ok()) {
      fmt::print(stderr, "{}: {}\n", row.name, valid.ToString());
      return 1;
    }
    fmt::print("{:34} {:8.2f} {:8.2f} {:8.2f} {:6.1f}% {:8.2f} {:8.2f}\n",
               row.name, result->greedy_makespan_s, result->makespan_s,
               result->lower_bound_s, 100 * result->gap(),
               PathsLowerBound(instance, result->schedule.paths), seconds);
  }
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) { return trireme::Main(argc, argv); }
