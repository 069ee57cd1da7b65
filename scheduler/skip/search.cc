#include "scheduler/skip/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>

#include "runtime/core/status.h"
#include "scheduler/skip/candidate_paths.h"

namespace trireme {
namespace {

// What the mean end of the microbatches counts beside the makespan, so that
// moves that help all but the last are seen.
constexpr double kMeanWeight = 1;
// Annealing temperatures, as fractions of the greedy makespan.
constexpr double kFirstTemperature = 1e-2;
constexpr double kLastTemperature = 5e-4;
// Candidates timed for each microbatch of the greedy start.
constexpr int32_t kGreedyWidth = 6;
constexpr int32_t kGreedyAttempts = 20;
// The part of a run for which its data nodes keep to one path each.
constexpr double kCoarseShare = 0.4;
constexpr double kTolerance = 1e-9;

class Search {
 public:
  Search(const SkipInstance& instance, const SkipSearchOptions& options)
      : instance_(instance),
        options_(options),
        bound_s_(SkipLowerBound(instance, options.free_groups)),
        random_(options.seed),
        dispatcher_(instance_),
        visits_per_stage_(instance.num_microbatches() *
                          (instance.path_length - 1) /
                          (instance.num_stages() - 1)) {
    int64_t codes = 1;
    for (int32_t i = 0; i < instance.path_length; ++i) {
      codes *= instance.num_stages();
    }
    legal_.assign(codes, false);
    for (const auto& stages : LegalStagePaths(
             instance.num_stages(), instance.path_length, instance.rules)) {
      int64_t code = 0;
      for (const int32_t stage : stages) {
        code = code * instance.num_stages() + stage;
      }
      legal_[code] = true;
    }
  }

  absl::StatusOr<SkipSearchResult> Run() {
    const std::vector<std::vector<int32_t>> groups = instance_.groups;
    double best = std::numeric_limits<double>::infinity();
    SkipSearchResult result;
    result.lower_bound_s = bound_s_;
    for (int32_t restart = 0; restart < options_.restarts; ++restart) {
      instance_.groups = groups;
      // Every other run begins, and goes on for a while, with one path for
      // each data node.
      coarse_ = restart % 2 == 1 && (GreedyByDataNode(/*exclusive=*/true) ||
                                     GreedyByDataNode(/*exclusive=*/false));
      if (!coarse_ && !Greedy(restart)) {
        return NotFound(
            "skip search: found no greedy start in {} attempts, expected "
            "paths that keep the constraints",
            kGreedyAttempts);
      }
      if (restart == 0) result.greedy_makespan_s = dispatcher_.makespan_s();
      Anneal(options_.evaluations * (restart + 1) / options_.restarts);
      if (best_makespan_s_ >= best) continue;
      best = best_makespan_s_;
      instance_.groups = best_.groups;
      dispatcher_.Run(best_.paths, best_.keys);
      result.instance = instance_;
      result.schedule = {best_.paths, dispatcher_.order()};
      result.makespan_s = dispatcher_.makespan_s();
      if (AtBound()) break;
    }
    return result;
  }

 private:
  struct State {
    std::vector<NodePath> paths;
    std::vector<double> keys;
    std::vector<std::vector<int32_t>> groups;
    double cost = 0;
  };

  uint64_t Below(uint64_t end) { return random_() % end; }
  double Uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

  double Cost() {
    ++evaluations_;
    if (!dispatcher_.Run(state_.paths, state_.keys)) {
      return std::numeric_limits<double>::infinity();
    }
    return dispatcher_.makespan_s() + kMeanWeight * dispatcher_.mean_end_s();
  }

  bool Legal(const NodePath& path) const {
    int64_t code = 0;
    for (const int32_t node : path) {
      code = code * instance_.num_stages() + stage_of_[node];
    }
    return legal_[code];
  }

  void GroupsChanged() {
    stage_of_ = StageOfNodes(instance_);
    candidates_.clear();
  }

  // Of microbatch m, the fastest first.
  const std::vector<CandidatePath>& CandidatesOf(int32_t m) {
    if (candidates_.empty()) {
      for (const int32_t node : instance_.groups[0]) {
        candidates_.push_back(CandidatePaths(instance_, node));
      }
    }
    return candidates_[m / instance_.microbatches_per_data_node];
  }

  void CountVisits() {
    node_visits_.assign(instance_.num_nodes(), 0);
    stage_visits_.assign(instance_.num_stages(), 0);
    for (const NodePath& path : state_.paths) Count(path, 1);
  }

  void Count(const NodePath& path, int32_t change) {
    for (const int32_t node : path) {
      node_visits_[node] += change;
      stage_visits_[stage_of_[node]] += change;
    }
  }

