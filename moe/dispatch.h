// How the rows of tokens get to their experts and back, exactly and without
// dropping any.
//
//   to experts    a copy of each token's row for each of its experts, sorted by
//                 expert; where ep > 1 sent to the ranks that own the experts,
//                 and sorted by expert again, rows of one expert in the order
//                 of their ranks and routes
//   from experts  the way back; each token sums its rows in the order of its
//                 choices
//
// The two are each other's conjugates. Rows travel in the activations' type:
// of every row k·(ep − 1)/ep of its bytes, there and back, forward and
// backward. A rank holds as many rows as are routed to its experts: k·t where
// they are even, at most min(k, its experts)·t·ep for t tokens on each rank, or
// fewer where experts have a capacity. Only the second is certain; a dry device
// takes memory for it, and counts work for the first.

#ifndef TRIREME_MOE_DISPATCH_H_
#define TRIREME_MOE_DISPATCH_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "parallel/context.h"
#include "runtime/autograd/tape.h"

namespace trireme {

class Dispatch {
 public:
  // Of one use of a layer. `experts`: int32 [t, k] of num_experts, −1 goes
  // nowhere; no expert is more than `most_of_expert` times in it. A collective
  // over the expert grid's ranks, as is what follows.
  Dispatch(ForwardContext& context, const std::string& name,
           const Tensor& experts, int64_t num_experts, int64_t most_of_expert);

  // x[t, h] → rows[r, h] of this rank's experts. Where they come from this rank
  // alone, whoever keeps them can make them again of x.
  Variable ToExperts(Tape& tape, const Variable& x) const;
  // weights[t, k] → [r, 1].
  Variable WeightsToExperts(Tape& tape, const Variable& weights) const;
  // rows[r, h] → [t, h].
  Variable FromExperts(Tape& tape, const Variable& rows) const;

  // Rows of each of this rank's experts.
  const std::vector<int64_t>& counts() const;

 private:
  struct Routes;

  std::shared_ptr<const Routes> routes_;
};

}  // namespace trireme

#endif  // TRIREME_MOE_DISPATCH_H_
