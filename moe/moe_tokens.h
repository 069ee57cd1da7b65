// The tokens that a layer with experts is given.

#ifndef TRIREME_MOE_MOE_TOKENS_H_
#define TRIREME_MOE_MOE_TOKENS_H_

#include <cstdint>
#include <vector>

namespace trireme {

// The position of padding, which is neither routed nor counted.
inline constexpr int32_t kPaddingPosition = -1;

// Kinds of samples whose routes may be counted apart, and the kind of one whose
// routes are not counted.
inline constexpr int64_t kRouteKinds = 16;
inline constexpr int32_t kNoRouteKind = -1;

// Behind a layer's name: its routes before capacities drop any.
inline constexpr char kDemandedRoutes[] = ".demanded";

struct MoeTokens {
  // Of each of a sample's tokens on this rank its position in the sample, by
  // which ranks agree on an order of what they hold together. Empty: the rank
  // has all of them, in order.
  std::vector<int32_t> positions;
  // Of each sample over all ranks, and samples of the whole job's batch; 0
  // samples: nothing is learnt, there are no losses and no noise.
  int64_t of_sample = 0;
  int64_t global_batch = 0;
  // What keys the samples' random numbers (models/batch.h); negative where
  // held-out samples are measured.
  int64_t step = 0;
  std::vector<uint64_t> samples;
  // Each sample's kind, below kRouteKinds or kNoRouteKind; empty: all routes
  // are counted as of one kind.
  std::vector<int32_t> kinds;

  bool has_padding() const {
    for (const int32_t position : positions) {
      if (position == kPaddingPosition) return true;
    }
    return false;
  }
};

}  // namespace trireme

#endif  // TRIREME_MOE_MOE_TOKENS_H_
