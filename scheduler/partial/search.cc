#include "scheduler/partial/search.h"

#include <cmath>
#include <limits>

#include "runtime/core/status.h"
#include "scheduler/partial/search_state.h"

namespace trireme {
namespace {

// Annealing temperatures, as fractions of the first cost.
constexpr double kFirstTemperature = 1e-2;
constexpr double kLastTemperature = 5e-4;
// The part of a run for which its data nodes keep to one path each.
constexpr double kCoarseShare = 0.4;
constexpr double kTolerance = 1e-9;

class Search {
 public:
  Search(const SkipInstance& instance, const SkipSearchOptions& options)
      : options_(options), state_(instance, options.seed) {
    result_.makespan_s = std::numeric_limits<double>::infinity();
    result_.lower_bound_s = SkipLowerBound(instance);
  }

  absl::StatusOr<SkipSearchResult> Run() {
    for (int32_t restart = 0; restart < options_.restarts; ++restart) {
      // Every other run begins, and goes on for a while, with one path for
      // each data node.
      const bool coarse = restart % 2 == 1 && state_.StartByDataNode();
      const bool started = coarse || state_.StartGreedily(restart > 0);
      if (started) Keep();
      if (!started) {
        return NotFound(
            "skip search: found no greedy start, expected paths that keep the "
            "constraints");
      }
      if (restart == 0) result_.greedy_makespan_s = result_.makespan_s;
      if (AtBound()) break;
      Anneal(options_.evaluations * (restart + 1) / options_.restarts, coarse);
      if (AtBound()) break;
    }
    result_.proven = AtBound();
    return result_;
  }

 private:
  // Whether what was found cannot be improved.
  bool AtBound() const {
    return result_.makespan_s <= result_.lower_bound_s * (1 + kTolerance);
  }

  // Keeps what was simulated last if nothing as fast was found before.
  void Keep() {
    const SkipDispatcher& last = state_.dispatcher();
    if (last.makespan_s() >= result_.makespan_s) return;
    result_.schedule = {state_.choice().paths, last.order()};
    result_.makespan_s = last.makespan_s();
  }

  void Anneal(int64_t last_evaluation, bool coarse) {
    SearchState::Choice before = state_.choice();
    const double first = kFirstTemperature * before.cost;
    const double ratio = kLastTemperature / kFirstTemperature;
    const int64_t start = state_.evaluations();
    while (state_.evaluations() < last_evaluation && !AtBound()) {
      const double progress =
          static_cast<double>(state_.evaluations() - start) /
          static_cast<double>(last_evaluation - start);
      const double temperature = first * std::pow(ratio, progress);
      const bool timed = coarse && progress < kCoarseShare
                             ? state_.ChangeWholeBlocks()
                             : state_.ChangeAnything();
      if (timed) {
        const double cost = state_.Cost();
        if (cost <=
            before.cost - temperature * std::log(1 - state_.Uniform())) {
          state_.choice().cost = cost;
          Keep();
          before = state_.choice();
          continue;
        }
      } else {
        state_.CountEvaluation();
      }
      state_.Set(before);
    }
  }

  const SkipSearchOptions& options_;
  SearchState state_;
  SkipSearchResult result_;
};

}  // namespace

absl::StatusOr<SkipSearchResult> SearchSkipSchedule(
    const SkipInstance& instance, const SkipSearchOptions& options) {
  RETURN_IF_ERROR(CheckInstance(instance));
  if (instance.equal_stage_visits && !VisitsDivide(instance)) {
    return InvalidArgument(
        "microbatches_per_data_node: found {} visits in all, expected a "
        "multiple of the stages after the first",
        instance.num_microbatches() * (instance.path_length - 1));
  }
  return Search(instance, options).Run();
}

}  // namespace trireme
