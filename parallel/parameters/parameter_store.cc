#include "parallel/parameters/parameter_store.h"

#include <utility>

#include "parallel/parameters/frozen_parameters.h"
#include "runtime/core/log.h"

namespace trireme {

Parameter& ParameterStore::Create(std::string name, const Shape& global_shape,
                                  std::vector<ShardedDim> shards,
                                  const Initializer& initializer, bool decay,
                                  bool trainable) {
  Parameter parameter;
  parameter.trainable = trainable && trained_.Trains(name);
  parameter.name = std::move(name);
  parameter.global_shape = global_shape;
  parameter.shards = std::move(shards);
  parameter.initializer = initializer;
  parameter.decay = decay;
  parameter.dtype = dtype_;
  return Add(std::move(parameter));
}

Parameter& ParameterStore::CreateUnrounded(std::string name,
                                           const Shape& global_shape,
                                           std::vector<ShardedDim> shards,
                                           const Initializer& initializer,
                                           bool decay) {
  Parameter parameter;
  parameter.trainable = trained_.Trains(name);
  parameter.name = std::move(name);
  parameter.global_shape = global_shape;
  parameter.shards = std::move(shards);
  parameter.initializer = initializer;
  parameter.decay = decay;
  parameter.dtype = ComputeDType(dtype_);
  return Add(std::move(parameter));
}

Parameter& ParameterStore::CreateLinearWeight(const std::string& layer,
                                              const Shape& global_shape,
                                              std::vector<ShardedDim> shards,
                                              const Initializer& initializer) {
  Parameter parameter;
  parameter.name = layer + ".weight";
  parameter.trainable = trained_.Trains(parameter.name);
  parameter.float8_products = float8_.Has(layer);
  parameter.global_shape = global_shape;
  parameter.shards = std::move(shards);
  parameter.initializer = initializer;
  parameter.dtype = dtype_;
  if (!parameter.trainable) parameter.format = trained_.frozen;
  return Add(std::move(parameter));
}

Parameter& ParameterStore::Add(Parameter created) {
  for (const auto& existing : parameters_) {
    if (existing->name != created.name) continue;
    CHECK(again_ && existing->global_shape == created.global_shape)
        << created.name;
    return *existing;
  }
  CHECK(!again_) << created.name << " is of another model";
  auto parameter = std::make_unique<Parameter>(std::move(created));
  parameter->unit = unit_;
  if (allocate_ == Allocate::kAll ||
      (allocate_ == Allocate::kFrozen && !parameter->trainable)) {
    MakeValues(device_, seed_, *parameter);
  }
  parameters_.push_back(std::move(parameter));
  return *parameters_.back();
}

}  // namespace trireme
