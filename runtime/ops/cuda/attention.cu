#include <algorithm>
#include <cmath>
#include <span>

#include "runtime/device/arena.h"
#include "runtime/ops/cuda/attention_arguments.cuh"
#include "runtime/ops/cuda/attention_flash.h"
#include "runtime/ops/cuda/attention_plain.h"
#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

// Where a workspace has what: the offsets of packed sequences, then a number
// for each query of each head.
struct Workspace {
  int64_t key_offsets = 0;
  int64_t delta = 0;
  int64_t bytes = 0;

  Workspace(const AttentionProblem& problem, bool backward) {
    if (problem.query_offsets != nullptr) {
      const auto bytes_of = [](const SequenceOffsets& offsets) {
        return Arena::Aligned(
            static_cast<int64_t>(offsets->size() * sizeof(int64_t)));
      };
      key_offsets = bytes_of(problem.query_offsets);
      delta = key_offsets + bytes_of(problem.key_offsets);
    }
    bytes = delta;
    if (backward) {
      bytes += problem.batch * problem.heads * problem.queries *
               DTypeSize(ComputeDType(problem.dtype));
    }
  }
};

// Values that come with a launch: nothing of the host's need outlive the call.
constexpr int kLaunchValues = 256;
struct Values {
  int64_t values[kLaunchValues];
};

__global__ void __launch_bounds__(kLaunchValues)
    WriteKernel(const __grid_constant__ Values values, int64_t count,
                int64_t* to) {
  if (threadIdx.x < count) to[threadIdx.x] = values.values[threadIdx.x];
}

void Write(Stream& stream, std::span<const int64_t> from, int64_t* to) {
  while (!from.empty()) {
    const size_t count = std::min<size_t>(from.size(), kLaunchValues);
    Values values = {};
    std::copy_n(from.begin(), count, values.values);
    Launch({dim3(1), kLaunchValues, 0, Handle(stream)}, WriteKernel, values,
           static_cast<int64_t>(count), to);
    from = from.subspan(count);
    to += count;
  }
}

AttentionArguments Arguments(Stream& stream, const AttentionProblem& problem,
                             const AttentionOperands& operands,
                             const Workspace& places, std::byte* workspace) {
  AttentionArguments a;
  a.batch = problem.batch;
  a.heads = problem.heads;
  a.key_heads = problem.key_heads;
  a.queries_per_key = problem.heads / problem.key_heads;
  a.queries = problem.queries;
  a.keys = problem.keys;
  a.head_dim = problem.head_dim;
  a.scale = problem.scale;
  a.unrounded = problem.unrounded;
  a.operands = operands;
  if (!problem.masked) a.operands.key_counts = nullptr;
  a.visibility.keys = problem.keys;
  a.visibility.causal = problem.diagonal.has_value();
  a.visibility.diagonal = problem.diagonal.value_or(0);
  if (problem.query_offsets != nullptr) {
    auto* const queries = reinterpret_cast<int64_t*>(workspace);
    auto* const keys =
        reinterpret_cast<int64_t*>(workspace + places.key_offsets);
    Write(stream, *problem.query_offsets, queries);
    Write(stream, *problem.key_offsets, keys);
    a.visibility.sequences =
        static_cast<int64_t>(problem.query_offsets->size()) - 1;
    a.visibility.query_offsets = queries;
    a.visibility.key_offsets = keys;
  }
  return a;
}

bool UsesTensorCores(const AttentionProblem& problem) {
  return IsHalf(problem.dtype) && problem.head_dim <= kMaxFlashHeadDim;
}

int64_t ForwardWorkspace(const AttentionProblem& problem,
                         const AttentionOperands&) {
  return Workspace(problem, /*backward=*/false).bytes;
}

void Forward(Stream& stream, const AttentionProblem& problem,
             const AttentionOperands& operands, void* workspace) {
  const Workspace places(problem, /*backward=*/false);
  const AttentionArguments a = Arguments(stream, problem, operands, places,
                                         static_cast<std::byte*>(workspace));
  CheckKeyCounts(stream, a);
  if (UsesTensorCores(problem)) {
    FlashAttentionForward(stream, problem.dtype, a);
  } else {
    PlainAttentionForward(stream, problem.dtype, a);
  }
}

int64_t BackwardWorkspace(const AttentionProblem& problem,
                          const AttentionOperands&, const AttentionGradients&) {
  return Workspace(problem, /*backward=*/true).bytes;
}

void Backward(Stream& stream, const AttentionProblem& problem,
              const AttentionOperands& operands,
              const AttentionGradients& gradients, void* workspace) {
  const Workspace places(problem, /*backward=*/true);
  auto* const bytes = static_cast<std::byte*>(workspace);
  AttentionArguments a = Arguments(stream, problem, operands, places, bytes);
  a.gradients = gradients;
  a.delta = bytes + places.delta;
  AttentionDelta(stream, problem.dtype, a, bytes + places.delta);
  if (UsesTensorCores(problem)) {
    FlashAttentionBackward(stream, problem.dtype, a);
  } else {
    PlainAttentionBackward(stream, problem.dtype, a);
  }
}

constexpr int kMergeWarps = 8;

// A warp for each head of each row.
template <typename C>
__global__ void __launch_bounds__(kMergeWarps* kWarpThreads)
    MergeKernel(const AttentionMergeArguments a) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kMergeWarps +
                        static_cast<int>(threadIdx.x) / kWarpThreads;
  if (index >= a.batch * a.tokens * a.heads) return;
  const int64_t row = index / a.heads;
  const int64_t head = index % a.heads;
  const int64_t at =
      (row / a.tokens * a.heads + head) * a.tokens + row % a.tokens;
  C* const log_sum_exp = static_cast<C*>(a.log_sum_exp) + at;
  const C own = *log_sum_exp;
  const C part = static_cast<const C*>(a.part_log_sum_exp)[at];
  // All lanes have read it before one overwrites it.
  __syncwarp();
  const C largest = own > part ? own : part;
  if (largest == -static_cast<C>(INFINITY)) return;
  const C smallest = own > part ? part : own;
  const C merged =
      largest +
      static_cast<C>(log1p(static_cast<double>(Exp(smallest - largest))));
  const C weight = Exp(own - merged);
  const C part_weight = Exp(part - merged);
  if (lane == 0) *log_sum_exp = merged;
  const C* part_out = static_cast<const C*>(a.part_out) + index * a.head_dim;
  C* const out = static_cast<C*>(a.out) + index * a.head_dim;
  for (int64_t i = lane; i < a.head_dim; i += kWarpThreads) {
    out[i] = MultiplyAdd(out[i], weight, part_out[i] * part_weight);
  }
}

void Merge(Stream& stream, const AttentionMergeArguments& a) {
  const LaunchConfig config = {
      GridFor(a.batch * a.tokens * a.heads, kMergeWarps),
      kMergeWarps * kWarpThreads, 0, Handle(stream)};
  if (a.dtype == DType::kFloat64) {
    Launch(config, MergeKernel<double>, a);
  } else {
    CHECK(a.dtype == DType::kFloat32) << a.dtype;
    Launch(config, MergeKernel<float>, a);
  }
}

}  // namespace

AttentionKernels CudaAttention() {
  return {.forward_workspace = ForwardWorkspace,
          .forward = Forward,
          .backward_workspace = BackwardWorkspace,
          .backward = Backward,
          .merge = Merge};
}

}  // namespace trireme
