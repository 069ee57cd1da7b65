// The part of cuDNN's backend API (cudnn_graph.h) that runtime/ops/cuda uses:
// graphs of attention, convolutions, pointwise operations, products, sums and
// reshapes, each interpreted as it says (cudnn_run.cc). Whatever else is
// refused by name.

#include <cudnn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "fmt/format.h"
#include "runtime/device/cuda/emulation/cudnn_objects.h"
#include "runtime/device/cuda/emulation/emulated_gpu.h"
#include "runtime/device/cuda/emulation/refusal.h"

namespace trireme::cuda_emulation::cudnn {
namespace {

// Filled with what no one may rely on.
constexpr int64_t kWorkspaceBytes = 1 << 10;

// What the host holds.
struct Handle {
  cudaStream_t stream = nullptr;
};

ObjectPointer& PointerOf(cudnnBackendDescriptor_t descriptor) {
  return *static_cast<ObjectPointer*>(descriptor);
}

size_t BytesOf(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_CHAR:
    case CUDNN_TYPE_BOOLEAN:
      return 1;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
      return 8;
    case CUDNN_TYPE_CONVOLUTION_MODE:
    case CUDNN_TYPE_DATA_TYPE:
    case CUDNN_TYPE_FLOAT:
    case CUDNN_TYPE_HEUR_MODE:
    case CUDNN_TYPE_POINTWISE_MODE:
    case CUDNN_TYPE_REDUCTION_OPERATOR_TYPE:
      return 4;
    default:
      Refuse(
          fmt::format("cuDNN: attributes of type {}", static_cast<int>(type)));
  }
}

// f(tensor) for those of the graph's operations.
void ForTensors(const Object& graph, const std::function<void(Tensor)>& f) {
  for (const ObjectPointer& operation :
       graph.Of(CUDNN_ATTR_OPERATIONGRAPH_OPS).objects) {
    for (const auto& [name, attribute] : operation->attributes) {
      for (const ObjectPointer& part : attribute.objects) {
        if (part->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR) f(Tensor(*part));
      }
    }
  }
}

void Execute(const Object& plan, const Object& pack, cudaStream_t stream) {
  constexpr const char* kName = "cudnnBackendExecute";
  const ObjectPointer graph = plan.Part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)
                                  .Of(CUDNN_ATTR_ENGINECFG_ENGINE)
                                  .objects.at(0);
  const auto numbers = pack.Values<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
  const auto pointers =
      pack.Values<void*>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  std::map<int64_t, void*> given, memory;
  for (size_t i = 0; i < numbers.size(); ++i) given[numbers[i]] = pointers[i];
  std::map<int64_t, float> of_host;
  ForTensors(*graph, [&](const Tensor& tensor) {
    if (tensor.between) return;
    const auto found = given.find(tensor.number);
    if (found == given.end()) {
      Refuse(fmt::format("{}: no pointer of tensor {}", kName, tensor.number));
    }
    if (tensor.of_host) {
      of_host[tensor.number] = *static_cast<const float*>(found->second);
      return;
    }
    if (reinterpret_cast<uintptr_t>(found->second) % 16 != 0) {
      Refuse(fmt::format("{}: the address of tensor {}", kName, tensor.number));
    }
    CheckOnDevice(kName, found->second, tensor.bytes());
    memory[tensor.number] = found->second;
  });
  void* const workspace = pack.Value<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
  CheckOnDevice(kName, workspace, kWorkspaceBytes);
  Enqueue(stream, [graph, memory, of_host, workspace] {
    std::memset(workspace, 0xFF, kWorkspaceBytes);
    RunGraph(*graph, memory, of_host);
  });
}

}  // namespace
}  // namespace trireme::cuda_emulation::cudnn

namespace emulation = trireme::cuda_emulation::cudnn;
using trireme::cuda_emulation::Refuse;

struct cudnnContext : emulation::Handle {};

extern "C" {

size_t cudnnGetVersion() { return CUDNN_VERSION; }

const char* cudnnGetErrorString(cudnnStatus_t) { return "emulated"; }

void cudnnGetLastErrorString(char* text, size_t bytes) {
  std::snprintf(text, bytes, "emulated");
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  *handle = new cudnnContext;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(
    cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor) {
  *descriptor = new emulation::ObjectPointer(
      std::make_shared<emulation::Object>(emulation::Object{.type = type}));
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(
    cudnnBackendDescriptor_t descriptor) {
  delete &emulation::PointerOf(descriptor);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type,
                                       int64_t count, const void* values) {
  emulation::Object& object = *emulation::PointerOf(descriptor);
  if (object.finalized) Refuse("cuDNN: a finalized descriptor is changed");
  emulation::Attribute attribute = {.type = type, .count = count};
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    for (int64_t i = 0; i < count; ++i) {
      attribute.objects.push_back(emulation::PointerOf(
          static_cast<const cudnnBackendDescriptor_t*>(values)[i]));
      if (!attribute.objects.back()->finalized) {
        Refuse("cuDNN: a descriptor is used before it is finalized");
      }
    }
  } else {
    const auto* const bytes = static_cast<const char*>(values);
    attribute.bytes.assign(bytes, bytes + count * emulation::BytesOf(type));
  }
  object.attributes[name] = std::move(attribute);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  emulation::PointerOf(descriptor)->finalized = true;
  return CUDNN_STATUS_SUCCESS;
}

// Of each graph there is one engine: the graph itself.
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, int64_t,
                                       int64_t* count, void* values) {
  const emulation::Object& object = *emulation::PointerOf(descriptor);
  const auto result = [&]() -> emulation::ObjectPointer& {
    return emulation::PointerOf(
        *static_cast<const cudnnBackendDescriptor_t*>(values));
  };
  *count = 1;
  switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
      result()->attributes[CUDNN_ATTR_ENGINECFG_ENGINE] =
          object.Of(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
      result()->finalized = true;
      break;
    case CUDNN_ATTR_ENGINECFG_ENGINE:
      break;
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
      *count = 0;
      break;
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
      *static_cast<int64_t*>(values) = emulation::kWorkspaceBytes;
      break;
    default:
      Refuse(fmt::format("cudnnBackendGetAttribute: attribute {}",
                         static_cast<int>(name)));
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle,
                                  cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
  emulation::Execute(*emulation::PointerOf(plan), *emulation::PointerOf(pack),
                     handle->stream);
  return CUDNN_STATUS_SUCCESS;
}

}  // extern "C"
