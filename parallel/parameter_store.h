// The parameters of one rank's part of a model, in the order in which the
// model creates them. Layers hold references; addresses are stable.

#ifndef TRIREME_PARALLEL_PARAMETER_STORE_H_
#define TRIREME_PARALLEL_PARAMETER_STORE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/autograd/parameter.h"
#include "runtime/device/device.h"

namespace trireme {

class ParameterStore {
 public:
  // `dtype`: of the values that forward reads. Without `allocate` parameters
  // that train have no values of their own (ParameterShards). The device
  // outlives the store.
  ParameterStore(Device& device, DType dtype, uint64_t seed,
                 bool allocate = true)
      : device_(device), dtype_(dtype), seed_(seed), allocate_(allocate) {}

  // What is created from here on is the chunk's next unit.
  void BeginUnit() { ++unit_; }

  // Allocates this rank's part and writes its initial values. Names are
  // unique within a model. Without `trainable` it keeps its values
  // (Parameter::trainable).
  Parameter& Create(std::string name, const Shape& global_shape,
                    std::vector<ShardedDim> shards,
                    const Initializer& initializer, bool decay,
                    bool trainable = true);

  const std::vector<std::unique_ptr<Parameter>>& parameters() const {
    return parameters_;
  }
  Device& device() const { return device_; }
  DType dtype() const { return dtype_; }

 private:
  Device& device_;
  DType dtype_;
  uint64_t seed_;
  bool allocate_;
  int unit_ = -1;
  std::vector<std::unique_ptr<Parameter>> parameters_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_PARAMETER_STORE_H_
