#include "runtime/ops/cpu/cpu_kernels.h"

#include <cstddef>
#include <span>
#include <tuple>
#include <type_traits>
#include <vector>

#include "runtime/ops/cpu/adamw_kernels.h"
#include "runtime/ops/cpu/attention.h"
#include "runtime/ops/cpu/convolution_kernels.h"
#include "runtime/ops/cpu/copy_kernels.h"
#include "runtime/ops/cpu/cross_entropy_kernels.h"
#include "runtime/ops/cpu/embedding_kernels.h"
#include "runtime/ops/cpu/float8_kernels.h"
#include "runtime/ops/cpu/gemm.h"
#include "runtime/ops/cpu/gemm_kernels.h"
#include "runtime/ops/cpu/group_norm_kernels.h"
#include "runtime/ops/cpu/grouped_gemm.h"
#include "runtime/ops/cpu/heads_norm_kernels.h"
#include "runtime/ops/cpu/normalization_kernels.h"
#include "runtime/ops/cpu/pointwise_kernels.h"
#include "runtime/ops/cpu/quantization_kernels.h"
#include "runtime/ops/cpu/quantized_gemm.h"
#include "runtime/ops/cpu/random_kernels.h"
#include "runtime/ops/cpu/reduction_kernels.h"
#include "runtime/ops/cpu/routing_kernels.h"
#include "runtime/ops/cpu/sparse_attention.h"
#include "runtime/ops/cpu/spatial_blocks_kernels.h"
#include "runtime/ops/cpu/split_norm_kernels.h"
#include "runtime/ops/cpu/weight_decomposition_kernels.h"
#include "runtime/ops/cpu/window_attention_kernels.h"

