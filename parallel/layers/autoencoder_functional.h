// The ops of variational autoencoders on activations with axis states, by the
// rules of functional.h.

#ifndef TRIREME_PARALLEL_LAYERS_AUTOENCODER_FUNCTIONAL_H_
#define TRIREME_PARALLEL_LAYERS_AUTOENCODER_FUNCTIONAL_H_

#include "parallel/grid/axis_state.h"
#include "parallel/grid/context.h"
#include "runtime/ops/distance_loss.h"

namespace trireme {

// Elementwise but for the last dim, which no axis may shard.
ShardedVariable SampleGaussian(ForwardContext& context,
                               const ShardedVariable& moments,
                               const Tensor& noise);

// Complete on every axis that the operand is Invariant on, parts of the global
// sum on the axes it is sharded over. For AddLoss and for nothing else.
// `counts`: of sets (runtime/ops/gaussian.h), or null.
ShardedVariable GaussianDivergence(ForwardContext& context,
                                   const ShardedVariable& moments,
                                   const Tensor* counts = nullptr);
ShardedVariable DistanceLoss(ForwardContext& context, DistanceTerm term,
                             const ShardedVariable& values,
                             const DistanceComparison& comparison);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_LAYERS_AUTOENCODER_FUNCTIONAL_H_