  // Whether `times` microbatches may take the path with `left` others to
  // follow: no stage or node passes its quota, and no stage needs more than
  // the others can bring.
  bool Fits(const NodePath& path, int32_t left, int32_t times = 1) const {
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
      const int32_t after = stage_visits_[stage] +
                            times * static_cast<int32_t>(visited >> stage & 1);
      if (after > visits_per_stage_ || after + left < visits_per_stage_) {
        return false;
      }
    }
    return true;
  }

  // Microbatches one after another, data nodes in turn, each on that path of
  // the fastest few which ends the step so far first. Later restarts begin
  // with another order.
  bool Greedy(int32_t restart) {
    const int32_t microbatches = instance_.num_microbatches();
    for (int32_t attempt = 0; attempt < kGreedyAttempts; ++attempt) {
      GroupsChanged();
      state_ = State();
      state_.groups = instance_.groups;
      CountVisits();
      std::vector<int32_t> turn;
      for (int32_t i = 0; i < instance_.microbatches_per_data_node; ++i) {
        for (int32_t d = 0; d < instance_.num_data_nodes(); ++d) {
          turn.push_back(d * instance_.microbatches_per_data_node + i);
        }
      }
      if (restart + attempt > 0) Shuffle(turn);
      bool complete = true;
      for (int32_t i = 0; complete && i < microbatches; ++i) {
        complete = GreedyStep(turn[i], microbatches - 1 - i);
      }
      if (!complete) continue;
      std::vector<NodePath> paths(microbatches);
      std::vector<double> keys(3 * microbatches);
      for (int32_t i = 0; i < microbatches; ++i) {
        paths[turn[i]] = state_.paths[i];
        std::copy_n(&state_.keys[3 * i], 3, &keys[3 * turn[i]]);
      }
      state_.paths = std::move(paths);
      state_.keys = std::move(keys);
      state_.cost = Cost();
      if (std::isfinite(state_.cost)) return true;
    }
    return false;
  }

  bool GreedyStep(int32_t m, int32_t left) {
    const double rank = static_cast<double>(state_.paths.size()) /
                        static_cast<double>(instance_.num_microbatches());
    state_.keys.insert(state_.keys.end(), {2 + rank, rank, 1 + rank});
    state_.paths.emplace_back();
    NodePath best;
    double best_cost = std::numeric_limits<double>::infinity();
    int32_t timed = 0;
    for (const CandidatePath& candidate : CandidatesOf(m)) {
      if (!Fits(candidate.path, left)) continue;
      state_.paths.back() = candidate.path;
      if (const double cost = Cost(); cost < best_cost) {
        best_cost = cost;
        best = candidate.path;
      }
      if (++timed == kGreedyWidth) break;
    }
    if (best.empty()) return false;
    state_.paths.back() = best;
    Count(best, 1);
    return true;
  }

  // One path for all microbatches of a data node, as where microbatches are
  // coarsened: few collisions. Data nodes whose fastest path is longest choose
  // first. Exclusive: no two of them share a node. False where the quotas do
  // not divide so.
  bool GreedyByDataNode(bool exclusive) {
    GroupsChanged();
    state_ = State();
    state_.groups = instance_.groups;
    state_.paths.resize(instance_.num_microbatches());
    node_visits_.assign(instance_.num_nodes(), 0);
    stage_visits_.assign(instance_.num_stages(), 0);
    const int32_t block = instance_.microbatches_per_data_node;
    std::vector<int32_t> turn;
    for (int32_t d = 0; d < instance_.num_data_nodes(); ++d) turn.push_back(d);
    Shuffle(turn);
    std::stable_sort(turn.begin(), turn.end(), [&](int32_t a, int32_t b) {
      return CandidatesOf(a * block).front().solo_s >
             CandidatesOf(b * block).front().solo_s;
    });
    for (size_t i = 0; i < turn.size(); ++i) {
      const int32_t left = static_cast<int32_t>(turn.size() - 1 - i) * block;
      const CandidatePath* chosen = nullptr;
      for (const CandidatePath& candidate : CandidatesOf(turn[i] * block)) {
        if (!Fits(candidate.path, left, block)) continue;
        if (exclusive && AnyVisited(candidate.path)) continue;
        chosen = &candidate;
        if (Below(4) > 0) break;
      }
      if (chosen == nullptr) return false;
      for (int32_t m = 0; m < block; ++m) {
        state_.paths[turn[i] * block + m] = chosen->path;
        Count(chosen->path, 1);
      }
    }
    for (int32_t m = 0; m < instance_.num_microbatches(); ++m) {
      const double rank = static_cast<double>(m % block) / block;
      state_.keys.insert(state_.keys.end(), {2 + rank, rank, 1 + rank});
    }
    state_.cost = Cost();
    return std::isfinite(state_.cost);
  }

