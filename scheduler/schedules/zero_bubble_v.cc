#include <algorithm>
#include <array>

#include "scheduler/schedules/orders.h"

namespace trireme {
namespace {

// The list of one rank of ZB-V: the next microbatch of each kind and chunk.
class VList {
 public:
  // Steps of microbatches from `microbatches` on are left out.
  explicit VList(int32_t microbatches) : microbatches_(microbatches) {}

  void Forward(int32_t chunk) {
    Append(InstructionKind::kForward, chunk, forward_);
  }
  void BackwardInput(int32_t chunk) {
    Append(InstructionKind::kBackwardInput, chunk, backward_);
  }
  void BackwardWeight(int32_t chunk) {
    Append(InstructionKind::kBackwardWeight, chunk, weight_);
  }

  int32_t forwards(int32_t chunk) const { return forward_[chunk]; }
  int32_t backwards(int32_t chunk) const { return backward_[chunk]; }
  int32_t weights(int32_t chunk) const { return weight_[chunk]; }
  std::vector<ComputeStep> Take() { return std::move(steps_); }

 private:
  void Append(InstructionKind kind, int32_t chunk,
              std::array<int32_t, 2>& next) {
    const int32_t microbatch = next[chunk]++;
    if (microbatch < microbatches_) steps_.push_back({kind, microbatch, chunk});
  }

  int32_t microbatches_;
  std::array<int32_t, 2> forward_{};
  std::array<int32_t, 2> backward_{};
  std::array<int32_t, 2> weight_{};
  std::vector<ComputeStep> steps_;
};

}  // namespace

ComputeOrder ZeroBubbleVOrder(int32_t num_ranks, int32_t microbatches) {
  constexpr int32_t kDown = 0;
  constexpr int32_t kUp = 1;
  const int32_t p = num_ranks;
  // Fewer do not fill the pattern; what is too much is left out.
  const int32_t m = std::max(microbatches, 2 * p - 1);
  ComputeOrder order(p);
  for (int32_t rank = 0; rank < p; ++rank) {
    VList list(microbatches);
    for (int32_t i = 0; i < 2 * (p - rank) - 1; ++i) list.Forward(kDown);
    for (int32_t i = 0; i < rank; ++i) {
      list.Forward(kUp);
      list.Forward(kDown);
    }
    for (int32_t i = 0; i < p - rank; ++i) {
      list.Forward(kUp);
      list.BackwardInput(kUp);
      list.BackwardWeight(kUp);
    }
    while (list.forwards(kDown) < m || list.forwards(kUp) < m) {
      if (list.forwards(kDown) < m) list.Forward(kDown);
      list.BackwardInput(kDown);
      list.BackwardWeight(kDown);
      list.Forward(kUp);
      list.BackwardInput(kUp);
      list.BackwardWeight(kUp);
    }
    for (int32_t i = 0; i < rank; ++i) {
      list.BackwardInput(kDown);
      list.BackwardInput(kUp);
    }
    for (int32_t i = 0; i < p - rank; ++i) {
      list.BackwardInput(kDown);
      list.BackwardWeight(kDown);
    }
    while (list.weights(kUp) < m) list.BackwardWeight(kUp);
    while (list.weights(kDown) < m) list.BackwardWeight(kDown);
    order[rank] = list.Take();
  }
  return order;
}

}  // namespace trireme
