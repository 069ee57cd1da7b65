// A tensor of weights of a model: this rank's part of one logical tensor.
//
// The logical tensor has a name and a global shape that no process grid
// changes; `shards` tells which of its dims are split over which axes. The
// gradient is accumulated in place, in fp32 (fp64 in fp64 runs), over all
// microbatches of a step.

#ifndef TRIREME_RUNTIME_AUTOGRAD_PARAMETER_H_
#define TRIREME_RUNTIME_AUTOGRAD_PARAMETER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/autograd/float8_delay.h"
#include "runtime/core/axis.h"
#include "runtime/core/philox.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/quantization.h"

namespace trireme {

// Dim `dim` is cut into `parts` equal parts along `axis`; this rank has part
// `index`.
struct ShardedDim {
  Axis axis;
  int dim = 0;
  int parts = 1;
  int index = 0;
};

// How the values start. Element i of the *logical* tensor depends on (seed,
// name, i) only, so that every grid starts from the same model.
struct Initializer {
  enum class Kind { kZeros, kOnes, kConstant, kNormal, kXavierUniform };
  Kind kind = Kind::kZeros;
  double value = 0;      // kConstant
  double stddev = 0.02;  // kNormal
  // kXavierUniform: uniform in ±√(6/(fan_in + fan_out)).
  int64_t fan_in = 0;
  int64_t fan_out = 0;
};

struct Parameter {
  std::string name;
  Shape global_shape;
  std::vector<ShardedDim> shards;
  Initializer initializer;
  // Weight decay applies (matrices, not biases, scales or tables).
  bool decay = true;

  DType dtype = DType::kFloat32;  // of value
  // Parameters that are used together, and so are gathered together where they
  // are sharded.
  int unit = 0;

  Tensor value;  // local shape; undefined while it is not gathered
  // In place of a value, of a weight that does not train where `format` is
  // another than kFull.
  QuantizedTensor quantized;
  WeightFormat format = WeightFormat::kFull;
  // Set at creation. False: it keeps its initial or loaded values; no gradient,
  // no moments and nothing that only its gradient would read are kept for it.
  bool trainable = true;
  // Of a linear layer's weight: whether the layer multiplies in FP8
  // (float8_product.h). The weight's own gradient is of rounded operands where
  // these have scales of earlier steps.
  bool float8_products = false;
  Float8Delay float8_delay;
  // Its gradient is of no loss: what a layer counted over the step's whole
  // batch. A step puts it in the place of the values, for the next one to read,
  // and neither clipping nor decay knows of it.
  bool replaced_by_gradient = false;
  // More than 0: its gradient is of no loss. A step moves each element by this
  // against its gradient's sign, and neither clipping nor decay knows of it.
  double sign_step = 0;
  // Local shape, fp32 or fp64. Where gradients are sharded, defined only while
  // a backward adds to it.
  Tensor grad;

  // Whether its gradient is a loss's.
  bool learns_from_losses() const {
    return sign_step == 0 && !replaced_by_gradient;
  }

  // Of this rank's part.
  int64_t local_elements() const;

  // The axes over which each rank's gradient is only its part of a sum: found
  // when the model is built, from the axis states of the activations that the
  // parameter meets. The gradient reducer sums over them.
  AxisSet gradient_sum_axes;
};

// The global shape with every sharded dim divided.
Shape LocalShape(const Shape& global, const std::vector<ShardedDim>& shards);

// Writes the initial values of this rank's part.
void InitializeParameter(uint64_t seed, Parameter& parameter);

// Calls f(local_offset, global_offset, count) for each contiguous run of this
// rank's part of a tensor, in row-major order: how parts are copied into and
// out of logical tensors (checkpoints, parity, initial values).
template <typename F>
void ForEachLocalRun(const Shape& global, const std::vector<ShardedDim>& shards,
                     F&& f);

}  // namespace trireme

#include "runtime/autograd/parameter-inl.h"

#endif  // TRIREME_RUNTIME_AUTOGRAD_PARAMETER_H_
