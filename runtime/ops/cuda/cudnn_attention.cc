#include "runtime/ops/cuda/cudnn_attention.h"

#include <cudnn.h>

#include <algorithm>
#include <vector>

#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "runtime/core/status.h"
#include "runtime/device/arena.h"
#include "runtime/device/cuda/cuda_stream.h"
#include "runtime/ops/cuda/cudnn_graph.h"
#include "runtime/ops/cuda/cudnn_plans.h"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

// Tensors of the graphs.
enum Number : int64_t {
  kQ = 1,
  kK,
  kV,
  kOut,
  kGradQ,
  kGradK,
  kGradV,
  kGradOut,
  kLogSumExp,
  kScale,
  kOne,
  kRowDots,
};

// Elements of which 16 bytes are a multiple, in the types of these kernels.
constexpr int64_t kAligned = 8;
// Wider heads no engine has.
constexpr int64_t kMaxHeadDim = 256;
// From compute capability 10.0 on the deterministic engine must be asked for by
// a number and settings that change with cuDNN's version.
constexpr int kMostBackwardMajor = 9;

// Whether cuDNN is asked. Of one query and one key its backward is not to be.
bool Suits(const AttentionProblem& problem) {
  return (problem.dtype == DType::kBFloat16 ||
          problem.dtype == DType::kFloat16) &&
         !problem.masked && !problem.ranged() && !problem.unrounded &&
         problem.queries > 1 && problem.head_dim % kAligned == 0 &&
         problem.head_dim <= kMaxHeadDim;
}

CudnnAttentionProblem ProblemOf(const AttentionProblem& problem,
                                const AttentionOperands& operands,
                                const AttentionGradients* gradients) {
  CudnnAttentionProblem of;
  of.backward = gradients != nullptr;
  of.dtype = problem.dtype;
  of.batch = problem.batch;
  of.heads = problem.heads;
  of.key_heads = problem.key_heads;
  of.queries = problem.queries;
  of.keys = problem.keys;
  of.head_dim = problem.head_dim;
  of.row_strides = {operands.q.row_stride, operands.k.row_stride,
                    operands.v.row_stride, operands.out.row_stride};
  if (of.backward) {
    of.row_strides[4] = gradients->q.row_stride;
    of.row_strides[5] = gradients->k.row_stride;
    of.row_strides[6] = gradients->v.row_stride;
    of.row_strides[7] = gradients->out.row_stride;
  }
  return of;
}

// The tensors of a problem, in the order batch, head, token, channel.
class AttentionGraph {
 public:
  explicit AttentionGraph(const CudnnAttentionProblem& problem)
      : p_(problem),
        type_(problem.dtype == DType::kBFloat16 ? CUDNN_DATA_BFLOAT16
                                                : CUDNN_DATA_HALF) {}

  absl::StatusOr<CudnnPlan> Plan(const CudnnDescriptor& gpu) {
    if (p_.backward) {
      Backward();
    } else {
      Forward();
    }
    return graph_.Plan(gpu);
  }

 private:
  using Tensor = CudnnGraph::Tensor;

  // q, k, v or out; or a gradient.
  CudnnLayout Heads(Number number) const {
    const bool of_keys =
        number == kK || number == kV || number == kGradK || number == kGradV;
    const int64_t tokens = of_keys ? p_.keys : p_.queries;
    const int64_t row = p_.row_strides[number - kQ];
    return {{p_.batch, of_keys ? p_.key_heads : p_.heads, tokens, p_.head_dim},
            {tokens * row, p_.head_dim, row, 1}};
  }
  Tensor InMemory(Number number) {
    return graph_.InMemory(number, type_, Heads(number));
  }
  CudnnLayout Rows() const {
    return CudnnLayout::Dense({p_.batch, p_.heads, p_.queries, 1});
  }
  CudnnLayout Scores() const {
    return CudnnLayout::Dense({p_.batch, p_.heads, p_.queries, p_.keys});
  }
  Tensor LogSumExp() {
    return graph_.InMemory(kLogSumExp, CUDNN_DATA_FLOAT, Rows());
  }
  Tensor Between(const CudnnLayout& layout) {
    return graph_.Between(CUDNN_DATA_FLOAT, layout);
  }
  Tensor Pointwise(cudnnPointwiseMode_t mode, Tensor x, Tensor b,
                   const CudnnLayout& layout) {
    const Tensor y = Between(layout);
    graph_.Pointwise(mode, x, b, y);
    return y;
  }
  Tensor Multiply(Tensor a, Tensor b) {
    const Tensor y = Between(Scores());
    graph_.Multiply(a, b, y);
    return y;
  }

