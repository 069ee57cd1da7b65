#include "scheduler/partial/candidate_paths.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace trireme {
namespace {

// Of all data nodes together; larger instances are searched among the fastest.
constexpr int64_t kMostPaths = 1 << 17;
constexpr int64_t kLeastPaths = 1 << 10;  // of each

// A beginning of a path: the one before it, and a node more.
struct Beginning {
  int32_t before = 0;
  int32_t node = 0;
  // Of the tasks and messages so far, there and back.
  double seconds = 0;
  StageVisits visits;
};

// The paths of one data node, all of one length at a time.
class PathLister {
 public:
  PathLister(const SkipInstance& instance, int32_t data_node)
      : instance_(instance),
        stage_of_(StageOfNodes(instance)),
        most_(std::max(kLeastPaths, kMostPaths / instance.num_data_nodes())) {
    for (const std::vector<int32_t>& group : instance.groups) {
      std::vector<int32_t>& live = live_.emplace_back(group);
      std::erase_if(live, [&](int32_t node) { return IsIdle(instance, node); });
    }
    lengths_ = {{{.node = data_node}}};
  }

  std::vector<CandidatePath> Run() {
    for (int32_t length = 1; length < instance_.path_length; ++length) {
      Extend();
    }
    std::vector<CandidatePath> found;
    for (const Beginning& whole : lengths_.back()) {
      CandidatePath& candidate = found.emplace_back();
      const Beginning* at = &whole;
      for (size_t i = lengths_.size(); i-- > 0;) {
        candidate.path.push_back(at->node);
        if (i > 0) at = &lengths_[i - 1][at->before];
      }
      std::reverse(candidate.path.begin(), candidate.path.end());
      candidate.solo_s = SoloSeconds(instance_, candidate.path);
    }
    // Those that take as long by their stages, then by their nodes.
    const auto stages = [&](const NodePath& path) {
      std::vector<int32_t> stages;
      for (const int32_t node : path) stages.push_back(stage_of_[node]);
      return stages;
    };
    std::sort(found.begin(), found.end(),
              [&](const CandidatePath& a, const CandidatePath& b) {
                if (a.solo_s != b.solo_s) return a.solo_s < b.solo_s;
                return std::tuple(stages(a.path), a.path) <
                       std::tuple(stages(b.path), b.path);
              });
    return found;
  }

  bool all() const { return all_; }

 private:
  void Extend() {
    const std::vector<Beginning>& shorter = lengths_.back();
    std::vector<Beginning> longer;
    for (size_t i = 0; i < shorter.size(); ++i) {
      const Beginning& at = shorter[i];
      for (int32_t stage = 1; stage < instance_.num_stages(); ++stage) {
        StageVisits visits = at.visits;
        if (!VisitStage(instance_.rules, stage, visits)) continue;
        for (const int32_t node : live_[stage]) {
          longer.push_back({.before = static_cast<int32_t>(i),
                            .node = node,
                            .seconds = at.seconds + instance_.forward_s[node] +
                                       BackwardSeconds(instance_, node) +
                                       instance_.transfer_s[at.node][node] +
                                       instance_.transfer_s[node][at.node],
                            .visits = visits});
        }
      }
      if (static_cast<int64_t>(longer.size()) > 4 * most_) Shorten(longer);
    }
    if (static_cast<int64_t>(longer.size()) > most_) Shorten(longer);
    lengths_.push_back(std::move(longer));
  }

  // Leaves the fastest that end in each stage, as many of every stage, so that
  // all stages can be served.
  void Shorten(std::vector<Beginning>& beginnings) {
    all_ = false;
    std::stable_sort(beginnings.begin(), beginnings.end(),
                     [](const Beginning& a, const Beginning& b) {
                       return a.seconds < b.seconds;
                     });
    std::vector<int64_t> left(instance_.num_stages(),
                              most_ / instance_.num_stages());
    std::erase_if(beginnings, [&](const Beginning& beginning) {
      return --left[stage_of_[beginning.node]] < 0;
    });
  }

  const SkipInstance& instance_;
  const std::vector<int32_t> stage_of_;
  const int64_t most_;
  std::vector<std::vector<int32_t>> live_;  // nodes of each stage
  std::vector<std::vector<Beginning>> lengths_;
  bool all_ = true;
};

}  // namespace

CandidateList CandidatePaths(const SkipInstance& instance, int32_t data_node) {
  PathLister lister(instance, data_node);
  std::vector<CandidatePath> paths = lister.Run();
  return {std::move(paths), lister.all()};
}

}  // namespace trireme
