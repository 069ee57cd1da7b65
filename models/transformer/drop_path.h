// Stochastic depth (Huang et al., "Deep networks with stochastic depth"): in
// training a branch of a block is left out of some samples, and counts for more
// in the others.

#ifndef TRIREME_MODELS_TRANSFORMER_DROP_PATH_H_
#define TRIREME_MODELS_TRANSFORMER_DROP_PATH_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "parallel/grid/context.h"
#include "runtime/autograd/tape.h"

namespace trireme {

class DropPath {
 public:
  // Of the branch of that name: what it is left out of follows from the seed,
  // the name, the step and the sample, and so is the same on every grid and
  // when it is computed again. `rate`: of samples, from 0 to less than 1.
  DropPath(uint64_t seed, std::string_view name, double rate);

  // Of each of a step's samples, 0 or 1/(1 − rate).
  std::vector<double> FactorsOf(int64_t step,
                                const std::vector<uint64_t>& samples) const;

  // y[b, tokens, width] times its samples' factors.
  ShardedVariable Forward(ForwardContext& context, int64_t step,
                          const std::vector<uint64_t>& samples,
                          const ShardedVariable& y) const;

 private:
  uint64_t seed_;
  double rate_;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_TRANSFORMER_DROP_PATH_H_
