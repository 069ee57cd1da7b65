// The parameters of one rank's part of a model, in the order in which the
// model creates them. Layers hold references; addresses are stable.

#ifndef TRIREME_PARALLEL_PARAMETERS_PARAMETER_STORE_H_
#define TRIREME_PARALLEL_PARAMETERS_PARAMETER_STORE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel/parameters/float8_layers.h"
#include "parallel/parameters/trained_parameters.h"
#include "runtime/autograd/parameter.h"
#include "runtime/device/device.h"

namespace trireme {

// A low-rank adapter by the names of its layers; its factors are
// layer + kInputFactor and output_layer + kOutputFactor, its magnitudes
// output_layer + kMagnitude.
struct StoredAdapter {
  std::string layer;
  std::string output_layer;
  int groups = 1;
  int64_t in = 0;  // input channels of the layer
};

class ParameterStore {
 public:
  // Which parameters have values from the start; others get them from whoever
  // shards or offloads them.
  enum class Allocate { kAll, kFrozen, kNone };

  // `dtype`: of the values that forward reads. `trained`: which parameters
  // train, which layers have adapters, and in which format weights are kept
  // that do not train. `float8`: which layers multiply in FP8. The device
  // outlives the store.
  ParameterStore(Device& device, DType dtype, uint64_t seed,
                 Allocate allocate = Allocate::kAll,
                 TrainedParameters trained = {}, Float8Layers float8 = {})
      : device_(device),
        dtype_(dtype),
        seed_(seed),
        allocate_(allocate),
        trained_(std::move(trained)),
        float8_(std::move(float8)) {}

  // What is created from here on is the chunk's next unit.
  void BeginUnit() { ++unit_; }

  // What is built from here on is the same part of the same model once more, at
  // other sizes of its inputs: Create gives the parameters that are there, by
  // their names.
  void BuildAgain() { again_ = true; }

  // Allocates this rank's part and writes its initial values. Names are
  // unique within a model. It keeps its values (Parameter::trainable) without
  // `trainable`, and where the store's rules say so.
  Parameter& Create(std::string name, const Shape& global_shape,
                    std::vector<ShardedDim> shards,
                    const Initializer& initializer, bool decay,
                    bool trainable = true);

  // The same of values that forward reads in the compute type of the store's
  // (fp32 in bf16 models): few numbers, of which each counts.
  Parameter& CreateUnrounded(std::string name, const Shape& global_shape,
                             std::vector<ShardedDim> shards,
                             const Initializer& initializer, bool decay);

  // The weight [.., out, in], "NAME.weight", of the linear layer of this name.
  Parameter& CreateLinearWeight(const std::string& layer,
                                const Shape& global_shape,
                                std::vector<ShardedDim> shards,
                                const Initializer& initializer);

  // Notes an adapter whose factors were created.
  void AddAdapter(StoredAdapter adapter) {
    if (!again_) adapters_.push_back(std::move(adapter));
  }

  const std::vector<std::unique_ptr<Parameter>>& parameters() const {
    return parameters_;
  }
  const std::vector<StoredAdapter>& adapters() const { return adapters_; }
  const TrainedParameters& trained() const { return trained_; }
  Device& device() const { return device_; }
  DType dtype() const { return dtype_; }
  // Of the initial values.
  uint64_t seed() const { return seed_; }

 private:
  Parameter& Add(Parameter parameter);

  Device& device_;
  DType dtype_;
  uint64_t seed_;
  Allocate allocate_;
  TrainedParameters trained_;
  Float8Layers float8_;
  int unit_ = -1;
  bool again_ = false;
  std::vector<std::unique_ptr<Parameter>> parameters_;
  std::vector<StoredAdapter> adapters_;
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_PARAMETERS_PARAMETER_STORE_H_
