// What cuDNN's backend API describes, as the emulated GPU's library keeps it.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_CUDNN_OBJECTS_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_CUDNN_OBJECTS_H_

#include <cudnn.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "fmt/format.h"
#include "runtime/device/cuda/emulation/refusal.h"

namespace trireme::cuda_emulation::cudnn {

constexpr int kRank = 4;

using Sizes = std::array<int64_t, kRank>;

struct Object;
using ObjectPointer = std::shared_ptr<Object>;

struct Attribute {
  cudnnBackendAttributeType_t type;
  int64_t count;
  std::vector<char> bytes;
  std::vector<ObjectPointer> objects;  // of descriptors
};

struct Object {
  cudnnBackendDescriptorType_t type;
  bool finalized = false;
  std::map<cudnnBackendAttributeName_t, Attribute> attributes;

  bool Has(cudnnBackendAttributeName_t name) const {
    return attributes.count(name) > 0;
  }
  const Attribute& Of(cudnnBackendAttributeName_t name) const {
    const auto found = attributes.find(name);
    if (found == attributes.end()) {
      Refuse(fmt::format("cuDNN: descriptor {} lacks attribute {}",
                         static_cast<int>(type), static_cast<int>(name)));
    }
    return found->second;
  }
  template <typename T>
  std::vector<T> Values(cudnnBackendAttributeName_t name) const {
    const Attribute& attribute = Of(name);
    std::vector<T> values(attribute.count);
    std::memcpy(values.data(), attribute.bytes.data(), attribute.bytes.size());
    return values;
  }
  template <typename T>
  T Value(cudnnBackendAttributeName_t name) const {
    return Values<T>(name).at(0);
  }
  const Object& Part(cudnnBackendAttributeName_t name) const {
    return *Of(name).objects.at(0);
  }
};

inline size_t SizeOf(cudnnDataType_t type) {
  switch (type) {
    case CUDNN_DATA_FLOAT:
      return 4;
    case CUDNN_DATA_HALF:
    case CUDNN_DATA_BFLOAT16:
      return 2;
    default:
      Refuse(fmt::format("cuDNN: cudnnDataType_t {}", static_cast<int>(type)));
  }
}

struct Tensor {
  int64_t number;
  cudnnDataType_t type;
  Sizes sizes, strides;
  bool between, of_host;

  explicit Tensor(const Object& object)
      : number(object.Value<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID)),
        type(object.Value<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE)),
        between(object.Has(CUDNN_ATTR_TENSOR_IS_VIRTUAL)),
        of_host(object.Has(CUDNN_ATTR_TENSOR_IS_BY_VALUE)) {
    const auto read = [&](cudnnBackendAttributeName_t name, Sizes& to) {
      const auto values = object.Values<int64_t>(name);
      if (values.size() != kRank) Refuse("cuDNN: tensors of four dimensions");
      std::copy(values.begin(), values.end(), to.begin());
    };
    read(CUDNN_ATTR_TENSOR_DIMENSIONS, sizes);
    read(CUDNN_ATTR_TENSOR_STRIDES, strides);
  }

  int64_t elements() const { return sizes[0] * sizes[1] * sizes[2] * sizes[3]; }
  // f(index among all, place in memory, index of each dimension).
  template <typename F>
  void ForEach(F&& f) const {
    int64_t index = 0;
    Sizes at;
    for (at[0] = 0; at[0] < sizes[0]; ++at[0]) {
      for (at[1] = 0; at[1] < sizes[1]; ++at[1]) {
        for (at[2] = 0; at[2] < sizes[2]; ++at[2]) {
          for (at[3] = 0; at[3] < sizes[3]; ++at[3]) {
            f(index++,
              at[0] * strides[0] + at[1] * strides[1] + at[2] * strides[2] +
                  at[3] * strides[3],
              at);
          }
        }
      }
    }
  }
  int64_t IndexOf(const Sizes& at) const {
    return ((at[0] * sizes[1] + at[1]) * sizes[2] + at[2]) * sizes[3] + at[3];
  }
  size_t bytes() const {
    int64_t last = 0;
    for (int i = 0; i < kRank; ++i) last += (sizes[i] - 1) * strides[i];
    return static_cast<size_t>(last + 1) * SizeOf(type);
  }
};

// Carries the operations of a graph out, one after the other, in plain loops:
// `memory` and `numbers` are those of its tensors that lie on the GPU and in
// the host's memory, by number. Refuses by name what it does not know.
void RunGraph(const Object& graph, const std::map<int64_t, void*>& memory,
              const std::map<int64_t, float>& numbers);

}  // namespace trireme::cuda_emulation::cudnn

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_CUDNN_OBJECTS_H_
