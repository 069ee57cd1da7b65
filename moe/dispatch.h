// How rows of tokens and their experts come together, exactly and without
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
// fewer where experts have a capacity or the plan a bound. Only what is certain
// counts for memory on a dry device; it counts work for even routing, or for
// the load that is expected of the rank with most (ExpertExchange).
//
// Where the plan has weights move, or they are fewer bytes at a call's load,
// rows stay and experts come (ExpertLinear); or, of an expert that several
// ranks share, rows go to some of them and the others' slices come
// (expert_slices.h). Every rank knows all ranks' counts, and so all choose
// alike; results and gradients have the same bits either way.

#ifndef TRIREME_MOE_DISPATCH_H_
#define TRIREME_MOE_DISPATCH_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "moe/exchange_choice.h"
#include "moe/expert_linear.h"
#include "moe/row_chunks.h"
#include "parallel/grid/context.h"
#include "runtime/autograd/tape.h"

namespace trireme {

class Dispatch {
 public:
  // Of one use of a layer. `experts`: int32 [t, k], −1 goes nowhere. A
  // collective over the expert grid's ranks, as is what follows. Refuses more
  // rows than the plan's bound.
  Dispatch(ForwardContext& context, const std::string& name,
           const Tensor& experts, const DispatchSizes& sizes);

  // x[t, h] → rows[r, h], by expert. Where they come from this rank alone,
  // whoever keeps them can make them again of x.
  Variable ToExperts(Tape& tape, const Variable& x) const;
  // weights[t, k] → [r, 1].
  Variable WeightsToExperts(Tape& tape, const Variable& weights) const;
  // rows[r, h] → [t, h].
  Variable FromExperts(Tape& tape, const Variable& rows) const;

  const std::shared_ptr<ExpertRows>& rows() const;
  // Where rows go in several chunks, or experts are shadowed: by which they go
  // then; else null.
  const std::shared_ptr<const RowChunks>& chunks() const;

 private:
  struct Routes;

  std::shared_ptr<const Routes> routes_;
};

}  // namespace trireme

#endif  // TRIREME_MOE_DISPATCH_H_
