#include "runtime/ops/cuda/blocks.cuh"
#include "runtime/ops/cuda/check.cuh"
#include "runtime/ops/cuda/cross_entropy.h"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/readback.h"

namespace trireme {
namespace {

// Threads of a row, whose sums are in fp64.
constexpr int kThreads = 128;

template <typename T>
__device__ double WideAt(const T* x, int64_t i) {
  return static_cast<double>(Widen(x[i]));
}

// log Σ exp of a row, in all threads.
template <typename T>
__device__ double LogSumExp(const T* x, int64_t classes) {
  double highest = WideAt(x, 0);
  for (int64_t i = threadIdx.x; i < classes; i += kThreads) {
    highest = Higher()(highest, WideAt(x, i));
  }
  highest = CombineBlock<kThreads>(highest, Higher());
  double sum = 0;
  for (int64_t i = threadIdx.x; i < classes; i += kThreads) {
    sum += exp(WideAt(x, i) - highest);
  }
  return highest + log(BlockSum<kThreads>(sum));
}

// The label of a block's row; may be negative.
__device__ int64_t LabelOf(const CrossEntropyArguments& a) {
  const int32_t label = a.labels[blockIdx.x];
  return label < 0 ? label : CheckedIndex(label, 0, a.classes, "label");
}

// The mean of a row, in all threads.
template <typename T>
__device__ double Mean(const T* x, int64_t classes) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < classes; i += kThreads) {
    sum += WideAt(x, i);
  }
  return BlockSum<kThreads>(sum) / static_cast<double>(classes);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    LossesKernel(const CrossEntropyArguments a, double* row_losses) {
  const T* x = static_cast<const T*>(a.logits) + blockIdx.x * a.classes;
  const bool counts = a.labels[blockIdx.x] >= 0;
  const double log_sum = counts ? LogSumExp(x, a.classes) : 0.0;
  const double mean = counts && a.smoothing > 0 ? Mean(x, a.classes) : 0.0;
  if (threadIdx.x != 0) return;
  const int64_t label = LabelOf(a);
  if (label < 0) {
    row_losses[blockIdx.x] = 0;
    return;
  }
  const double expected = WideAt(x, label);
  row_losses[blockIdx.x] =
      log_sum - expected -
      (a.smoothing > 0 ? a.smoothing * (mean - expected) : 0.0);
}

// By one thread, in the order of rows.
__global__ void SumKernel(int64_t rows, const double* row_losses, double* sum) {
  double total = 0;
  for (int64_t row = 0; row < rows; ++row) total += row_losses[row];
  *sum = total;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    GradientKernel(const CrossEntropyArguments a, double factor, T* gradient) {
  using C = ComputeType<T>;
  const int64_t label = LabelOf(a);
  const T* x = static_cast<const T*>(a.logits) + blockIdx.x * a.classes;
  T* const out = gradient + blockIdx.x * a.classes;
  const double log_sum = label < 0 ? 0.0 : LogSumExp(x, a.classes);
  const double of_label = 1 - a.smoothing;
  const double of_each = a.smoothing / static_cast<double>(a.classes);
  for (int64_t i = threadIdx.x; i < a.classes; i += kThreads) {
    const double slope = label < 0
                             ? 0.0
                             : factor * (exp(WideAt(x, i) - log_sum) - of_each -
                                         (i == label ? of_label : 0.0));
    Narrow(static_cast<C>(slope), out[i]);
  }
}

}  // namespace

double CudaCrossEntropy(Stream& stream, const CrossEntropyArguments& a,
                        double* row_losses) {
  if (a.rows == 0) return 0;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch({GridFor(a.rows, 1), kThreads, 0, Handle(stream)}, LossesKernel<T>,
           a, row_losses);
  });
  double* const sum = ReadbackAs<double>(stream).data();
  Launch({dim3(1), dim3(1), 0, Handle(stream)}, SumKernel, a.rows, row_losses,
         sum);
  stream.Synchronize();
  return *sum;
}

void CudaCrossEntropyBackward(Stream& stream, const CrossEntropyArguments& a,
                              double factor, void* gradient) {
  if (a.rows == 0) return;
  DispatchElement(a.dtype, [&]<typename T>(T) {
    Launch({GridFor(a.rows, 1), kThreads, 0, Handle(stream)}, GradientKernel<T>,
           a, factor, static_cast<T*>(gradient));
  });
}

}  // namespace trireme
