// A Chunk: consecutive units (embedding, blocks, head) of a model that one rank
// runs as one pipeline stage. What the executor needs to know of a model, and
// all it knows.

#ifndef TRIREME_PARALLEL_EXECUTOR_CHUNK_H_
#define TRIREME_PARALLEL_EXECUTOR_CHUNK_H_

#include <cstdint>
#include <vector>

#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"

namespace trireme {

// One of the tensors that a microbatch carries from unit to unit.
struct BoundarySpec {
  Shape shape;
  DType dtype = DType::kFloat32;
  // The same on both sides of a hop between stages (x whole over tp;
  // conditioning Replicate, its gradient still a part of a sum).
  AxisStates states;
  // The block that made it, where one further on than the next reads it: a
  // skip; else -1. No two of a microbatch have the same.
  int64_t skip_of = -1;
  // Of a skip at the end of a chunk: the rank that made it also reads it, and
  // it waits there for the chunk that does, while stages between the two run
  // elsewhere (staying_skips.h).
  bool stays = false;
};

class Chunk {
 public:
  virtual ~Chunk() = default;

  // Units are numbered from 0 in the order in which they run.
  virtual int num_units() const = 0;

  // What one microbatch carries into `unit`, or, for num_units(), out of the
  // chunk. Empty where a model begins, which reads the batch itself, and where
  // it ends.
  virtual std::vector<BoundarySpec> Boundary(int unit) const = 0;

  // True for a unit of which only the inputs are kept for backward, which then
  // runs it again.
  virtual bool Recomputes(int unit) const = 0;

  // Runs `unit` on microbatch `microbatch` of the step's local batch and
  // returns what Boundary(unit + 1) says; losses are added to the objective
  // where they are made (AddLoss). Uses the parameters of this unit only. A
  // pure function of state, batch and parameters.
  virtual std::vector<ShardedVariable> RunUnit(
      ForwardContext& context, int64_t microbatch, int unit,
      std::vector<ShardedVariable> state) = 0;

  // Frees what is kept of the microbatch that ran last.
  virtual void Forget() {}
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_EXECUTOR_CHUNK_H_
