// A Chunk: consecutive blocks of a model that one rank runs as one pipeline
// stage. What the executor needs to know of a model, and all it knows.

#ifndef TRIREME_PARALLEL_CHUNK_H_
#define TRIREME_PARALLEL_CHUNK_H_

#include <cstdint>
#include <vector>

#include "parallel/axis_state.h"
#include "parallel/context.h"

namespace trireme {

struct TensorSpec {
  Shape shape;
  DType dtype = DType::kFloat32;
};

class Chunk {
 public:
  virtual ~Chunk() = default;

  // What one microbatch brings from the previous stage; empty for the first
  // stage, which reads the batch itself.
  virtual std::vector<TensorSpec> InputSpecs() const = 0;
  // What Forward returns: the next stage's InputSpecs, or one scalar.
  virtual std::vector<TensorSpec> OutputSpecs() const = 0;

  // True for the last stage: Forward returns one scalar, the microbatch's
  // local loss sum, whose backward seeds itself.
  virtual bool computes_loss() const = 0;

  // Runs the chunk on microbatch `microbatch` of the step's local batch.
  // A tensor that crosses a hop has the same axis states on both sides (x whole
  // over tp; conditioning Replicate, its gradient still a part of a sum). A
  // pure function of inputs, batch and parameters.
  virtual std::vector<ShardedVariable> Forward(
      ForwardContext& context, int64_t microbatch,
      const std::vector<Variable>& inputs) = 0;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_CHUNK_H_
