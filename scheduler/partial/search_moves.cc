#include "scheduler/partial/search_moves.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace trireme {
namespace {

class Moves {
 public:
  explicit Moves(SearchState& state)
      : state_(state),
        instance_(state.instance()),
        paths_(state.choice().paths),
        keys_(state.choice().keys),
        block_(instance_.microbatches_per_data_node) {}

  bool ChangeKeys() {
    const int32_t a =
        AnyMicrobatch() * 3 + static_cast<int32_t>(state_.Below(3));
    if (state_.Below(2) == 0) {
      keys_[a] = 3 * state_.Uniform();
      return true;
    }
    const int32_t b = AnyMicrobatch() * 3 + a % 3;
    std::swap(keys_[a], keys_[b]);
    return a != b;
  }

  bool Reorder() {
    NodePath& path = paths_[AnyMicrobatch()];
    const size_t i = AnyStop(path);
    const size_t j = AnyStop(path);
    if (i == j) return false;
    std::swap(path[i], path[j]);
    return state_.Legal(path);
  }

  bool ReorderBlock() {
    const int32_t first = AnyMicrobatch() / block_ * block_;
    const size_t i = AnyStop(paths_[first]);
    const size_t j = AnyStop(paths_[first]);
    if (i == j) return false;
    for (int32_t m = first; m < first + block_; ++m) {
      std::swap(paths_[m][i], paths_[m][j]);
      if (!state_.Legal(paths_[m])) return false;
    }
    return true;
  }

  bool ExchangeNodes() {
    NodePath& a = paths_[AnyMicrobatch()];
    NodePath& b = paths_[AnyMicrobatch()];
    const size_t i = AnyStop(a);
    const size_t j = AnyStop(b);
    if (&a == &b || a[i] == b[j]) return false;
    std::swap(a[i], b[j]);
    return state_.Legal(a) && state_.Legal(b);
  }

  // Everything of one data node leaves a node for another, which everything of
  // another data node leaves for the first.
  bool ExchangeBlocks() {
    const int32_t a = AnyMicrobatch();
    const int32_t b = AnyMicrobatch();
    const int32_t u = paths_[a][AnyStop(paths_[a])];
    const int32_t v = paths_[b][AnyStop(paths_[b])];
    if (a / block_ == b / block_ || u == v) return false;
    return Replace(a / block_, u, v) == Replace(b / block_, v, u);
  }

  bool ExchangeTails() {
    const int32_t a = AnyMicrobatch();
    const int32_t b = AnyMicrobatch();
    if (paths_[a] == paths_[b]) return false;
    std::swap(paths_[a], paths_[b]);
    std::swap(paths_[a][0], paths_[b][0]);
    return true;
  }

  bool ReplaceByPeer() {
    NodePath& path = paths_[AnyMicrobatch()];
    int32_t& node = path[AnyStop(path)];
    const std::vector<int32_t>& peers =
        instance_.groups[state_.stage_of()[node]];
    const int32_t peer = peers[state_.Below(peers.size())];
    if (peer == node || IsIdle(instance_, peer)) return false;
    state_.CountVisits();
    node = peer;
    return instance_.max_visits_per_node == 0 ||
           state_.node_visits()[peer] < instance_.max_visits_per_node;
  }

  // Takes a few microbatches out and puts them back on other paths.
  bool DestroyAndRepair() {
    std::vector<int32_t> out = {AnyMicrobatch()};
    const size_t count = 2 + state_.Below(3);
    while (out.size() < count && out.size() < paths_.size()) {
      const int32_t m = AnyMicrobatch();
      if (std::count(out.begin(), out.end(), m) == 0) out.push_back(m);
    }
    state_.CountVisits();
    for (const int32_t m : out) state_.Count(paths_[m], -1);
    for (size_t i = 0; i < out.size(); ++i) {
      const auto left = static_cast<int32_t>(out.size() - 1 - i);
      const CandidatePath* chosen = nullptr;
      for (const CandidatePath& candidate : state_.CandidatesOf(out[i])) {
        if (!state_.Fits(candidate.path, left)) continue;
        chosen = &candidate;
        if (state_.Below(3) > 0) break;
      }
      if (chosen == nullptr) return false;
      paths_[out[i]] = chosen->path;
      state_.Count(chosen->path, 1);
    }
    return true;
  }

 private:
  int32_t AnyMicrobatch() {
    return static_cast<int32_t>(state_.Below(paths_.size()));
  }

  // A position of the path after the data node's.
  size_t AnyStop(const NodePath& path) {
    return 1 + state_.Below(path.size() - 1);
  }

  // How many microbatches of the data node it sends over v instead of u; other
  // than any count if that makes a path illegal.
  int32_t Replace(int32_t data_index, int32_t u, int32_t v) {
    int32_t replaced = 0;
    for (int32_t m = data_index * block_; m < (data_index + 1) * block_; ++m) {
      NodePath& path = paths_[m];
      const auto at = std::find(path.begin(), path.end(), u);
      if (at == path.end()) continue;
      *at = v;
      ++replaced;
      if (!state_.Legal(path)) return u < v ? -1 : -2;
    }
    return replaced;
  }

  SearchState& state_;
  const SkipInstance& instance_;
  std::vector<NodePath>& paths_;
  std::vector<double>& keys_;
  const int32_t block_;
};

}  // namespace

bool ChangeAnything(SearchState& state) {
  Moves moves(state);
  const uint64_t draw = state.Below(100);
  if (draw < 35) return moves.ChangeKeys();
  if (draw < 55) return moves.Reorder();
  if (draw < 73) return moves.ExchangeNodes();
  if (draw < 80) return moves.ExchangeBlocks();
  if (draw < 85) return moves.ExchangeTails();
  if (draw < 95) return moves.ReplaceByPeer();
  return moves.DestroyAndRepair();
}

bool ChangeWholeBlocks(SearchState& state) {
  Moves moves(state);
  return state.Below(2) == 0 ? moves.ExchangeBlocks() : moves.ReorderBlock();
}

}  // namespace trireme
