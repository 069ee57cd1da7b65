// What a rank's optimizer has of a parameter.

#ifndef TRIREME_PARALLEL_OPTIMIZER_OWNED_PARAMETER_H_
#define TRIREME_PARALLEL_OPTIMIZER_OWNED_PARAMETER_H_

#include "parallel/sharding/parameter_buckets.h"
#include "runtime/autograd/parameter.h"
#include "runtime/device/tensor.h"

namespace trireme {

// What this rank owns of a parameter, and the optimizer's tensors of it, all of
// one shape: the parameter's local one, or that of a flat range.
struct OwnedParameter {
  Parameter* parameter = nullptr;
  ElementRange range;
  // Data-parallel ranks of coordinates below this own all ranges.
  int data_shards = 1;
  Tensor value;     // what forward reads
  Tensor gradient;  // the reduced one
  // Filled in by the optimizer.
  // Shares value's storage unless that is of less precision or on another
  // device.
  Tensor master;
  Tensor m;
  Tensor v;
  Tensor ema;  // undefined without an average
  // Of its group.
  double learning_rate_scale = 1;
  double weight_decay = 0;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_OPTIMIZER_OWNED_PARAMETER_H_
