#include "runtime/comm/nccl/rank_order_sum.h"
#include "runtime/core/log.h"
#include "runtime/device/cuda/cuda_stream.h"
#include "runtime/device/cuda/kernel.cuh"

namespace trireme {
namespace {

constexpr int kThreads = 256;

// By type: what elements are reduced in, and rounded back from.
template <typename T>
__device__ T Widened(T x) {
  return x;
}
__device__ float Widened(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ float Widened(__half x) { return __half2float(x); }
template <typename T>
__device__ void Store(T x, T& to) {
  to = x;
}
__device__ void Store(float x, __nv_bfloat16& to) {
  to = __float2bfloat16_rn(x);
}
__device__ void Store(float x, __half& to) { to = __float2half_rn(x); }

template <typename T, ReduceOp kOp>
__global__ void __launch_bounds__(kThreads)
    ReduceKernel(const __grid_constant__ RankParts parts, int64_t count,
                 T* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const T* other = static_cast<const T*>(parts.others) + i;
  decltype(Widened(T())) total = 0;
  for (int rank = 0; rank < parts.size; ++rank) {
    const bool own = rank == parts.rank;
    const auto x = Widened(own ? static_cast<const T*>(parts.own)[i] : *other);
    if (!own) other += parts.stride;
    if (rank == 0) {
      total = x;
    } else if constexpr (kOp == ReduceOp::kSum) {
      total += x;
    } else if (x > total || x != x) {
      // A NaN on any rank shows on all.
      total = x;
    }
  }
  Store(total, out[i]);
}

template <typename T>
void ReduceOf(Stream& stream, ReduceOp op, const RankParts& parts,
              int64_t count, void* out) {
  const LaunchConfig config = {
      dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads)), kThreads,
      0, Handle(stream)};
  if (op == ReduceOp::kSum) {
    Launch(config, ReduceKernel<T, ReduceOp::kSum>, parts, count,
           static_cast<T*>(out));
  } else {
    Launch(config, ReduceKernel<T, ReduceOp::kMax>, parts, count,
           static_cast<T*>(out));
  }
}

}  // namespace

void ReduceRankParts(Stream& stream, DType dtype, ReduceOp op,
                     const RankParts& parts, int64_t count, void* out) {
  if (count == 0) return;
  switch (dtype) {
    case DType::kFloat32:
      return ReduceOf<float>(stream, op, parts, count, out);
    case DType::kBFloat16:
      return ReduceOf<__nv_bfloat16>(stream, op, parts, count, out);
    case DType::kFloat16:
      return ReduceOf<__half>(stream, op, parts, count, out);
    case DType::kFloat64:
      return ReduceOf<double>(stream, op, parts, count, out);
    case DType::kInt32:
      return ReduceOf<int32_t>(stream, op, parts, count, out);
    case DType::kInt64:
      return ReduceOf<int64_t>(stream, op, parts, count, out);
    case DType::kUint8:
      return ReduceOf<uint8_t>(stream, op, parts, count, out);
    case DType::kBool:
      break;
  }
  LOG(FATAL) << "no reduction of " << dtype;
}

}  // namespace trireme
