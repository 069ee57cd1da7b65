#include "runtime/ops/cuda/cudnn_graph.h"

#include <algorithm>

#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Tensors between operations have numbers of their own.
constexpr int64_t kFirstBetween = 1000;
constexpr int64_t kAlignment = 16;
constexpr int64_t kMostConfigurations = 32;

template <typename T, size_t kSize>
std::span<const T> SpanOf(const std::array<T, kSize>& values) {
  return values;
}

// Whether an engine has one of the notes, or does not say, by its
// configuration.
bool HasNote(const CudnnDescriptor& configuration,
             std::span<const cudnnBackendNumericalNote_t> unwanted) {
  const CudnnDescriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t object = engine.get();
  int64_t count = 0;
  if (cudnnBackendGetAttribute(configuration.get(), CUDNN_ATTR_ENGINECFG_ENGINE,
                               CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                               &object) != CUDNN_STATUS_SUCCESS) {
    return true;
  }
  std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT>
      notes{};
  if (cudnnBackendGetAttribute(object, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                               CUDNN_TYPE_NUMERICAL_NOTE,
                               static_cast<int64_t>(notes.size()), &count,
                               notes.data()) != CUDNN_STATUS_SUCCESS) {
    return true;
  }
  const auto end = notes.begin() + std::min<int64_t>(count, notes.size());
  return std::find_first_of(notes.begin(), end, unwanted.begin(),
                            unwanted.end()) != end;
}

bool Nondeterministic(const CudnnDescriptor& configuration) {
  constexpr std::array kNotes = {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC};
  return HasNote(configuration, kNotes);
}

}  // namespace

CudnnDescriptor::CudnnDescriptor(cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t object = nullptr;
  Check(cudnnBackendCreateDescriptor(type, &object),
        "cudnnBackendCreateDescriptor");
  object_.reset(object);
}

void CudnnDescriptor::SetBytes(cudnnBackendAttributeName_t name,
                               cudnnBackendAttributeType_t type, int64_t count,
                               const void* values) {
  if (!status_.ok()) return;
  Check(cudnnBackendSetAttribute(object_.get(), name, type, count, values),
        "cudnnBackendSetAttribute");
}

void CudnnDescriptor::Set(cudnnBackendAttributeName_t name,
                          const CudnnDescriptor& value) {
  if (status_.ok()) status_ = value.status();
  const cudnnBackendDescriptor_t object = value.get();
  SetBytes(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &object);
}

void CudnnDescriptor::Finalize() {
  if (!status_.ok()) return;
  Check(cudnnBackendFinalize(object_.get()), "cudnnBackendFinalize");
}

void CudnnDescriptor::Check(cudnnStatus_t status, const char* function) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  std::array<char, 512> reason{};
  cudnnGetLastErrorString(reason.data(), reason.size());
  status_ = Internal("{}: {} ({})", function, cudnnGetErrorString(status),
                     reason.data());
}

CudnnDescriptor CudnnGpuProperties(cudnnHandle_t handle) {
  CudnnDescriptor properties(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  properties.Set(CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, handle);
  properties.Finalize();
  return properties;
}

CudnnDescriptor CudnnGpuProperties(const std::string& json) {
  CudnnDescriptor properties(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  properties.Set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                 std::span<const char>(json));
  properties.Finalize();
  return properties;
}

void CudnnPlan::Run(cudnnHandle_t handle, std::span<const int64_t> tensors,
                    std::span<void* const> pointers, void* workspace) const {
  CHECK_EQ(tensors.size(), pointers.size());
  CudnnDescriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.Set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, tensors);
  pack.Set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
           pointers);
  pack.Set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace);
  pack.Finalize();
  CHECK_OK(pack.status());
  const cudnnStatus_t status =
      cudnnBackendExecute(handle, plan_.get(), pack.get());
  CHECK(status == CUDNN_STATUS_SUCCESS)
      << "cudnnBackendExecute: " << cudnnGetErrorString(status);
}