namespace trireme {
namespace {

// What an argument becomes until its kernel runs: callers keep what spans point
// to only until the op returns.
template <typename T>
T Kept(const T& argument) {
  return argument;
}
template <typename T>
std::vector<T> Kept(std::span<const T> argument) {
  return {argument.begin(), argument.end()};
}

// A kernel as the table has it: run by the stream, at once by the host's own.
// One that returns a number is waited for.
template <auto kKernel>
struct OnHost;
template <typename Result, typename... Arguments,
          Result (*kKernel)(Arguments...)>
struct OnHost<kKernel> {
  static Result Run(Stream& stream, Arguments... arguments) {
    if (stream.synchronous()) return kKernel(arguments...);
    if constexpr (std::is_void_v<Result>) {
      stream.Launch([kept = std::make_tuple(Kept(arguments)...)] {
        std::apply(kKernel, kept);
      });
    } else {
      Result result = {};
      stream.Launch([&] { result = kKernel(arguments...); });
      stream.Synchronize();
      return result;
    }
  }
};

void AddColumnSumsKernel(DType dtype, int64_t rows, int64_t columns,
                         const void* x, void* out) {
  DispatchFloating(dtype, [&]<typename T>(T) {
    AddColumnSums(static_cast<const T*>(x), rows, columns,
                  static_cast<ComputeType<T>*>(out));
  });
}

// What the host's products are asked for: the rest comes behind them.
GemmSpec ProductAlone(GemmSpec spec) {
  spec.derivative = Activation::kNone;
  spec.row_sums = false;
  return spec;
}

CpuGemmSpec WithThreads(const GemmSpec& spec) {
  return {spec, AvailableThreads()};
}

bool HasCodes(const GemmSpec& spec) {
  return spec.b_codes.format != WeightFormat::kFull;
}

int64_t GemmWorkspace(const GemmSpec& spec) {
  if (spec.float8) {
    const ProductOfValues of_values(spec);
    return of_values.workspace_at + GemmWorkspace(of_values.product);
  }
  const CpuGemmSpec product = WithThreads(ProductAlone(spec));
  return HasCodes(spec) ? QuantizedGemmWorkspace(product)
                        : PreparedGemm(product)->workspace_bytes();
}

void RunGemm(const GemmSpec& spec, const GemmOperands& operands) {
  if (spec.float8) {
    const ProductOfValues of_values(spec);
    auto* const workspace = static_cast<std::byte*>(operands.workspace);
    std::byte* const b = workspace + of_values.b_at;
    DequantizeKernel(Float8Codes(spec.m, spec.k, spec.one_scale), operands.a,
                     operands.a_scales, spec.dtype, workspace);
    DequantizeKernel(Float8Codes(spec.n, spec.k, spec.one_scale), operands.b,
                     operands.b_scales, spec.dtype, b);
    RunGemm(of_values.product,
            {.a = workspace,
             .b = b,
             .bias = operands.bias,
             .out = operands.out,
             .workspace = workspace + of_values.workspace_at});
    return;
  }
  const CpuGemmSpec product = WithThreads(ProductAlone(spec));
  if (HasCodes(spec)) {
    RunQuantizedGemm(product, operands);
  } else {
    PreparedGemm(product)->Run(operands.a, operands.b, operands.bias,
                               operands.out, operands.workspace);
  }
  if (spec.derivative != Activation::kNone) {
    ActivationBackwardKernel(spec.dtype, spec.derivative, spec.m * spec.n,
                             operands.x, operands.out, operands.out);
  }
  if (spec.row_sums) {
    AddColumnSumsKernel(spec.dtype, spec.k, spec.m, operands.a,
                        operands.row_sums);
  }
}

CpuAttentionProblem WithThreads(const AttentionProblem& problem) {
  return {problem, AvailableThreads()};
}

int64_t ForwardWorkspace(const AttentionProblem& problem,
                         const AttentionOperands& operands) {
  return AttentionForwardWorkspace(WithThreads(problem), operands);
}

void AttentionForward(const AttentionProblem& problem,
                      const AttentionOperands& operands, void* workspace) {
  AttentionForwardCpu(WithThreads(problem), operands, workspace);
}

int64_t BackwardWorkspace(const AttentionProblem& problem,
                          const AttentionOperands& operands,
                          const AttentionGradients& gradients) {
  return AttentionBackwardWorkspace(WithThreads(problem), operands, gradients);
}

void AttentionBackward(const AttentionProblem& problem,
                       const AttentionOperands& operands,
                       const AttentionGradients& gradients, void* workspace) {
  AttentionBackwardCpu(WithThreads(problem), operands, gradients, workspace);
}

int64_t SparseForwardWorkspace(const SparseAttentionProblem& problem,
                               const SparseAttentionOperands& operands) {
  return SparseAttentionForwardWorkspace(problem, operands, AvailableThreads());
}

void SparseForward(const SparseAttentionProblem& problem,
                   const SparseAttentionOperands& operands, void* workspace) {
  SparseAttentionForwardCpu(problem, operands, AvailableThreads(), workspace);
}

int64_t SparseBackwardWorkspace(const SparseAttentionProblem& problem,
                                const SparseAttentionOperands& operands,
                                const SparseAttentionGradients& gradients) {
  return SparseAttentionBackwardWorkspace(problem, operands, gradients,
                                          AvailableThreads());
}

void SparseBackward(const SparseAttentionProblem& problem,
                    const SparseAttentionOperands& operands,
                    const SparseAttentionGradients& gradients,
                    void* workspace) {
  SparseAttentionBackwardCpu(problem, operands, gradients, AvailableThreads(),
                             workspace);
}

}  // namespace

const Kernels& CpuKernels() {
  static constexpr Kernels kKernels = {
      .attention = {.forward_workspace = ForwardWorkspace,
                    .forward = OnHost<&AttentionForward>::Run,
                    .backward_workspace = BackwardWorkspace,
                    .backward = OnHost<&AttentionBackward>::Run,
                    .merge = OnHost<&MergeAttentionCpu>::Run},
      .convolution = {.computes_halves = false,
                      .workspace_bytes = ConvolutionWorkspace,
                      .run = OnHost<&ConvolutionKernel>::Run},
      .copy = {.strided = OnHost<&CopyStridedKernel>::Run,
               .runs = OnHost<&CopyRunsKernel>::Run,
               .fill = OnHost<&FillKernel>::Run,
               .add_offset = OnHost<&AddOffsetKernel>::Run,
               .masked_fill = OnHost<&MaskedFillKernel>::Run},
      .embedding = {.gather_rows = OnHost<&GatherRowsKernel>::Run,
                    .scatter_add_rows = OnHost<&ScatterAddRowsKernel>::Run,
                    .timestep_embedding = OnHost<&TimestepEmbeddingKernel>::Run,
                    .patchify = OnHost<&PatchifyKernel>::Run,
                    .unpatchify = OnHost<&UnpatchifyKernel>::Run},
      .float8 = {.scales = OnHost<&Float8ScalesKernel>::Run,
                 .quantize = OnHost<&QuantizeFloat8Kernel>::Run,
                 .quantize_whole = OnHost<&QuantizeFloat8WholeKernel>::Run},
      .gemm = {.workspace_bytes = GemmWorkspace, .run = OnHost<&RunGemm>::Run},
      .group_norm = {.forward = OnHost<&GroupNormKernel>::Run},
      .grouped_gemm = {.workspace_bytes = GroupedGemmWorkspace,
                       .run = OnHost<&RunGroupedGemm>::Run,
                       .multiplies_codes = MultipliesGroupsOfCodes},
      .norm = {.forward = OnHost<&NormForwardKernel>::Run,
               .backward = OnHost<&NormBackwardKernel>::Run,
               .sum_blocks = OnHost<&NormSumBlocksKernel>::Run,
               .heads_forward = OnHost<&HeadsNormRopeForwardKernel>::Run,
               .heads_backward = OnHost<&HeadsNormRopeBackwardKernel>::Run},
      .optimizer = {.adamw = OnHost<&AdamWKernel>::Run,
                    .ema = OnHost<&EmaKernel>::Run},
      .pointwise = {.activation_forward = OnHost<&ActivationForwardKernel>::Run,
                    .activation_backward =
                        OnHost<&ActivationBackwardKernel>::Run,
                    .swiglu_forward = OnHost<&SwiGluForwardKernel>::Run,
                    .swiglu_backward = OnHost<&SwiGluBackwardKernel>::Run,
                    .add = OnHost<&AddKernel>::Run,
                    .multiply = OnHost<&MultiplyKernel>::Run,
                    .scale = OnHost<&ScaleKernel>::Run,
                    .add_in_place = OnHost<&AddInPlaceKernel>::Run,
                    .cast = OnHost<&CastKernel>::Run,
                    .add_broadcast = OnHost<&AddBroadcastKernel>::Run,
                    .gated_residual_forward =
                        OnHost<&GatedResidualForwardKernel>::Run,
                    .gated_residual_backward =
                        OnHost<&GatedResidualBackwardKernel>::Run},
      .quantization = {.dequantize = OnHost<&DequantizeKernel>::Run},
      .random = {.fill = OnHost<&FillRandomKernel>::Run,
                 .add_flow_noise = OnHost<&AddFlowNoiseKernel>::Run},
      .reduction =
          {.reduce = OnHost<&ReduceKernel>::Run,
           .block_sums_of_squares = OnHost<&BlockSumsOfSquaresKernel>::Run,
           .softmax_forward = OnHost<&SoftmaxForwardKernel>::Run,
           .softmax_backward = OnHost<&SoftmaxBackwardKernel>::Run,
           .sum_tokens = OnHost<&SumTokensKernel>::Run,
           .squared_error = OnHost<&SquaredErrorKernel>::Run,
           .squared_error_backward = OnHost<&SquaredErrorBackwardKernel>::Run,
           .cross_entropy = OnHost<&CrossEntropySumKernel>::Run,
           .cross_entropy_backward = OnHost<&CrossEntropyBackwardKernel>::Run,
           .add_column_sums = OnHost<&AddColumnSumsKernel>::Run},
      .routing = {.top_k = OnHost<&TopKKernel>::Run,
                  .select_columns = OnHost<&SelectColumnsKernel>::Run,
                  .place_columns = OnHost<&PlaceColumnsKernel>::Run,
                  .sort_routes = OnHost<&SortRoutesKernel>::Run,
                  .count_routes = OnHost<&CountRoutesKernel>::Run,
                  .sum_rows = OnHost<&SumRowsKernel>::Run,
                  .scale_rows = OnHost<&ScaleRowsKernel>::Run,
                  .row_dots = OnHost<&RowDotsKernel>::Run,
                  .log_sum_exp = OnHost<&LogSumExpKernel>::Run},
      .sparse_attention = {.forward_workspace = SparseForwardWorkspace,
                           .forward = OnHost<&SparseForward>::Run,
                           .backward_workspace = SparseBackwardWorkspace,
                           .backward = OnHost<&SparseBackward>::Run},
      .spatial_blocks = {.mean = OnHost<&BlockMeanKernel>::Run,
                         .mean_backward =
                             OnHost<&BlockMeanBackwardKernel>::Run},
      .split_norm = {.squares = OnHost<&SplitNormSquaresKernel>::Run,
                     .forward = OnHost<&SplitNormForwardKernel>::Run,
                     .dots = OnHost<&SplitNormDotsKernel>::Run,
                     .backward = OnHost<&SplitNormBackwardKernel>::Run,
                     .weight_gradient =
                         OnHost<&SplitNormWeightGradientKernel>::Run},
      .weight_decomposition =
          {.add_row_products = OnHost<&AddRowProductsKernel>::Run,
           .direction_factors = OnHost<&DirectionFactorsKernel>::Run,
           .scale_columns = OnHost<&ScaleColumnsKernel>::Run,
           .magnitude_gradient = OnHost<&MagnitudeGradientKernel>::Run},
      .window_attention = {
          .forward = OnHost<&WindowAttentionForwardKernel>::Run,
          .backward = OnHost<&WindowAttentionBackwardKernel>::Run}};
  return kKernels;
}

}  // namespace trireme
