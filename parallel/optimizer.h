// AdamW on one rank's parameters: master weights and moments in fp32 (fp64 in
// fp64 runs), the global gradient norm, clipping, and the moving average of
// the weights.

#ifndef TRIREME_PARALLEL_OPTIMIZER_H_
#define TRIREME_PARALLEL_OPTIMIZER_H_

#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "parallel/context.h"
#include "runtime/autograd/parameter.h"

namespace trireme {

struct OptimizerOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  // On parameters with Parameter::decay.
  double weight_decay = 0.0;
  // Of the global norm; 0 = no clipping.
  double clip_norm = 1.0;
  // Moving average min(ema_decay, (1+n)/(10+n)) after n steps; 0 = none.
  double ema_decay = 0.0;
};

// The optimizer's tensors of one parameter.
struct OptimizerState {
  Tensor master;  // shares Parameter::value's storage unless that is bf16
  Tensor m;
  Tensor v;
  Tensor ema;  // undefined without an average
};

class Optimizer {
 public:
  // `seed`: of the parameters' initial values (ParameterStore).
  Optimizer(ParallelContext& context, const OptimizerOptions& options,
            uint64_t seed, const std::vector<Parameter*>& parameters);

  // The norm of the whole model's gradient, each logical element once:
  // parameters that are not sharded over an axis count on that axis's first
  // rank. A collective over the ranks of the model (tp, cp, ep, pp). Sets the
  // factor that Update applies: min(1, clip_norm/(norm + 1e-6)). Call when all
  // gradients are reduced.
  double ClipGradients();

  // One step on these parameters; `step` counts from 1.
  void Update(const std::vector<Parameter*>& parameters, int64_t step,
              double learning_rate);

  OptimizerState& state(const Parameter& parameter) {
    return states_.at(&parameter);
  }
  const std::vector<Parameter*>& parameters() const { return parameters_; }

  // Rewrites the compute copy from the master (after loading a checkpoint).
  static void SyncValue(const OptimizerState& state, Parameter& parameter);

 private:
  ParallelContext& context_;
  OptimizerOptions options_;
  std::vector<Parameter*> parameters_;
  std::unordered_map<const Parameter*, OptimizerState> states_;
  double gradient_scale_ = 1.0;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_OPTIMIZER_H_
