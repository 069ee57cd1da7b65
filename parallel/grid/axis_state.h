// What each rank of a grid axis holds of an activation, and of its gradient.
//
//   state       value on the axis's ranks    gradient on the axis's ranks
//   Invariant   the same                     the same
//   Replicate   the same                     each its part of a sum
//   Shard(dim)  its slice of `dim`           its slice of `dim`
//   Partial     its part of a sum            the same
//
// Invariant and Replicate hold equal values; telling them apart is what makes
// gradients right by construction: an activation that every rank uses whole
// (Invariant) has a gradient that is already complete everywhere, while one
// that each rank applies to its own shard (Replicate) has a gradient that must
// be summed. Collectives are the only way from one state to another, and each
// brings its conjugate for backward (transitions.h):
//
//   Invariant → Replicate   nothing          ⇄  all-reduce     (Megatron's f)
//   Partial   → Invariant   all-reduce       ⇄  nothing        (Megatron's g)
//   Shard     → Invariant   all-gather       ⇄  slice
//   Shard     → Replicate   all-gather       ⇄  reduce-scatter
//   Shard(i)  → Shard(j)    all-to-all       ⇄  all-to-all
//   Partial   → Shard       reduce-scatter   ⇄  all-gather
//   Invariant → Shard       slice            ⇄  all-gather
//   Replicate → Shard       slice            ⇄  place among zeros
//
// A parameter that is not sharded over an axis follows from the states it
// meets: with Shard or Replicate its gradient is a part of a sum over that
// axis, with Invariant it is complete. The batch makes every activation
// Shard(0) over dp, so data-parallel reduction is the same rule.

#ifndef TRIREME_PARALLEL_GRID_AXIS_STATE_H_
#define TRIREME_PARALLEL_GRID_AXIS_STATE_H_

#include <array>
#include <string>

#include "runtime/autograd/tape.h"
#include "runtime/core/axis.h"

namespace trireme {

struct AxisState {
  enum class Kind { kInvariant, kReplicate, kShard, kPartial };
  Kind kind = Kind::kInvariant;
  int dim = 0;  // of kShard

  static AxisState Invariant() { return {Kind::kInvariant, 0}; }
  static AxisState Replicate() { return {Kind::kReplicate, 0}; }
  static AxisState Shard(int dim) { return {Kind::kShard, dim}; }
  static AxisState Partial() { return {Kind::kPartial, 0}; }

  // "Shard(2)".
  std::string ToString() const;
  friend bool operator==(const AxisState&, const AxisState&) = default;
};

class AxisStates {
 public:
  const AxisState& operator[](Axis axis) const {
    return states_[static_cast<int>(axis)];
  }
  AxisState& operator[](Axis axis) { return states_[static_cast<int>(axis)]; }
  // "tp Shard(2), dp Shard(0)"; axes that are Invariant are left out.
  std::string ToString() const;
  friend bool operator==(const AxisStates&, const AxisStates&) = default;

 private:
  std::array<AxisState, kNumAxes> states_{};
};

// A variable with its state on every axis: what model code passes around.
struct ShardedVariable {
  Variable variable;
  AxisStates states;

  const Tensor& value() const { return variable.value(); }
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_GRID_AXIS_STATE_H_
