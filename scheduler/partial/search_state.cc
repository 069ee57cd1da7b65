#include "scheduler/partial/search_state.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace trireme {
namespace {

// What the mean end of the microbatches counts beside the makespan.
constexpr double kMeanWeight = 1;

}  // namespace

SearchState::SearchState(const SkipInstance& instance, uint64_t seed)
    : instance_(instance),
      block_(instance.microbatches_per_data_node),
      random_(seed),
      dispatcher_(instance_),
      visits_per_stage_(VisitsPerStage(instance)),
      live_(LiveStages(instance)),
      stage_of_(StageOfNodes(instance)) {}

void SearchState::Clear() {
  choice_ = Choice();
  CountVisits();
}

double SearchState::Cost() {
  ++evaluations_;
  if (!dispatcher_.Run(choice_.paths, choice_.keys)) {
    return std::numeric_limits<double>::infinity();
  }
  return dispatcher_.makespan_s() + kMeanWeight * dispatcher_.mean_end_s();
}

bool SearchState::Legal(const NodePath& path) const {
  StageVisits visits;
  return std::all_of(path.begin() + 1, path.end(), [&](int32_t node) {
    return VisitStage(instance_.rules, stage_of_[node], visits);
  });
}

const std::vector<CandidatePath>& SearchState::CandidatesOf(int32_t m) {
  if (candidates_.empty()) {
    for (const int32_t node : instance_.groups[0]) {
      candidates_.push_back(CandidatePaths(instance_, node).paths);
    }
  }
  return candidates_[m / instance_.microbatches_per_data_node];
}

void SearchState::CountVisits() {
  node_visits_.assign(instance_.num_nodes(), 0);
  stage_visits_.assign(instance_.num_stages(), 0);
  for (const NodePath& path : choice_.paths) Count(path, 1);
}

void SearchState::Count(const NodePath& path, int32_t change) {
  for (const int32_t node : path) {
    node_visits_[node] += change;
    stage_visits_[stage_of_[node]] += change;
  }
}

bool SearchState::Fits(const NodePath& path, int32_t left,
                       int32_t times) const {
  if (instance_.max_visits_per_node > 0) {
    for (const int32_t node : path) {
      if (node_visits_[node] + times > instance_.max_visits_per_node) {
        return false;
      }
    }
  }
  if (!instance_.equal_stage_visits) return true;
  uint64_t visited = 0;
  for (const int32_t node : path) visited |= uint64_t{1} << stage_of_[node];
  for (int32_t stage = 1; stage < instance_.num_stages(); ++stage) {
    if (!live_[stage]) continue;
    const int32_t after = stage_visits_[stage] +
                          times * static_cast<int32_t>(visited >> stage & 1);
    if (after > visits_per_stage_ || after + left < visits_per_stage_) {
      return false;
    }
  }
  return true;
}

void SearchState::Shuffle(std::vector<int32_t>& items) {
  for (size_t i = items.size(); i > 1; --i) {
    std::swap(items[i - 1], items[Below(i)]);
  }
}

}  // namespace trireme