CudnnLayout CudnnLayout::Dense(const std::array<int64_t, 4>& sizes) {
  CudnnLayout layout = {sizes, {0, 0, 0, 1}};
  for (int i = 3; i > 0; --i) {
    layout.strides[i - 1] = layout.strides[i] * sizes[i];
  }
  return layout;
}

CudnnLayout CudnnLayout::ChannelsLast(const std::array<int64_t, 4>& sizes) {
  const auto [n, channels, height, width] = sizes;
  return {sizes, {height * width * channels, 1, width * channels, channels}};
}

CudnnLayout CudnnLayout::Transposed() const {
  CudnnLayout layout = *this;
  std::swap(layout.sizes[2], layout.sizes[3]);
  std::swap(layout.strides[2], layout.strides[3]);
  return layout;
}

CudnnDescriptor& CudnnGraph::Own(cudnnBackendDescriptorType_t type) {
  return *owned_.emplace_back(std::make_unique<CudnnDescriptor>(type));
}

CudnnGraph::Tensor CudnnGraph::AddTensor(
    int64_t number, cudnnDataType_t type, const CudnnLayout& layout,
    std::optional<cudnnBackendAttributeName_t> kind) {
  CudnnDescriptor& tensor = Own(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.Set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, number);
  tensor.Set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type);
  tensor.Set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, kAlignment);
  tensor.Set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64,
             SpanOf(layout.sizes));
  tensor.Set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64,
             SpanOf(layout.strides));
  if (kind.has_value()) tensor.Set(*kind, CUDNN_TYPE_BOOLEAN, true);
  tensor.Finalize();
  return &tensor;
}

CudnnGraph::Tensor CudnnGraph::InMemory(int64_t number, cudnnDataType_t type,
                                        const CudnnLayout& layout) {
  CHECK(number > 0 && number < kFirstBetween) << number;
  return AddTensor(number, type, layout, std::nullopt);
}

CudnnGraph::Tensor CudnnGraph::OfHost(int64_t number) {
  CHECK(number > 0 && number < kFirstBetween) << number;
  return AddTensor(number, CUDNN_DATA_FLOAT, CudnnLayout::Dense({1, 1, 1, 1}),
                   CUDNN_ATTR_TENSOR_IS_BY_VALUE);
}

CudnnGraph::Tensor CudnnGraph::Between(cudnnDataType_t type,
                                       const CudnnLayout& layout) {
  return AddTensor(kFirstBetween + between_++, type, layout,
                   CUDNN_ATTR_TENSOR_IS_VIRTUAL);
}

void CudnnGraph::Add(cudnnBackendDescriptorType_t type,
                     const Operands& operands) {
  CudnnDescriptor& operation = Own(type);
  for (const auto& [name, operand] : operands) {
    if (operand != nullptr) operation.Set(name, *operand);
  }
  operation.Finalize();
  operations_.push_back(operation.get());
}

void CudnnGraph::Pointwise(cudnnPointwiseMode_t mode, Tensor x, Tensor b,
                           Tensor y) {
  CudnnDescriptor& how = Own(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  how.Set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
  how.Set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE,
          CUDNN_DATA_FLOAT);
  how.Finalize();
  Add(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR,
      {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &how},
       {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x},
       {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b},
       {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y}});
}