  void Forward() {
    graph_.Add(
        CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR,
        {{CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, InMemory(kQ)},
         {CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, InMemory(kK)},
         {CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, InMemory(kV)},
         {CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, InMemory(kOut)},
         {CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, LogSumExp()},
         {CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, graph_.OfHost(kScale)}});
  }

  // cuDNN knows attention's backward by its operations, one after the other;
  // the product with 1 is where dropout's factor would be.
  void Backward() {
    const Tensor q = InMemory(kQ), out = InMemory(kOut);
    const Tensor grad_out = InMemory(kGradOut);
    const Tensor k = graph_.InMemory(kK, type_, Heads(kK).Transposed());
    const Tensor v = graph_.InMemory(kV, type_, Heads(kV).Transposed());
    const Tensor scale = graph_.OfHost(kScale);
    const Tensor products = Pointwise(
        CUDNN_POINTWISE_MUL, grad_out, out,
        CudnnLayout::Dense({p_.batch, p_.heads, p_.queries, p_.head_dim}));
    const Tensor sums = Between(Rows());
    graph_.Sum(products, sums);
    const Tensor row_dots = graph_.InMemory(kRowDots, CUDNN_DATA_FLOAT, Rows());
    graph_.Pointwise(CUDNN_POINTWISE_MUL, sums, graph_.OfHost(kOne), row_dots);

    Tensor scores = Multiply(q, k);
    scores = Pointwise(CUDNN_POINTWISE_MUL, scores, scale, Scores());
    scores = Pointwise(CUDNN_POINTWISE_SUB, scores, LogSumExp(), Scores());
    const Tensor p = Pointwise(CUDNN_POINTWISE_EXP, scores, nullptr, Scores());
    KeyGradient(p, grad_out, kGradV);

    Tensor slopes = Multiply(grad_out, v);
    slopes = Pointwise(CUDNN_POINTWISE_SUB, slopes, row_dots, Scores());
    slopes = Pointwise(CUDNN_POINTWISE_MUL, slopes, p, Scores());
    slopes = Pointwise(CUDNN_POINTWISE_MUL, slopes, scale, Scores());
    KeyGradient(slopes, q, kGradK);

    const Tensor rows_of_k = graph_.Between(type_, Heads(kK));
    graph_.Reshape(k, rows_of_k);
    graph_.Multiply(slopes, rows_of_k, InMemory(kGradQ));
  }

  // scoresᵀ·rows, where queries share heads of keys summed over them.
  void KeyGradient(Tensor scores, Tensor rows, Number to) {
    const Tensor transposed = graph_.Between(type_, Scores().Transposed());
    graph_.Reshape(scores, transposed);
    if (p_.heads == p_.key_heads) {
      graph_.Multiply(transposed, rows, InMemory(to));
      return;
    }
    const Tensor of_heads = graph_.Between(
        type_, CudnnLayout::Dense({p_.batch, p_.heads, p_.keys, p_.head_dim}));
    graph_.Multiply(transposed, rows, of_heads);
    graph_.Sum(of_heads, InMemory(to));
  }

  const CudnnAttentionProblem& p_;
  const cudnnDataType_t type_;
  CudnnGraph graph_;
};

absl::StatusOr<CudnnPlan> FindPlan(const CudnnAttentionProblem& problem,
                                   const CudnnGpu& gpu) {
  if (problem.backward && gpu.compute_capability_major() > kMostBackwardMajor) {
    return NotFound("cuDNN's is not deterministic on this GPU");
  }
  return AttentionGraph(problem).Plan(gpu.properties());
}

std::string NameOf(const CudnnAttentionProblem& problem) {
  return fmt::format(
      "attention of {} queries, {} keys and {} heads of {} channels, {}",
      problem.queries, problem.keys, problem.heads, problem.head_dim,
      problem.backward ? "backward" : "forward");
}

CudnnPlans<CudnnAttentionProblem>& Plans() {
  // Never destroyed: the library's own statics may already be gone at exit.
  static auto& plans = *new CudnnPlans<CudnnAttentionProblem>(FindPlan, NameOf);
  return plans;
}

