// What the blocks of a DiT are modulated by: c = mlp(sinusoid(1000·time)) +
// class_table[label].

#ifndef TRIREME_MODELS_DIT_DIT_CONDITIONER_H_
#define TRIREME_MODELS_DIT_DIT_CONDITIONER_H_

#include <string>

#include "models/dit/dit_config.h"
#include "models/transformer/embeddings.h"
#include "parallel/grid/context.h"
#include "parallel/parameters/parameter_store.h"

namespace trireme {

struct DitConditions {
  Tensor sinusoid;  // [b, kScalarChannels] in the compute type
  Tensor labels;    // int32 [b]; `classes` = no class. Undefined without.
};

// Of times [b], fp32 (fp64 for fp64).
Tensor DitSinusoid(const DitConfig& config, const Tensor& times, DType dtype);

class DitConditioner {
 public:
  // `prefix`: of its parameters' names.
  DitConditioner(ParameterStore& store, const std::string& prefix,
                 const DitConfig& config);
  // [b, h].
  ShardedVariable Forward(ForwardContext& context,
                          const DitConditions& conditions) const;

 private:
  ConditionMlp time_;
  Parameter* class_table_ = nullptr;
};

}  // namespace trireme

#endif  // TRIREME_MODELS_DIT_DIT_CONDITIONER_H_
