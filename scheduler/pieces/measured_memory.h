// Memory of a model's parts on one rank, measured by whoever can run the model
// without its arithmetic (trainer/dry_memory.h). Replaces the formulas of
// model_shape.h where a model has it.

#ifndef TRIREME_SCHEDULER_PIECES_MEASURED_MEMORY_H_
#define TRIREME_SCHEDULER_PIECES_MEASURED_MEMORY_H_

#include <cstdint>

namespace trireme {

// All of one rank and, but for parameters, of one microbatch.
struct PartMemory {
  int64_t parameters = 0;  // elements
  // Tables beside the parameters, as of positions.
  int64_t constant_bytes = 0;
  // Kept from forward to backward.
  int64_t activation_bytes = 0;
  // Kept after the input gradients where weight gradients are put off.
  int64_t deferred_bytes = 0;
};

struct MeasuredMemory {
  // What a chunk has beside its parts; it includes its input.
  PartMemory chunk;
  PartMemory block;
  PartMemory embedding;
  PartMemory head;
  // The most that a pass holds above what it keeps, in a chunk's middle and
  // with the head.
  int64_t transient_bytes = 0;
  int64_t head_transient_bytes = 0;
  // The most that one reduction of gradients needs to arrive in.
  int64_t reduction_bytes = 0;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PIECES_MEASURED_MEMORY_H_