void CudnnGraph::Multiply(Tensor a, Tensor b, Tensor y) {
  CudnnDescriptor& how = Own(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  how.Set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  how.Finalize();
  Add(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR,
      {{CUDNN_ATTR_OPERATION_MATMUL_DESC, &how},
       {CUDNN_ATTR_OPERATION_MATMUL_ADESC, a},
       {CUDNN_ATTR_OPERATION_MATMUL_BDESC, b},
       {CUDNN_ATTR_OPERATION_MATMUL_CDESC, y}});
}

void CudnnGraph::Convolve(Tensor x, Tensor weight, const CudnnWindow& window,
                          Tensor y) {
  constexpr int64_t kDimensions = 2;
  constexpr std::array<int64_t, 2> kDilations = {1, 1};
  const std::array<int64_t, 2> strides = {window.stride, window.stride};
  const std::array<int64_t, 2> before = {window.padding_before,
                                         window.padding_before};
  CudnnDescriptor& how = Own(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  how.Set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE,
          CUDNN_DATA_FLOAT);
  how.Set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE,
          CUDNN_CROSS_CORRELATION);
  how.Set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, kDimensions);
  how.Set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64,
          SpanOf(kDilations));
  how.Set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64,
          SpanOf(strides));
  how.Set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64,
          SpanOf(before));
  how.Set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64,
          SpanOf(window.padding_after));
  how.Finalize();
  CudnnDescriptor& operation =
      Own(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
  operation.Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, how);
  operation.Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, *x);
  operation.Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, *weight);
  operation.Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, *y);
  operation.Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                CUDNN_TYPE_FLOAT, 1.0F);
  operation.Set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT,
                0.0F);
  operation.Finalize();
  operations_.push_back(operation.get());
}

void CudnnGraph::Sum(Tensor x, Tensor y) {
  CudnnDescriptor& how = Own(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  how.Set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE,
          CUDNN_REDUCE_TENSOR_ADD);
  how.Set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE,
          CUDNN_DATA_FLOAT);
  how.Finalize();
  Add(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR,
      {{CUDNN_ATTR_OPERATION_REDUCTION_DESC, &how},
       {CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x},
       {CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y}});
}

void CudnnGraph::Reshape(Tensor x, Tensor y) {
  Add(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR,
      {{CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x},
       {CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y}});
}

absl::StatusOr<CudnnPlan> CudnnGraph::Plan(
    const CudnnDescriptor& gpu, const CudnnRequirements& requirements) {
  RETURN_IF_ERROR(gpu.status());
  for (const auto& descriptor : owned_) RETURN_IF_ERROR(descriptor->status());
  CudnnDescriptor& graph = Own(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.Set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
            std::span<const cudnnBackendDescriptor_t>(operations_));
  graph.Finalize();
  CudnnDescriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.Set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristic.Set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE,
                CUDNN_HEUR_MODE_A);
  heuristic.Set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, gpu);
  heuristic.Finalize();
  RETURN_IF_ERROR(heuristic.status());
  std::vector<CudnnDescriptor> configurations;
  std::vector<cudnnBackendDescriptor_t> objects;
  for (int64_t i = 0; i < kMostConfigurations; ++i) {
    configurations.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    objects.push_back(configurations.back().get());
  }
  int64_t count = 0;
  if (cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS,
                               CUDNN_TYPE_BACKEND_DESCRIPTOR,
                               kMostConfigurations, &count,
                               objects.data()) != CUDNN_STATUS_SUCCESS) {
    return Internal("cuDNN recommends no engine");
  }
  absl::Status reason = NotFound("cuDNN has no engine for it");
  for (int64_t i = 0; i < std::min(count, kMostConfigurations); ++i) {
    if (Nondeterministic(configurations[i])) {
      reason = NotFound("cuDNN has no deterministic engine for it");
      continue;
    }
    if (HasNote(configurations[i], requirements.unwanted)) {
      reason = NotFound("cuDNN has no engine of its precision for it");
      continue;
    }
    CudnnDescriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.Set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configurations[i]);
    plan.Set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, gpu);
    plan.Finalize();
    int64_t bytes = 0, values = 0;
    if (!plan.status().ok() ||
        cudnnBackendGetAttribute(
            plan.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
            CUDNN_TYPE_INT64, 1, &values, &bytes) != CUDNN_STATUS_SUCCESS) {
      reason = plan.status().ok()
                   ? Internal("cuDNN does not say what its plan needs")
                   : plan.status();
      continue;
    }
    if (bytes > requirements.most_workspace_bytes) {
      reason =
          NotFound("cuDNN's engine asks for a workspace of {} bytes", bytes);
      continue;
    }
    return CudnnPlan(std::move(plan), bytes);
  }
  return reason;
}

}  // namespace trireme