// A workspace has what the plan needs, then a number for each row.
int64_t RowDotsAt(const CudnnPlan& plan) {
  return Arena::Aligned(plan.workspace_bytes());
}
int64_t WorkspaceBytes(const CudnnAttentionProblem& problem,
                       const CudnnPlan& plan) {
  if (!problem.backward) return plan.workspace_bytes();
  return RowDotsAt(plan) + problem.batch * problem.heads * problem.queries *
                               DTypeSize(DType::kFloat32);
}

// Room for whichever kernels compute it: addresses are not known yet.
int64_t Workspace(const AttentionProblem& problem,
                  const AttentionOperands& operands,
                  const AttentionGradients* gradients, int64_t own) {
  const CudnnGpu* const gpu = Suits(problem) ? CudnnGpu::Current() : nullptr;
  if (gpu == nullptr) return own;
  const CudnnAttentionProblem of = ProblemOf(problem, operands, gradients);
  const CudnnPlan* const plan = Plans().Of(of, *gpu);
  return plan == nullptr ? own : std::max(own, WorkspaceBytes(of, *plan));
}

// False where our own kernels are to compute it.
bool Run(Stream& stream, const AttentionProblem& problem,
         const AttentionOperands& operands, const AttentionGradients* gradients,
         void* workspace) {
  CudnnGpu* const gpu = Suits(problem) ? CudnnGpu::Current() : nullptr;
  if (gpu == nullptr) return false;
  std::vector<int64_t> numbers;
  std::vector<void*> pointers;
  const auto add = [&](Number number, void* pointer) {
    numbers.push_back(number);
    pointers.push_back(pointer);
  };
  add(kQ, operands.q.data);
  add(kK, operands.k.data);
  add(kV, operands.v.data);
  add(kOut, operands.out.data);
  add(kLogSumExp, operands.log_sum_exp);
  if (gradients != nullptr) {
    add(kGradQ, gradients->q.data);
    add(kGradK, gradients->k.data);
    add(kGradV, gradients->v.data);
    add(kGradOut, gradients->out.data);
  }
  if (!AreAlignedForCudnn(pointers)) return false;
  const CudnnAttentionProblem of = ProblemOf(problem, operands, gradients);
  const CudnnPlan* const plan = Plans().Of(of, *gpu);
  if (plan == nullptr) return false;
  auto scale = static_cast<float>(problem.scale);
  float one = 1;
  add(kScale, &scale);
  if (of.backward) {
    add(kOne, &one);
    add(kRowDots, static_cast<std::byte*>(workspace) + RowDotsAt(*plan));
  }
  gpu->Run(*plan, Handle(stream), numbers, pointers, workspace);
  return true;
}

int64_t ForwardWorkspace(const AttentionProblem& problem,
                         const AttentionOperands& operands) {
  return Workspace(problem, operands, nullptr,
                   CudaAttention().forward_workspace(problem, operands));
}

void Forward(Stream& stream, const AttentionProblem& problem,
             const AttentionOperands& operands, void* workspace) {
  if (Run(stream, problem, operands, nullptr, workspace)) return;
  CudaAttention().forward(stream, problem, operands, workspace);
}

int64_t BackwardWorkspace(const AttentionProblem& problem,
                          const AttentionOperands& operands,
                          const AttentionGradients& gradients) {
  return Workspace(
      problem, operands, &gradients,
      CudaAttention().backward_workspace(problem, operands, gradients));
}

void Backward(Stream& stream, const AttentionProblem& problem,
              const AttentionOperands& operands,
              const AttentionGradients& gradients, void* workspace) {
  if (Run(stream, problem, operands, &gradients, workspace)) return;
  CudaAttention().backward(stream, problem, operands, gradients, workspace);
}

}  // namespace

absl::Status FindCudnnAttention(const CudnnAttentionProblem& problem,
                                const std::string& json) {
  RETURN_IF_ERROR(FindCudnn());
  return AttentionGraph(problem).Plan(CudnnGpuProperties(json)).status();
}

AttentionKernels CudnnAttention() {
  return {.forward_workspace = ForwardWorkspace,
          .forward = Forward,
          .backward_workspace = BackwardWorkspace,
          .backward = Backward,
          .merge = CudaAttention().merge};
}

}  // namespace trireme
