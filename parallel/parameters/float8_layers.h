// Which linear layers multiply in FP8: forward W·x, and backward W's transpose
// by the gradient of the result, each operand rounded to E4M3 with a scale for
// each token and each channel of the weight (runtime/ops/float8.h). The
// weight's gradient is a product of what is not rounded: it sums over tokens,
// of which a rank and a microbatch have some, so that no scale of tokens would
// be the same on every grid. (Rowwise scaling with weight gradients in high
// precision, as torchao's recipe of that name has it.) With delayed scaling
// (delayed_scaling.h) each operand has one scale, from the steps before, and
// the weight's gradient is a product in FP8, too.

#ifndef TRIREME_PARALLEL_PARAMETERS_FLOAT8_LAYERS_H_
#define TRIREME_PARALLEL_PARAMETERS_FLOAT8_LAYERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/parameters/name_pattern.h"

namespace trireme {

struct Float8Layers {
  // Patterns of layers' names, as TrainedParameters has them, and of those
  // among them that are left out. None: no layer.
  std::vector<std::string> layers;
  std::vector<std::string> except;
  // Over how many steps before it an operand's scale is the largest that it
  // needed, times 2^margin; 0: current scaling.
  int64_t history = 0;
  int margin = 0;
  static constexpr int64_t kMostHistory = 1024;

  // Of a linear layer ("blocks.0.mlp.in").
  bool Has(const std::string& layer) const {
    return MatchesAny(layers, layer) && !MatchesAny(except, layer);
  }
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_PARAMETERS_FLOAT8_LAYERS_H_
