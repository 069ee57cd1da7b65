#include "scheduler/partial/search_start.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace trireme {
namespace {

// Candidates timed for each microbatch.
constexpr int32_t kWidth = 6;
constexpr int32_t kAttempts = 20;

// Appends a path for microbatch m, with `left` others to follow.
bool AppendFastest(int32_t m, int32_t left, SearchState& state) {
  SearchState::Choice& choice = state.choice();
  const double rank = static_cast<double>(choice.paths.size()) /
                      static_cast<double>(state.instance().num_microbatches());
  choice.keys.insert(choice.keys.end(), {2 + rank, rank, 1 + rank});
  choice.paths.emplace_back();
  NodePath best;
  double best_cost = std::numeric_limits<double>::infinity();
  int32_t timed = 0;
  for (const CandidatePath& candidate : state.CandidatesOf(m)) {
    if (!state.Fits(candidate.path, left)) continue;
    choice.paths.back() = candidate.path;
    if (const double cost = state.Cost(); cost < best_cost) {
      best_cost = cost;
      best = candidate.path;
    }
    if (++timed == kWidth) break;
  }
  if (best.empty()) return false;
  choice.paths.back() = best;
  state.Count(best, 1);
  return true;
}

bool AnyVisited(const SearchState& state, const NodePath& path) {
  return std::any_of(path.begin(), path.end(), [&](int32_t node) {
    return state.node_visits()[node] > 0;
  });
}

bool StartByDataNode(bool exclusive, SearchState& state) {
  state.Clear();
  SearchState::Choice& choice = state.choice();
  const SkipInstance& instance = state.instance();
  choice.paths.resize(instance.num_microbatches());
  const int32_t block = instance.microbatches_per_data_node;
  std::vector<int32_t> turn;
  for (int32_t d = 0; d < instance.num_data_nodes(); ++d) {
    if (state.CandidatesOf(d * block).empty()) return false;
    turn.push_back(d);
  }
  state.Shuffle(turn);
  std::stable_sort(turn.begin(), turn.end(), [&](int32_t a, int32_t b) {
    return state.CandidatesOf(a * block).front().solo_s >
           state.CandidatesOf(b * block).front().solo_s;
  });
  for (size_t i = 0; i < turn.size(); ++i) {
    const int32_t left = static_cast<int32_t>(turn.size() - 1 - i) * block;
    const CandidatePath* chosen = nullptr;
    for (const CandidatePath& candidate : state.CandidatesOf(turn[i] * block)) {
      if (!state.Fits(candidate.path, left, block)) continue;
      if (exclusive && AnyVisited(state, candidate.path)) continue;
      chosen = &candidate;
      if (state.Below(4) > 0) break;
    }
    if (chosen == nullptr) return false;
    for (int32_t m = 0; m < block; ++m) {
      choice.paths[turn[i] * block + m] = chosen->path;
      state.Count(chosen->path, 1);
    }
  }
  for (int32_t m = 0; m < instance.num_microbatches(); ++m) {
    const double rank = static_cast<double>(m % block) / block;
    choice.keys.insert(choice.keys.end(), {2 + rank, rank, 1 + rank});
  }
  choice.cost = state.Cost();
  return std::isfinite(choice.cost);
}

}  // namespace

bool StartGreedily(bool shuffled, SearchState& state) {
  const SkipInstance& instance = state.instance();
  const int32_t microbatches = instance.num_microbatches();
  for (int32_t attempt = 0; attempt < kAttempts; ++attempt) {
    state.Clear();
    std::vector<int32_t> turn;
    for (int32_t i = 0; i < instance.microbatches_per_data_node; ++i) {
      for (int32_t d = 0; d < instance.num_data_nodes(); ++d) {
        turn.push_back(d * instance.microbatches_per_data_node + i);
      }
    }
    if (shuffled || attempt > 0) state.Shuffle(turn);
    bool complete = true;
    for (int32_t i = 0; complete && i < microbatches; ++i) {
      complete = AppendFastest(turn[i], microbatches - 1 - i, state);
    }
    if (!complete) continue;
    SearchState::Choice& choice = state.choice();
    std::vector<NodePath> paths(microbatches);
    std::vector<double> keys(3 * microbatches);
    for (int32_t i = 0; i < microbatches; ++i) {
      paths[turn[i]] = choice.paths[i];
      std::copy_n(&choice.keys[3 * i], 3, &keys[3 * turn[i]]);
    }
    choice.paths = std::move(paths);
    choice.keys = std::move(keys);
    choice.cost = state.Cost();
    if (std::isfinite(choice.cost)) return true;
  }
  return false;
}

bool StartByDataNode(SearchState& state) {
  return StartByDataNode(/*exclusive=*/true, state) ||
         StartByDataNode(/*exclusive=*/false, state);
}

}  // namespace trireme
