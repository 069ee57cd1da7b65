// cuBLASLt's functions as they are linked: each finds the real one when it is
// first called, so that a program starts on machines that lack the library.

#include <cublasLt.h>
#include <dlfcn.h>

#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/ops/cuda/cuda_kernels.h"

namespace trireme {
namespace {

constexpr const char* kName = "libcublasLt.so.13";

// Null where it is not there.
void* Library() {
  static void* const library = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  return library;
}

// The function of this name and type.
template <typename Function>
Function* Found(const char* name) {
  CHECK_OK(FindCudaLibraries());
  void* const function = dlsym(Library(), name);
  CHECK(function != nullptr) << "cuBLASLt has no " << name;
  return reinterpret_cast<Function*>(function);
}

}  // namespace

absl::Status FindCudaLibraries() {
  if (Library() != nullptr) return absl::OkStatus();
  return NotFound("products on GPUs need {}, which cannot be loaded", kName);
}

}  // namespace trireme

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static auto* const call =
      trireme::Found<decltype(cublasLtCreate)>("cublasLtCreate");
  return call(handle);
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
  static auto* const call = trireme::Found<decltype(cublasLtGetStatusString)>(
      "cublasLtGetStatusString");
  return call(status);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description,
                                        cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  static auto* const call = trireme::Found<decltype(cublasLtMatmulDescCreate)>(
      "cublasLtMatmulDescCreate");
  return call(description, compute, scale);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  static auto* const call = trireme::Found<decltype(cublasLtMatmulDescDestroy)>(
      "cublasLtMatmulDescDestroy");
  return call(description);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(
    cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute,
    const void* value, size_t bytes) {
  static auto* const call =
      trireme::Found<decltype(cublasLtMatmulDescSetAttribute)>(
          "cublasLtMatmulDescSetAttribute");
  return call(description, attribute, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout,
                                          cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
  static auto* const call =
      trireme::Found<decltype(cublasLtMatrixLayoutCreate)>(
          "cublasLtMatrixLayoutCreate");
  return call(layout, type, rows, columns, leading);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  static auto* const call =
      trireme::Found<decltype(cublasLtMatrixLayoutDestroy)>(
          "cublasLtMatrixLayoutDestroy");
  return call(layout);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(
    cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute,
    const void* value, size_t bytes) {
  static auto* const call =
      trireme::Found<decltype(cublasLtMatrixLayoutSetAttribute)>(
          "cublasLtMatrixLayoutSetAttribute");
  return call(layout, attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(
    cublasLtMatmulPreference_t* preference) {
  static auto* const call =
      trireme::Found<decltype(cublasLtMatmulPreferenceCreate)>(
          "cublasLtMatmulPreferenceCreate");
  return call(preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(
    cublasLtMatmulPreference_t preference) {
  static auto* const call =
      trireme::Found<decltype(cublasLtMatmulPreferenceDestroy)>(
          "cublasLtMatmulPreferenceDestroy");
  return call(preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t preference,
    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
    size_t bytes) {
  static auto* const call =
      trireme::Found<decltype(cublasLtMatmulPreferenceSetAttribute)>(
          "cublasLtMatmulPreferenceSetAttribute");
  return call(preference, attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
    cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
    cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
    cublasLtMatmulPreference_t preference, int requested,
    cublasLtMatmulHeuristicResult_t results[], int* found) {
  static auto* const call =
      trireme::Found<decltype(cublasLtMatmulAlgoGetHeuristic)>(
          "cublasLtMatmulAlgoGetHeuristic");
  return call(handle, description, a, b, c, d, preference, requested, results,
              found);
}

cublasStatus_t cublasLtMatmul(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
    const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout,
    const void* b, cublasLtMatrixLayout_t b_layout, const void* beta,
    const void* c, cublasLtMatrixLayout_t c_layout, void* d,
    cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm,
    void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  static auto* const call =
      trireme::Found<decltype(cublasLtMatmul)>("cublasLtMatmul");
  return call(handle, description, alpha, a, a_layout, b, b_layout, beta, c,
              c_layout, d, d_layout, algorithm, workspace, workspace_bytes,
              stream);
}

}  // extern "C"