  bool AnyVisited(const NodePath& path) const {
    return std::any_of(path.begin(), path.end(),
                       [this](int32_t node) { return node_visits_[node] > 0; });
  }

  void Shuffle(std::vector<int32_t>& items) {
    for (size_t i = items.size(); i > 1; --i) {
      std::swap(items[i - 1], items[Below(i)]);
    }
  }

  void Anneal(int64_t last_evaluation) {
    best_ = state_;
    best_makespan_s_ = dispatcher_.makespan_s();
    const double first = kFirstTemperature * state_.cost;
    const double ratio = kLastTemperature / kFirstTemperature;
    const int64_t start = evaluations_;
    State before = state_;
    while (evaluations_ < last_evaluation && !AtBound()) {
      const double progress = static_cast<double>(evaluations_ - start) /
                              static_cast<double>(last_evaluation - start);
      const double temperature = first * std::pow(ratio, progress);
      const bool timed =
          coarse_ && progress < kCoarseShare ? MoveAll() : Move();
      const double cost = timed ? Cost() : 0;
      if (!timed) ++evaluations_;
      if (timed &&
          cost <= before.cost - temperature * std::log(1 - Uniform())) {
        state_.cost = cost;
        if (cost < best_.cost) {
          best_ = state_;
          best_makespan_s_ = dispatcher_.makespan_s();
        }
        before = state_;
        continue;
      }
      const bool regrouped = state_.groups != before.groups;
      state_ = before;
      if (regrouped) {
        instance_.groups = state_.groups;
        GroupsChanged();
      }
    }
  }

  // Whether the best state cannot be improved.
  bool AtBound() const {
    return best_makespan_s_ <= bound_s_ * (1 + kTolerance);
  }

  // A move that keeps all microbatches of a data node on one path.
  bool MoveAll() { return Below(2) == 0 ? ExchangeBlocks() : ReorderBlock(); }

  bool ReorderBlock() {
    const int32_t block = instance_.microbatches_per_data_node;
    const int32_t first = AnyMicrobatch() / block * block;
    const size_t length = state_.paths[first].size();
    const size_t i = 1 + Below(length - 1);
    const size_t j = 1 + Below(length - 1);
    if (i == j) return false;
    for (int32_t m = first; m < first + block; ++m) {
      std::swap(state_.paths[m][i], state_.paths[m][j]);
      if (!Legal(state_.paths[m])) return false;
    }
    return true;
  }

  // Changes the state; false if the change breaks a constraint.
  bool Move() {
    const uint64_t draw = Below(100);
    if (options_.free_groups && draw < 20) return ExchangeGroups();
    if (draw < 35) return ChangeKeys();
    if (draw < 55) return Reorder();
    if (draw < 73) return ExchangeNodes();
    if (draw < 80) return ExchangeBlocks();
    if (draw < 85) return ExchangeTails();
    // A repair after groups have changed must list all paths anew.
    if (draw < (options_.free_groups ? 98 : 95)) return ReplaceByPeer();
    return DestroyAndRepair();
  }

  int32_t AnyMicrobatch() {
    return static_cast<int32_t>(Below(state_.paths.size()));
  }

  bool ChangeKeys() {
    const int32_t a = AnyMicrobatch() * 3 + static_cast<int32_t>(Below(3));
    if (Below(2) == 0) {
      state_.keys[a] = 3 * Uniform();
      return true;
    }
    const int32_t b = AnyMicrobatch() * 3 + a % 3;
    std::swap(state_.keys[a], state_.keys[b]);
    return a != b;
  }

  bool Reorder() {
    NodePath& path = state_.paths[AnyMicrobatch()];
    const size_t i = 1 + Below(path.size() - 1);
    const size_t j = 1 + Below(path.size() - 1);
    if (i == j) return false;
    std::swap(path[i], path[j]);
    return Legal(path);
  }

  bool ExchangeNodes() {
    NodePath& a = state_.paths[AnyMicrobatch()];
    NodePath& b = state_.paths[AnyMicrobatch()];
    const size_t i = 1 + Below(a.size() - 1);
    const size_t j = 1 + Below(b.size() - 1);
    if (&a == &b || a[i] == b[j]) return false;
    std::swap(a[i], b[j]);
    return Legal(a) && Legal(b);
  }

  // Everything of one data node leaves a node for another, which everything of
  // another data node leaves for the first.
  bool ExchangeBlocks() {
    const int32_t block = instance_.microbatches_per_data_node;
    const int32_t a = AnyMicrobatch();
    const int32_t b = AnyMicrobatch();
    const int32_t u = state_.paths[a][1 + Below(state_.paths[a].size() - 1)];
    const int32_t v = state_.paths[b][1 + Below(state_.paths[b].size() - 1)];
    if (a / block == b / block || u == v) return false;
    return Replace(a / block, u, v) == Replace(b / block, v, u);
  }

