#include "parallel/parameter_store.h"

#include <utility>

#include "runtime/core/log.h"

namespace trireme {

Parameter& ParameterStore::Create(std::string name, const Shape& global_shape,
                                  std::vector<ShardedDim> shards,
                                  const Initializer& initializer, bool decay,
                                  bool trainable) {
  for (const auto& existing : parameters_)
    CHECK(existing->name != name) << name;
  trainable = trainable && trained_.Trains(name);
  auto parameter = std::make_unique<Parameter>();
  parameter->name = std::move(name);
  parameter->global_shape = global_shape;
  parameter->shards = std::move(shards);
  parameter->initializer = initializer;
  parameter->decay = decay;
  parameter->dtype = dtype_;
  parameter->unit = unit_;
  parameter->trainable = trainable;
  if (allocate_ || !trainable) {
    parameter->value =
        Tensor::Empty(device_, LocalShape(global_shape, parameter->shards),
                      dtype_, MemoryCategory::kParameters, parameter->name);
    InitializeParameter(seed_, *parameter);
  }
  parameters_.push_back(std::move(parameter));
  return *parameters_.back();
}

}  // namespace trireme
