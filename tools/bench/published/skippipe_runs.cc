#include "tools/bench/published/skippipe_runs.h"

#include <cstdint>

#include "runtime/core/status.h"
#include "tools/bench/published/skippipe_simulator.h"

namespace trireme {
namespace {

// Three lanes of one path for each data node, two waves each.
std::vector<PublishedLaunch> SkipPipeLaunches(
    const PublishedInstance& published) {
  std::vector<PublishedLaunch> launches;
  for (const NodePath& path : published.skippipe_paths) {
    for (int32_t lane = 0; lane < 3; ++lane) {
      for (int32_t wave = 0; wave < 2; ++wave) {
        launches.push_back({path, wave * 2.5 + lane, lane, wave});
      }
    }
  }
  return launches;
}

// Three paths for each data node, two waves each.
std::vector<PublishedLaunch> CostAwareLaunches(
    const PublishedInstance& published) {
  std::vector<PublishedLaunch> launches;
  const auto paths = static_cast<int32_t>(published.cost_aware_paths.size());
  for (int32_t i = 0; i < paths; ++i) {
    for (int32_t wave = 0; wave < 2; ++wave) {
      launches.push_back({published.cost_aware_paths[i],
                          wave * 2.5 + (i % 3) * 0.44, i, wave});
    }
  }
  return launches;
}

// Every microbatch through all six stages, the groups' columns being the
// pipelines; two data nodes have none.
std::vector<PublishedLaunch> FullPipelineLaunches(
    const PublishedInstance& published) {
  std::vector<PublishedLaunch> launches;
  for (int32_t column = 0; column < 3; ++column) {
    NodePath path;
    for (const auto& group : published.instance.groups) {
      path.push_back(group[column]);
    }
    for (int32_t lane = 0; lane < 3; ++lane) {
      for (int32_t wave = 0; wave < 3; ++wave) {
        launches.push_back({path, wave * 0.1, lane, wave});
      }
    }
  }
  return launches;
}

}  // namespace

absl::StatusOr<std::vector<PublishedRun>> SimulatePublishedRuns(
    const PublishedInstance& published) {
  struct Launched {
    PublishedRun run;
    std::vector<PublishedLaunch> launches;
  };
  const Launched all[] = {
      {{"full pipeline, 27 microbatches", published.full_pipeline_s},
       FullPipelineLaunches(published)},
      {{"cost-aware paths", published.cost_aware_s},
       CostAwareLaunches(published)},
      {{"SkipPipe", published.skippipe_s}, SkipPipeLaunches(published)}};
  std::vector<PublishedRun> runs;
  for (const Launched& launched : all) {
    ASSIGN_OR_RETURN(
        const double seconds,
        SimulateAsPublished(published.instance, launched.launches));
    runs.push_back(launched.run);
    runs.back().simulated_s = seconds;
  }
  return runs;
}

}  // namespace trireme
