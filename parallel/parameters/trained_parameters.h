// What of a model training changes: everything, chosen layers, or low-rank
// adapters beside linear layers whose weights stay (Hu et al., "LoRA: Low-rank
// adaptation of large language models"), which may decompose these (Liu et al.,
// "DoRA: Weight-decomposed low-rank adaptation"). The rest has values and no
// more: no gradients, moments, masters, reductions.

#ifndef TRIREME_PARALLEL_PARAMETERS_TRAINED_PARAMETERS_H_
#define TRIREME_PARALLEL_PARAMETERS_TRAINED_PARAMETERS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/ops/kernels/quantization.h"

namespace trireme {

// Names of an adapter's parameters, behind the layer's name: A [rank, in] and
// B [out, rank] of y += scale·B·A·x, and the magnitudes [out] of the weight's
// rows where it is decomposed.
inline constexpr char kInputFactor[] = ".lora_A";
inline constexpr char kOutputFactor[] = ".lora_B";
inline constexpr char kMagnitude[] = ".lora_magnitude";

bool IsAdapterParameter(std::string_view parameter);

struct TrainedParameters {
  enum class Kind { kAll, kLayers, kAdapters };
  Kind kind = Kind::kAll;
  // Patterns of layers' or parameters' names, in which * stands for any
  // characters (fnmatch(3)), and of those among them that are left out.
  std::vector<std::string> layers;
  std::vector<std::string> except;
  // Of adapters.
  int64_t rank = 0;
  double alpha = 0;  // scale = alpha/rank
  // Whether rows of W + scale·B·A are directions, whose magnitudes train too.
  bool decompose = false;
  // Of the linear layers' weights that do not train.
  WeightFormat frozen = WeightFormat::kFull;

  // Whether training changes the parameter ("blocks.0.mlp.in.weight").
  bool Trains(const std::string& parameter) const;
  // Whether the linear layer ("blocks.0.mlp.in") gets an adapter.
  bool Adapts(const std::string& layer) const;
  bool all() const { return kind == Kind::kAll; }
  // With offload: whether what trains of a block leaves the device with it.
  // Adapters are small: they stay, with their optimizer.
  bool LeaveTheDevice() const { return kind != Kind::kAdapters; }
  double scale() const { return alpha / static_cast<double>(rank); }
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_PARAMETERS_TRAINED_PARAMETERS_H_
