// Where the search begins.

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "scheduler/partial/search_state.h"

namespace trireme {
namespace {

// Candidates timed for each microbatch.
constexpr int32_t kWidth = 6;
constexpr int32_t kAttempts = 20;

}  // namespace

bool SearchState::AppendFastest(int32_t m, int32_t left) {
  const double rank = static_cast<double>(choice_.paths.size()) /
                      static_cast<double>(instance_.num_microbatches());
  choice_.keys.insert(choice_.keys.end(), {2 + rank, rank, 1 + rank});
  choice_.paths.emplace_back();
  NodePath best;
  double best_cost = std::numeric_limits<double>::infinity();
  int32_t timed = 0;
  for (const CandidatePath& candidate : CandidatesOf(m)) {
    if (!Fits(candidate.path, left)) continue;
    choice_.paths.back() = candidate.path;
    if (const double cost = Cost(); cost < best_cost) {
      best_cost = cost;
      best = candidate.path;
    }
    if (++timed == kWidth) break;
  }
  if (best.empty()) return false;
  choice_.paths.back() = best;
  Count(best, 1);
  return true;
}

bool SearchState::AnyVisited(const NodePath& path) const {
  return std::any_of(path.begin(), path.end(),
                     [&](int32_t node) { return node_visits_[node] > 0; });
}

bool SearchState::StartByDataNode(bool exclusive) {
  Clear();
  choice_.paths.resize(instance_.num_microbatches());
  std::vector<int32_t> turn;
  for (int32_t d = 0; d < instance_.num_data_nodes(); ++d) {
    if (CandidatesOf(d * block_).empty()) return false;
    turn.push_back(d);
  }
  Shuffle(turn);
  std::stable_sort(turn.begin(), turn.end(), [&](int32_t a, int32_t b) {
    return CandidatesOf(a * block_).front().solo_s >
           CandidatesOf(b * block_).front().solo_s;
  });
  for (size_t i = 0; i < turn.size(); ++i) {
    const int32_t left = static_cast<int32_t>(turn.size() - 1 - i) * block_;
    const CandidatePath* chosen = nullptr;
    for (const CandidatePath& candidate : CandidatesOf(turn[i] * block_)) {
      if (!Fits(candidate.path, left, block_)) continue;
      if (exclusive && AnyVisited(candidate.path)) continue;
      chosen = &candidate;
      if (Below(4) > 0) break;
    }
    if (chosen == nullptr) return false;
    for (int32_t m = 0; m < block_; ++m) {
      choice_.paths[turn[i] * block_ + m] = chosen->path;
      Count(chosen->path, 1);
    }
  }
  for (int32_t m = 0; m < instance_.num_microbatches(); ++m) {
    const double rank = static_cast<double>(m % block_) / block_;
    choice_.keys.insert(choice_.keys.end(), {2 + rank, rank, 1 + rank});
  }
  choice_.cost = Cost();
  return std::isfinite(choice_.cost);
}

bool SearchState::StartGreedily(bool shuffled) {
  const int32_t microbatches = instance_.num_microbatches();
  for (int32_t attempt = 0; attempt < kAttempts; ++attempt) {
    Clear();
    std::vector<int32_t> turn;
    for (int32_t i = 0; i < block_; ++i) {
      for (int32_t d = 0; d < instance_.num_data_nodes(); ++d) {
        turn.push_back(d * block_ + i);
      }
    }
    if (shuffled || attempt > 0) Shuffle(turn);
    bool complete = true;
    for (int32_t i = 0; complete && i < microbatches; ++i) {
      complete = AppendFastest(turn[i], microbatches - 1 - i);
    }
    if (!complete) continue;
    std::vector<NodePath> paths(microbatches);
    std::vector<double> keys(3 * microbatches);
    for (int32_t i = 0; i < microbatches; ++i) {
      paths[turn[i]] = choice_.paths[i];
      std::copy_n(&choice_.keys[3 * i], 3, &keys[3 * turn[i]]);
    }
    choice_.paths = std::move(paths);
    choice_.keys = std::move(keys);
    choice_.cost = Cost();
    if (std::isfinite(choice_.cost)) return true;
  }
  return false;
}

bool SearchState::StartByDataNode() {
  return StartByDataNode(/*exclusive=*/true) ||
         StartByDataNode(/*exclusive=*/false);
}

}  // namespace trireme
