// cuDNN's functions as they are linked: each finds the real one when it is
// first called, so that a program starts on machines that lack the library.

#include <cudnn.h>
#include <dlfcn.h>

#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/ops/cuda/cudnn_graph.h"

namespace trireme {
namespace {

constexpr const char* kName = "libcudnn.so.9";
constexpr size_t kLeastVersion = 91301;

// Null where it is not there.
void* Library() {
  static void* const library = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  return library;
}

// The function of this name and type, of a library that is there.
template <typename Function>
Function* Found(const char* name) {
  CHECK(Library() != nullptr) << kName << " cannot be loaded";
  void* const function = dlsym(Library(), name);
  CHECK(function != nullptr) << "cuDNN has no " << name;
  return reinterpret_cast<Function*>(function);
}

}  // namespace

absl::Status FindCudnn() {
  if (Library() == nullptr) return NotFound("{} cannot be loaded", kName);
  const size_t version = cudnnGetVersion();
  if (version >= kLeastVersion) return absl::OkStatus();
  return NotFound("{} is version {}, expected at least {}", kName, version,
                  kLeastVersion);
}

}  // namespace trireme

extern "C" {

size_t cudnnGetVersion() {
  static auto* const call =
      trireme::Found<decltype(cudnnGetVersion)>("cudnnGetVersion");
  return call();
}

const char* cudnnGetErrorString(cudnnStatus_t status) {
  static auto* const call =
      trireme::Found<decltype(cudnnGetErrorString)>("cudnnGetErrorString");
  return call(status);
}

void cudnnGetLastErrorString(char* text, size_t bytes) {
  static auto* const call = trireme::Found<decltype(cudnnGetLastErrorString)>(
      "cudnnGetLastErrorString");
  return call(text, bytes);
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  static auto* const call =
      trireme::Found<decltype(cudnnCreate)>("cudnnCreate");
  return call(handle);
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  static auto* const call =
      trireme::Found<decltype(cudnnSetStream)>("cudnnSetStream");
  return call(handle, stream);
}

cudnnStatus_t cudnnBackendCreateDescriptor(
    cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor) {
  static auto* const call =
      trireme::Found<decltype(cudnnBackendCreateDescriptor)>(
          "cudnnBackendCreateDescriptor");
  return call(type, descriptor);
}

cudnnStatus_t cudnnBackendDestroyDescriptor(
    cudnnBackendDescriptor_t descriptor) {
  static auto* const call =
      trireme::Found<decltype(cudnnBackendDestroyDescriptor)>(
          "cudnnBackendDestroyDescriptor");
  return call(descriptor);
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  static auto* const call =
      trireme::Found<decltype(cudnnBackendFinalize)>("cudnnBackendFinalize");
  return call(descriptor);
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type,
                                       int64_t count, const void* values) {
  static auto* const call = trireme::Found<decltype(cudnnBackendSetAttribute)>(
      "cudnnBackendSetAttribute");
  return call(descriptor, name, type, count, values);
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t descriptor,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type,
                                       int64_t requested, int64_t* count,
                                       void* values) {
  static auto* const call = trireme::Found<decltype(cudnnBackendGetAttribute)>(
      "cudnnBackendGetAttribute");
  return call(descriptor, name, type, requested, count, values);
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle,
                                  cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
  static auto* const call =
      trireme::Found<decltype(cudnnBackendExecute)>("cudnnBackendExecute");
  return call(handle, plan, pack);
}

}  // extern "C"
