// Graphs of operations for cuDNN 9's backend API, and the plans by which it
// runs them. Plans are made for a GPU by its properties: none need be there.
//
// Errors stay until Plan tells them: what an older library does not know, or no
// engine of the GPU's computes, is no programming error, since whoever asks has
// kernels of its own.

#ifndef TRIREME_RUNTIME_OPS_CUDA_CUDNN_GRAPH_H_
#define TRIREME_RUNTIME_OPS_CUDA_CUDNN_GRAPH_H_

#include <cudnn.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trireme {

// The library is there, and not older than 9.13.1, since which the attention of
// the graphs in cudnn_attention.cc is one operation. NotFound names it.
absl::Status FindCudnn();

// An object of the backend API, with the first error of what was done with it.
class CudnnDescriptor {
 public:
  explicit CudnnDescriptor(cudnnBackendDescriptorType_t type);

  template <typename T>
  void Set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
           std::span<const T> values) {
    SetBytes(name, type, static_cast<int64_t>(values.size()), values.data());
  }
  template <typename T>
  void Set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
           const T& value) {
    SetBytes(name, type, 1, &value);
  }
  void Set(cudnnBackendAttributeName_t name, const CudnnDescriptor& value);
  void Finalize();

  cudnnBackendDescriptor_t get() const { return object_.get(); }
  const absl::Status& status() const { return status_; }

 private:
  struct Destroy {
    void operator()(cudnnBackendDescriptor_t object) const {
      cudnnBackendDestroyDescriptor(object);
    }
  };

  void SetBytes(cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count,
                const void* values);
  void Check(cudnnStatus_t status, const char* function);

  std::unique_ptr<void, Destroy> object_;
  absl::Status status_;
};

// What plans depend on of a GPU: of the current one's handle, or written as
// JSON as cuDNN does.
CudnnDescriptor CudnnGpuProperties(cudnnHandle_t handle);
CudnnDescriptor CudnnGpuProperties(const std::string& json);

class CudnnPlan {
 public:
  // Of FindPlan.
  CudnnPlan(CudnnDescriptor plan, int64_t workspace_bytes)
      : plan_(std::move(plan)), workspace_bytes_(workspace_bytes) {}

  int64_t workspace_bytes() const { return workspace_bytes_; }
  // On the handle's stream. Pointers by the tensors' numbers; CHECKed.
  void Run(cudnnHandle_t handle, std::span<const int64_t> tensors,
           std::span<void* const> pointers, void* workspace) const;

 private:
  CudnnDescriptor plan_;
  int64_t workspace_bytes_;
};

// Four dimensions of a tensor, in elements.
struct CudnnLayout {
  std::array<int64_t, 4> sizes;
  std::array<int64_t, 4> strides;

  // Successive elements along the last dimension.
  static CudnnLayout Dense(const std::array<int64_t, 4>& sizes);
  // Of sizes [n, channels, height, width], successive elements along the
  // second.
  static CudnnLayout ChannelsLast(const std::array<int64_t, 4>& sizes);
  // With the last two dimensions exchanged.
  CudnnLayout Transposed() const;
};

// Of a convolution with a square window; padding is of zeros, and below and
// right of the picture may be negative.
struct CudnnWindow {
  int64_t stride = 1;
  int64_t padding_before = 0;
  std::array<int64_t, 2> padding_after = {};  // of rows and columns
};

// What an engine must be, beside deterministic.
struct CudnnRequirements {
  // Numerical notes of which it has none.
  std::span<const cudnnBackendNumericalNote_t> unwanted;
  int64_t most_workspace_bytes = std::numeric_limits<int64_t>::max();
};

class CudnnGraph {
 public:
  using Tensor = const CudnnDescriptor*;

  // In the GPU's memory, at multiples of 16 bytes; `number` tells it from all
  // others of the graph and is at least 1.
  Tensor InMemory(int64_t number, cudnnDataType_t type,
                  const CudnnLayout& layout);
  // One fp32 number of the host's, read when the plan is run.
  Tensor OfHost(int64_t number);
  // That only operations of the graph see.
  Tensor Between(cudnnDataType_t type, const CudnnLayout& layout);

  // y = x∘b, or of x alone, in fp32. Dimensions of 1 meet all of the others'.
  void Pointwise(cudnnPointwiseMode_t mode, Tensor x, Tensor b, Tensor y);
  // y[.., m, n] = a[.., m, k]·b[.., k, n], summed in fp32. Where b has fewer
  // matrices of a batch, each is met by successive ones of a.
  void Multiply(Tensor a, Tensor b, Tensor y);
  // y[n, o, ..] = Σ weight[o, c, p, q]·x[n, c, ..] over the window, in fp32.
  void Convolve(Tensor x, Tensor weight, const CudnnWindow& window, Tensor y);
  // Sums in fp32 over the dimensions in which y is smaller: all, or each group
  // of successive elements.
  void Sum(Tensor x, Tensor y);
  // The same elements by other strides.
  void Reshape(Tensor x, Tensor y);
  using Operands =
      std::initializer_list<std::pair<cudnnBackendAttributeName_t, Tensor>>;
  void Add(cudnnBackendDescriptorType_t operation, const Operands& operands);

  // By the first engine that cuDNN recommends and supports, that it does not
  // call nondeterministic, and that is what is required. NotFound: there is
  // none; Internal: cuDNN's error.
  absl::StatusOr<CudnnPlan> Plan(const CudnnDescriptor& gpu,
                                 const CudnnRequirements& requirements = {});

 private:
  Tensor AddTensor(int64_t number, cudnnDataType_t type,
                   const CudnnLayout& layout,
                   std::optional<cudnnBackendAttributeName_t> kind);
  CudnnDescriptor& Own(cudnnBackendDescriptorType_t type);

  // Descriptors refer to each other.
  std::vector<std::unique_ptr<CudnnDescriptor>> owned_;
  std::vector<cudnnBackendDescriptor_t> operations_;
  int64_t between_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CUDA_CUDNN_GRAPH_H_
