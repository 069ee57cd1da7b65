// The steps of the search: what it changes before it measures again.

#include <algorithm>
#include <utility>
#include <vector>

#include "scheduler/partial/search_state.h"

namespace trireme {

bool SearchState::ChangeKeys() {
  const int32_t a = AnyMicrobatch() * 3 + static_cast<int32_t>(Below(3));
  if (Below(2) == 0) {
    choice_.keys[a] = 3 * Uniform();
    return true;
  }
  const int32_t b = AnyMicrobatch() * 3 + a % 3;
  std::swap(choice_.keys[a], choice_.keys[b]);
  return a != b;
}

bool SearchState::Reorder() {
  NodePath& path = choice_.paths[AnyMicrobatch()];
  const size_t i = AnyStop(path);
  const size_t j = AnyStop(path);
  if (i == j) return false;
  std::swap(path[i], path[j]);
  return Legal(path);
}

bool SearchState::ReorderBlock() {
  const int32_t first = AnyMicrobatch() / block_ * block_;
  const size_t i = AnyStop(choice_.paths[first]);
  const size_t j = AnyStop(choice_.paths[first]);
  if (i == j) return false;
  for (int32_t m = first; m < first + block_; ++m) {
    std::swap(choice_.paths[m][i], choice_.paths[m][j]);
    if (!Legal(choice_.paths[m])) return false;
  }
  return true;
}

bool SearchState::ExchangeNodes() {
  NodePath& a = choice_.paths[AnyMicrobatch()];
  NodePath& b = choice_.paths[AnyMicrobatch()];
  const size_t i = AnyStop(a);
  const size_t j = AnyStop(b);
  if (&a == &b || a[i] == b[j]) return false;
  std::swap(a[i], b[j]);
  return Legal(a) && Legal(b);
}

// Everything of one data node leaves a node for another, which everything of
// another data node leaves for the first.
bool SearchState::ExchangeBlocks() {
  const int32_t a = AnyMicrobatch();
  const int32_t b = AnyMicrobatch();
  const int32_t u = choice_.paths[a][AnyStop(choice_.paths[a])];
  const int32_t v = choice_.paths[b][AnyStop(choice_.paths[b])];
  if (a / block_ == b / block_ || u == v) return false;
  return Replace(a / block_, u, v) == Replace(b / block_, v, u);
}

bool SearchState::ExchangeTails() {
  const int32_t a = AnyMicrobatch();
  const int32_t b = AnyMicrobatch();
  if (choice_.paths[a] == choice_.paths[b]) return false;
  std::swap(choice_.paths[a], choice_.paths[b]);
  std::swap(choice_.paths[a][0], choice_.paths[b][0]);
  return true;
}

bool SearchState::ReplaceByPeer() {
  NodePath& path = choice_.paths[AnyMicrobatch()];
  int32_t& node = path[AnyStop(path)];
  const std::vector<int32_t>& peers = instance_.groups[stage_of_[node]];
  const int32_t peer = peers[Below(peers.size())];
  if (peer == node || IsIdle(instance_, peer)) return false;
  CountVisits();
  node = peer;
  return instance_.max_visits_per_node == 0 ||
         node_visits_[peer] < instance_.max_visits_per_node;
}

// Takes a few microbatches out and puts them back on other paths.
bool SearchState::DestroyAndRepair() {
  std::vector<int32_t> out = {AnyMicrobatch()};
  const size_t count = 2 + Below(3);
  while (out.size() < count && out.size() < choice_.paths.size()) {
    const int32_t m = AnyMicrobatch();
    if (std::count(out.begin(), out.end(), m) == 0) out.push_back(m);
  }
  CountVisits();
  for (const int32_t m : out) Count(choice_.paths[m], -1);
  for (size_t i = 0; i < out.size(); ++i) {
    const auto left = static_cast<int32_t>(out.size() - 1 - i);
    const CandidatePath* chosen = nullptr;
    for (const CandidatePath& candidate : CandidatesOf(out[i])) {
      if (!Fits(candidate.path, left)) continue;
      chosen = &candidate;
      if (Below(3) > 0) break;
    }
    if (chosen == nullptr) return false;
    choice_.paths[out[i]] = chosen->path;
    Count(chosen->path, 1);
  }
  return true;
}

int32_t SearchState::AnyMicrobatch() {
  return static_cast<int32_t>(Below(choice_.paths.size()));
}

// A position of the path after the data node's.
size_t SearchState::AnyStop(const NodePath& path) {
  return 1 + Below(path.size() - 1);
}

// How many microbatches of the data node it sends over v instead of u; other
// than any count if that makes a path illegal.
int32_t SearchState::Replace(int32_t data_index, int32_t u, int32_t v) {
  int32_t replaced = 0;
  for (int32_t m = data_index * block_; m < (data_index + 1) * block_; ++m) {
    NodePath& path = choice_.paths[m];
    const auto at = std::find(path.begin(), path.end(), u);
    if (at == path.end()) continue;
    *at = v;
    ++replaced;
    if (!Legal(path)) return u < v ? -1 : -2;
  }
  return replaced;
}
bool SearchState::ChangeAnything() {
  const uint64_t draw = Below(100);
  if (draw < 35) return ChangeKeys();
  if (draw < 55) return Reorder();
  if (draw < 73) return ExchangeNodes();
  if (draw < 80) return ExchangeBlocks();
  if (draw < 85) return ExchangeTails();
  if (draw < 95) return ReplaceByPeer();
  return DestroyAndRepair();
}

bool SearchState::ChangeWholeBlocks() {
  return Below(2) == 0 ? ExchangeBlocks() : ReorderBlock();
}

}  // namespace trireme
