#include "models/mesh_tokens/mesh_grammar.h"

#include <algorithm>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// Where a sequence stands in its last fan.
struct Standing {
  bool in_fan = false;
  // Its centre included.
  int64_t vertices = 0;
  // A block that waits for its offset.
  bool after_block = false;
};

// A centre and two around it.
constexpr int64_t kLeastVertices = 3;

Standing StandingOf(const MeshTokenFormat& format,
                    std::span<const int32_t> sequence) {
  Standing standing;
  for (auto token = sequence.rbegin(); token != sequence.rend(); ++token) {
    if (*token >= format.first_begin()) {
      standing.in_fan = true;
      break;
    }
    if (*token < format.first_block()) ++standing.vertices;
  }
  standing.after_block = !sequence.empty() &&
                         sequence.back() >= format.first_block() &&
                         sequence.back() < format.first_begin();
  return standing;
}

// The fewest tokens from there to the end.
int64_t ToEnd(const Standing& standing) {
  if (!standing.in_fan) return kShortestMeshSequence;
  const int64_t missing =
      std::max<int64_t>(kLeastVertices - standing.vertices, 0);
  return std::max<int64_t>(missing, standing.after_block ? 1 : 0) + 1;
}

}  // namespace

std::vector<TokenInterval> MeshGrammar::Next(std::span<const int32_t> sequence,
                                             int64_t left) const {
  const Standing now = StandingOf(format_, sequence);
  CHECK_GE(left, ToEnd(now));
  const bool fan_may_end =
      !now.after_block && (!now.in_fan || now.vertices >= kLeastVertices);
  const auto fits = [left](const Standing& next) { return ToEnd(next) < left; };
  std::vector<TokenInterval> allowed;
  const auto vertex = Standing{.in_fan = true, .vertices = now.vertices + 1};
  if (now.in_fan && fits(vertex)) allowed.push_back({0, format_.offsets()});
  const bool may_name_block =
      now.in_fan && now.vertices > 0 && !now.after_block;
  if (may_name_block &&
      fits({.in_fan = true, .vertices = now.vertices, .after_block = true})) {
    allowed.push_back({format_.first_block(), format_.first_begin()});
  }
  if (fan_may_end && fits({.in_fan = true})) {
    allowed.push_back({format_.first_begin(), format_.end()});
  }
  if (fan_may_end && now.in_fan) {
    allowed.push_back({format_.end(), format_.end() + 1});
  }
  return allowed;
}

}  // namespace trireme
