#include "scheduler/plan/stage_partition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "fmt/format.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

class Partition {
 public:
  Partition(const PartitionCosts& costs,
            const std::vector<StageLocation>& stages)
      : costs_(costs), stages_(stages), before_(costs.blocks.size() + 1, 0.0) {
    for (size_t i = 0; i < costs.blocks.size(); ++i) {
      before_[i + 1] = before_[i] + costs.blocks[i];
    }
  }

  std::vector<int64_t> Solve() const {
    std::vector<int64_t> cuts = LeastLargestStage();
    Improve(cuts);
    std::vector<int64_t> counts;
    for (size_t stage = 0; stage + 1 < cuts.size(); ++stage) {
      counts.push_back(cuts[stage + 1] - cuts[stage]);
    }
    return counts;
  }

 private:
  int64_t num_blocks() const {
    return static_cast<int64_t>(costs_.blocks.size());
  }
  int64_t num_stages() const { return static_cast<int64_t>(stages_.size()); }

  // Of blocks [begin, end) as stage `stage`.
  double StageCost(int64_t stage, int64_t begin, int64_t end) const {
    double cost = before_[end] - before_[begin];
    if (stage == 0) cost += costs_.embedding;
    if (stage == num_stages() - 1) cost += costs_.head;
    if (!costs_.slowness.empty()) cost *= costs_.slowness[stages_[stage].rank];
    return cost;
  }

  // cuts[s]: the first block of stage s. Among equals the earliest cuts, which
  // leave more to later stages.
  std::vector<int64_t> LeastLargestStage() const {
    const int64_t n = num_blocks();
    const int64_t s = num_stages();
    // least[i][b]: of stages i.. over blocks b.., the largest stage.
    std::vector<std::vector<double>> least(
        s + 1, std::vector<double>(n + 1, kInfinity));
    least[s][n] = 0;
    for (int64_t i = s - 1; i >= 0; --i) {
      for (int64_t begin = n - (s - i); begin >= i; --begin) {
        for (int64_t end = begin + 1; end <= n - (s - i - 1); ++end) {
          least[i][begin] =
              std::min(least[i][begin],
                       std::max(StageCost(i, begin, end), least[i + 1][end]));
        }
      }
    }
    std::vector<int64_t> cuts = {0};
    for (int64_t i = 0; i < s; ++i) {
      int64_t end = cuts.back() + 1;
      while (std::max(StageCost(i, cuts.back(), end), least[i + 1][end]) >
             least[0][0]) {
        ++end;
      }
      cuts.push_back(end);
    }
    return cuts;
  }

  // What is compared: the largest rank, then the largest stage.
  std::tuple<double, double> Score(const std::vector<int64_t>& cuts) const {
    std::vector<double> ranks;
    double largest_stage = 0;
    for (int64_t i = 0; i < num_stages(); ++i) {
      const auto rank = static_cast<size_t>(stages_[i].rank);
      if (ranks.size() <= rank) ranks.resize(rank + 1, 0.0);
      const double cost = StageCost(i, cuts[i], cuts[i + 1]);
      ranks[rank] += cost;
      largest_stage = std::max(largest_stage, cost);
    }
    return {*std::max_element(ranks.begin(), ranks.end()), largest_stage};
  }

  // Moves one block across a run of stages as long as that helps.
  void Improve(std::vector<int64_t>& cuts) const {
    auto best = Score(cuts);
    bool improved = true;
    while (improved) {
      improved = false;
      for (int64_t first = 1; first < num_stages(); ++first) {
        for (int64_t last = first; last < num_stages(); ++last) {
          for (const int64_t step : {-1, 1}) {
            std::vector<int64_t> moved = cuts;
            for (int64_t i = first; i <= last; ++i) moved[i] += step;
            if (moved[first - 1] >= moved[first] ||
                moved[last] >= moved[last + 1]) {
              continue;
            }
            const auto score = Score(moved);
            if (score < best) {
              best = score;
              cuts = std::move(moved);
              improved = true;
            }
          }
        }
      }
    }
  }

  const PartitionCosts& costs_;
  const std::vector<StageLocation>& stages_;
  std::vector<double> before_;  // of the first i blocks
};

}  // namespace

absl::StatusOr<std::vector<int64_t>> PartitionStages(
    const PartitionCosts& costs, const std::vector<StageLocation>& stages) {
  if (stages.empty() || costs.blocks.size() < stages.size()) {
    return InvalidArgument(
        "partition: found {} blocks for {} stages, expected at least one each",
        costs.blocks.size(), stages.size());
  }
  const auto positive = [](const std::vector<double>& figures) {
    return std::all_of(figures.begin(), figures.end(), [](double figure) {
      return figure > 0 && std::isfinite(figure);
    });
  };
  const auto not_negative = [](double seconds) {
    return seconds >= 0 && std::isfinite(seconds);
  };
  if (!positive(costs.blocks) || !positive(costs.slowness) ||
      !not_negative(costs.embedding) || !not_negative(costs.head)) {
    return InvalidArgument(
        "partition: found blocks of {} seconds, an embedding of {}, a head of "
        "{} and ranks {} times as slow, expected positive numbers",
        fmt::join(costs.blocks, ", "), costs.embedding, costs.head,
        fmt::join(costs.slowness, ", "));
  }
  for (const StageLocation& stage : stages) {
    if (costs.slowness.empty() ||
        static_cast<size_t>(stage.rank) < costs.slowness.size()) {
      continue;
    }
    return InvalidArgument(
        "partition: found {} ranks with a slowness, expected rank {} too",
        costs.slowness.size(), stage.rank);
  }
  return Partition(costs, stages).Solve();
}

}  // namespace trireme
