#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "scheduler/partial/candidate_paths.h"
#include "scheduler/partial/search.h"

namespace trireme {
namespace {

// Partial schedules of one data node's tasks to look at.
constexpr int64_t kExactLimit = 2'000'000;

// The least seconds between a forward and its loss, and between a loss and its
// backward, on the data node.
struct Absence {
  double forward_s = std::numeric_limits<double>::infinity();
  double backward_s = std::numeric_limits<double>::infinity();
};

void Shorten(const SkipInstance& instance, const NodePath& path,
             Absence& absence) {
  Absence here = {.forward_s = 0, .backward_s = 0};
  for (size_t i = 0; i < path.size(); ++i) {
    const int32_t next = path[(i + 1) % path.size()];
    here.forward_s += instance.transfer_s[path[i]][next];
    here.backward_s += instance.transfer_s[next][path[i]];
    if (i == 0) continue;
    here.forward_s += instance.forward_s[path[i]];
    here.backward_s += BackwardSeconds(instance, path[i]);
  }
  absence.forward_s = std::min(absence.forward_s, here.forward_s);
  absence.backward_s = std::min(absence.backward_s, here.backward_s);
}

// Over any nodes of path_length - 1 stages, each other than the one before: no
// path is away for less.
Absence LeastAbsence(const SkipInstance& instance, int32_t data_node) {
  const std::vector<int32_t> stage_of = StageOfNodes(instance);
  const auto least = [&](bool forward) {
    // [node]: seconds until a path of so many stops has ended there.
    std::vector<double> seconds(instance.num_nodes(),
                                std::numeric_limits<double>::infinity());
    seconds[data_node] = 0;
    const auto transfer = [&](int32_t from, int32_t to) {
      return forward ? instance.transfer_s[from][to]
                     : instance.transfer_s[to][from];
    };
    for (int32_t stop = 1; stop < instance.path_length; ++stop) {
      std::vector<double> next(instance.num_nodes(),
                               std::numeric_limits<double>::infinity());
      for (int32_t to = 0; to < instance.num_nodes(); ++to) {
        if (stage_of[to] == 0 || IsIdle(instance, to)) continue;
        const double own_s =
            forward ? instance.forward_s[to] : BackwardSeconds(instance, to);
        for (int32_t from = 0; from < instance.num_nodes(); ++from) {
          if (stage_of[from] == stage_of[to]) continue;
          next[to] =
              std::min(next[to], seconds[from] + transfer(from, to) + own_s);
        }
      }
      seconds = std::move(next);
    }
    double shortest = std::numeric_limits<double>::infinity();
    for (int32_t node = 0; node < instance.num_nodes(); ++node) {
      shortest = std::min(shortest, seconds[node] + transfer(node, data_node));
    }
    return shortest;
  };
  return {.forward_s = least(true), .backward_s = least(false)};
}

// The best that a data node could do if its microbatches met no other
// elsewhere: its own tasks and slots only, in the best order. Its microbatches
// being alike, the k-th forward, loss and backward may be taken to be the same
// microbatch's, which leaves the interleavings of three sequences.
class DataNodeAlone {
 public:
  DataNodeAlone(const SkipInstance& instance, int32_t node,
                const Absence& absence)
      : n_(instance.microbatches_per_data_node),
        slots_(instance.slots_per_node > 0 ? instance.slots_per_node : n_),
        gap_s_(instance.gap_s),
        absence_(absence),
        forward_s_(instance.forward_s[node]),
        loss_s_(LossSeconds(instance, node)),
        backward_s_(BackwardSeconds(instance, node)),
        forward_end_(n_),
        loss_end_(n_) {}

  double Bound() {
    Branch(0, 0, 0, 0);
    return visited_ < kExactLimit ? best_ : Relaxed();
  }

 private:
  // f forwards, l losses and b backwards are done and the node is free.
  void Branch(int32_t f, int32_t l, int32_t b, double free_s) {
    if (++visited_ >= kExactLimit) return;
    if (b == n_) {
      best_ = std::min(best_, free_s - gap_s_);
      return;
    }
    const double left_s = (n_ - f) * (forward_s_ + gap_s_) +
                          (n_ - l) * (loss_s_ + gap_s_) +
                          (n_ - b) * (backward_s_ + gap_s_);
    if (free_s + left_s - gap_s_ >= best_) return;
    if (b < l) {
      const double start = std::max(free_s, loss_end_[b] + absence_.backward_s);
      Branch(f, l, b + 1, start + backward_s_ + gap_s_);
    }
    if (l < f) {
      const double start =
          std::max(free_s, forward_end_[l] + absence_.forward_s);
      loss_end_[l] = start + loss_s_;
      Branch(f, l + 1, b, loss_end_[l] + gap_s_);
    }
    if (f < n_ && f - b < slots_) {
      forward_end_[f] = free_s + forward_s_;
      Branch(f + 1, l, b, forward_end_[f] + gap_s_);
    }
  }

  // By sums: k slots are busy for n solo times in all, and both first launches
  // and last backwards follow one another on the node.
  double Relaxed() const {
    const double solo_s = forward_s_ + absence_.forward_s + loss_s_ +
                          absence_.backward_s + backward_s_;
    double by_slots = std::numeric_limits<double>::infinity();
    for (int32_t k = 1; k <= std::min(n_, slots_); ++k) {
      const int32_t pairs = k * (k - 1) / 2;
      const double staggered =
          pairs * (forward_s_ + gap_s_ + backward_s_ + gap_s_);
      by_slots =
          std::min(by_slots, (n_ * solo_s + (n_ - k) * gap_s_ + staggered) / k);
    }
    return by_slots;
  }

  int32_t n_;
  int32_t slots_;
  double gap_s_;
  Absence absence_;
  double forward_s_;
  double loss_s_;
  double backward_s_;
  std::vector<double> forward_end_;
  std::vector<double> loss_end_;
  double best_ = std::numeric_limits<double>::infinity();
  int64_t visited_ = 0;
};

}  // namespace

double SkipLowerBound(const SkipInstance& instance) {
  double bound = 0;
  for (const int32_t node : instance.groups[0]) {
    Absence absence;
    const CandidateList candidates = CandidatePaths(instance, node);
    for (const CandidatePath& candidate : candidates.paths) {
      Shorten(instance, candidate.path, absence);
    }
    if (!candidates.all) absence = LeastAbsence(instance, node);
    bound = std::max(bound, DataNodeAlone(instance, node, absence).Bound());
  }
  return bound;
}

}  // namespace trireme