  // How many microbatches of the data node it sends over v instead of u; other
  // than any count if that makes a path illegal.
  int32_t Replace(int32_t data_index, int32_t u, int32_t v) {
    const int32_t block = instance_.microbatches_per_data_node;
    int32_t replaced = 0;
    for (int32_t m = data_index * block; m < (data_index + 1) * block; ++m) {
      NodePath& path = state_.paths[m];
      const auto at = std::find(path.begin(), path.end(), u);
      if (at == path.end()) continue;
      *at = v;
      ++replaced;
      if (!Legal(path)) return u < v ? -1 : -2;
    }
    return replaced;
  }

  bool ExchangeTails() {
    const int32_t a = AnyMicrobatch();
    const int32_t b = AnyMicrobatch();
    if (state_.paths[a] == state_.paths[b]) return false;
    std::swap(state_.paths[a], state_.paths[b]);
    std::swap(state_.paths[a][0], state_.paths[b][0]);
    return true;
  }

  bool ReplaceByPeer() {
    NodePath& path = state_.paths[AnyMicrobatch()];
    int32_t& node = path[1 + Below(path.size() - 1)];
    const std::vector<int32_t>& peers = instance_.groups[stage_of_[node]];
    const int32_t peer = peers[Below(peers.size())];
    if (peer == node) return false;
    CountVisits();
    node = peer;
    return instance_.max_visits_per_node == 0 ||
           node_visits_[peer] < instance_.max_visits_per_node;
  }

  bool DestroyAndRepair() {
    std::vector<int32_t> out = {AnyMicrobatch()};
    const size_t count = 2 + Below(3);
    while (out.size() < count && out.size() < state_.paths.size()) {
      const int32_t m = AnyMicrobatch();
      if (std::count(out.begin(), out.end(), m) == 0) out.push_back(m);
    }
    CountVisits();
    for (const int32_t m : out) Count(state_.paths[m], -1);
    for (size_t i = 0; i < out.size(); ++i) {
      const CandidatePath* chosen = nullptr;
      for (const CandidatePath& candidate : CandidatesOf(out[i])) {
        if (!Fits(candidate.path, static_cast<int32_t>(out.size() - 1 - i))) {
          continue;
        }
        chosen = &candidate;
        if (Below(3) > 0) break;
      }
      if (chosen == nullptr) return false;
      state_.paths[out[i]] = chosen->path;
      Count(chosen->path, 1);
    }
    return true;
  }

  // Two nodes take each other's place in the groups and on all paths.
  bool ExchangeGroups() {
    const int32_t u = static_cast<int32_t>(Below(instance_.num_nodes()));
    const int32_t v = static_cast<int32_t>(Below(instance_.num_nodes()));
    if (stage_of_[u] == stage_of_[v]) return false;
    for (auto* lists : {&state_.groups, &state_.paths}) {
      for (std::vector<int32_t>& list : *lists) {
        for (int32_t& node : list) {
          if (node == u) {
            node = v;
          } else if (node == v) {
            node = u;
          }
        }
      }
    }
    instance_.groups = state_.groups;
    GroupsChanged();
    return true;
  }

  SkipInstance instance_;
  SkipSearchOptions options_;
  double bound_s_;
  std::mt19937_64 random_;
  SkipDispatcher dispatcher_;
  int32_t visits_per_stage_;
  std::vector<bool> legal_;  // [stages as digits]
  std::vector<int32_t> stage_of_;
  std::vector<std::vector<CandidatePath>> candidates_;  // [data node], lazily
  std::vector<int32_t> node_visits_;
  std::vector<int32_t> stage_visits_;
  State state_;
  State best_;
  double best_makespan_s_ = 0;
  bool coarse_ = false;
  int64_t evaluations_ = 0;
};

}  // namespace

absl::StatusOr<SkipSearchResult> SearchSkipSchedule(
    const SkipInstance& instance, const SkipSearchOptions& options) {
  RETURN_IF_ERROR(CheckInstance(instance));
  const int32_t visits =
      instance.num_microbatches() * (instance.path_length - 1);
  if (instance.equal_stage_visits &&
      visits % (instance.num_stages() - 1) != 0) {
    return InvalidArgument(
        "microbatches_per_data_node: found {} visits in all, expected a "
        "multiple of the {} stages after the first",
        visits, instance.num_stages() - 1);
  }
  return Search(instance, options).Run();
}

}  // namespace trireme
