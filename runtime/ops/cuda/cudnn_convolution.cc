#include "runtime/ops/cuda/cudnn_convolution.h"

#include <cudnn.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "runtime/core/status.h"
#include "runtime/device/arena.h"
#include "runtime/device/cuda/cuda_stream.h"
#include "runtime/ops/cuda/convolution_weights.h"
#include "runtime/ops/cuda/cudnn_graph.h"
#include "runtime/ops/cuda/cudnn_plans.h"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

// Tensors of the graph.
enum Number : int64_t { kX = 1, kWeight, kBias, kY };

// Half of one activation of an autoencoder of pictures of 1024x1024.
constexpr int64_t kMostWorkspaceBytes = int64_t{256} << 20;

constexpr std::array kUnwanted = {
    CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
    CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
    CUDNN_NUMERICAL_NOTE_FFT,
    CUDNN_NUMERICAL_NOTE_WINOGRAD,
    // Of fp32 alone, hence the last one.
    CUDNN_NUMERICAL_NOTE_TENSOR_CORE,
};

cudnnDataType_t TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return CUDNN_DATA_BFLOAT16;
    case DType::kFloat16:
      return CUDNN_DATA_HALF;
    default:
      return CUDNN_DATA_FLOAT;
  }
}

absl::StatusOr<CudnnPlan> PlanOf(const ConvolutionProblem& p,
                                 const CudnnDescriptor& gpu) {
  CudnnGraph graph;
  const cudnnDataType_t type = TypeOf(p.dtype);
  const int64_t height = p.out_height(), width = p.out_width();
  const auto in_memory = [&](Number number,
                             const std::array<int64_t, 4>& sizes) {
    return graph.InMemory(number, type, CudnnLayout::ChannelsLast(sizes));
  };
  const auto x = in_memory(kX, {p.batch, p.in_channels, p.height, p.width});
  const auto weight =
      in_memory(kWeight, {p.out_channels, p.in_channels, p.kernel, p.kernel});
  const std::array<int64_t, 4> of_y = {p.batch, p.out_channels, height, width};
  const auto y = in_memory(kY, of_y);
  // Zeros that no window reaches have no place in cuDNN's description.
  const auto after = [&](int64_t outputs, int64_t inputs) {
    return (outputs - 1) * p.stride + p.kernel - inputs - p.padding_before;
  };
  const CudnnWindow window = {
      .stride = p.stride,
      .padding_before = p.padding_before,
      .padding_after = {after(height, p.height), after(width, p.width)}};
  if (p.bias) {
    const auto sums =
        graph.Between(CUDNN_DATA_FLOAT, CudnnLayout::ChannelsLast(of_y));
    graph.Convolve(x, weight, window, sums);
    graph.Pointwise(CUDNN_POINTWISE_ADD, sums,
                    in_memory(kBias, {1, p.out_channels, 1, 1}), y);
  } else {
    graph.Convolve(x, weight, window, y);
  }
  std::span<const cudnnBackendNumericalNote_t> unwanted = kUnwanted;
  if (IsHalf(p.dtype)) unwanted = unwanted.first(unwanted.size() - 1);
  return graph.Plan(
      gpu, {.unwanted = unwanted, .most_workspace_bytes = kMostWorkspaceBytes});
}

absl::StatusOr<CudnnPlan> FindPlan(const ConvolutionProblem& problem,
                                   const CudnnGpu& gpu) {
  return PlanOf(problem, gpu.properties());
}

std::string NameOf(const ConvolutionProblem& p) {
  return fmt::format(
      "convolution of {} pictures of {}x{} with {} channels to {} by a window "
      "of {} in steps of {} ({})",
      p.batch, p.height, p.width, p.in_channels, p.out_channels, p.kernel,
      p.stride, DTypeName(p.dtype));
}

// Null where our own kernels are to compute it.
const CudnnPlan* PlanOn(const CudnnGpu* gpu,
                        const ConvolutionProblem& problem) {
  // Never destroyed: the library's own statics may already be gone at exit.
  static auto& plans = *new CudnnPlans<ConvolutionProblem>(FindPlan, NameOf);
  return gpu == nullptr || problem.dtype == DType::kFloat64
             ? nullptr
             : plans.Of(problem, *gpu);
}

// A workspace has what the plan needs, then the weight as cuDNN reads it.
int64_t WeightAt(const CudnnPlan& plan) {
  return Arena::Aligned(plan.workspace_bytes());
}

int64_t WorkspaceBytes(const ConvolutionProblem& p) {
  const int64_t own = CudaConvolutions().workspace_bytes(p);
  const CudnnPlan* const plan = PlanOn(CudnnGpu::Current(), p);
  if (plan == nullptr) return own;
  return std::max(own, WeightAt(*plan) + p.out_channels * p.in_channels *
                                             p.kernel * p.kernel *
                                             DTypeSize(p.dtype));
}

// False where our own kernels are to compute it.
bool RunPlan(Stream& stream, const ConvolutionProblem& problem,
             const ConvolutionOperands& operands) {
  CudnnGpu* const gpu = CudnnGpu::Current();
  const CudnnPlan* const plan = PlanOn(gpu, problem);
  if (plan == nullptr) return false;
  void* const weight =
      static_cast<std::byte*>(operands.workspace) + WeightAt(*plan);
  std::vector<int64_t> numbers = {kX, kWeight, kY};
  std::vector<void*> pointers = {const_cast<void*>(operands.x), weight,
                                 operands.y};
  if (problem.bias) {
    numbers.push_back(kBias);
    pointers.push_back(const_cast<void*>(operands.bias));
  }
  if (!AreAlignedForCudnn(pointers)) return false;
  WeightWithChannelsLast(stream, problem, operands.weight, weight);
  gpu->Run(*plan, Handle(stream), numbers, pointers, operands.workspace);
  return true;
}

void Run(Stream& stream, const ConvolutionProblem& problem,
         const ConvolutionOperands& operands) {
  if (RunPlan(stream, problem, operands)) return;
  CudaConvolutions().run(stream, problem, operands);
}

}  // namespace

absl::Status FindCudnnConvolution(const ConvolutionProblem& problem,
                                  const std::string& json) {
  RETURN_IF_ERROR(FindCudnn());
  return PlanOf(problem, CudnnGpuProperties(json)).status();
}

ConvolutionKernels CudnnConvolutions() {
  return {
      .computes_halves = true, .workspace_bytes = WorkspaceBytes, .run = Run};
}

}  // namespace trireme
