#include "runtime/ops/cuda/activations.cuh"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/gemm_epilogue.h"

namespace trireme {
namespace {

constexpr int kThreads = 256;

struct Same {
  template <typename C>
  __device__ C operator()(C x) const {
    return x;
  }
};

// A thread for each pack of columns of each row of the batch.
template <typename T, typename Out, typename F>
__global__ void __launch_bounds__(kThreads)
    EpilogueKernel(int64_t rows_of_batch, int64_t rows, int64_t width,
                   const MatrixStrides strides, const F f,
                   const float* row_scales, const float* column_scales,
                   const T* bias, Out* out) {
  constexpr int kSize = kPackSize<T, Out>;
  const int64_t packs = (width + kSize - 1) / kSize;
  const int64_t thread = GridThread();
  if (thread >= rows * packs) return;
  const int64_t row = thread / packs;
  const int64_t column = (thread - row * packs) * kSize;
  Out* const at = out + row / rows_of_batch * strides.batch +
                  row % rows_of_batch * strides.row + column;
  auto values = LoadPack<kSize>(at, width - column);
  if (row_scales != nullptr) {
    const auto of_columns =
        LoadPack<kSize>(column_scales + column, width - column);
    const float of_row = row_scales[row];
    UNROLL
    for (int i = 0; i < kSize; ++i) values[i] *= of_row * of_columns[i];
  }
  if (bias != nullptr) {
    const auto addends = LoadPack<kSize>(bias + column, width - column);
    UNROLL
    for (int i = 0; i < kSize; ++i) values[i] += addends[i];
  }
  UNROLL
  for (int i = 0; i < kSize; ++i) values[i] = f(values[i]);
  StorePack(values, at, width - column);
}

template <typename T, typename Out, typename F>
void Apply(Stream& stream, const GemmSpec& spec, const GemmOperands& operands,
           const F& f) {
  constexpr int kSize = kPackSize<T, Out>;
  const int64_t rows = spec.batch * spec.m;
  const int64_t packs = (spec.n + kSize - 1) / kSize;
  Launch({GridFor(rows * packs, kThreads), kThreads, 0, Handle(stream)},
         EpilogueKernel<T, Out, F>, spec.m, rows, spec.n, spec.out, f,
         spec.float8 ? static_cast<const float*>(operands.a_scales) : nullptr,
         static_cast<const float*>(operands.b_scales),
         spec.bias ? static_cast<const T*>(operands.bias) : nullptr,
         static_cast<Out*>(operands.out));
}

template <typename T, typename Out>
void ApplyTyped(Stream& stream, const GemmSpec& spec,
                const GemmOperands& operands) {
  switch (spec.activation) {
    case Activation::kGeluTanh:
      return Apply<T, Out>(stream, spec, operands, GeluTanh());
    case Activation::kSilu:
      return Apply<T, Out>(stream, spec, operands, Silu());
    case Activation::kGelu:
      return Apply<T, Out>(stream, spec, operands, Gelu());
    case Activation::kRelu:
      return Apply<T, Out>(stream, spec, operands, Relu());
    case Activation::kNone:
      return Apply<T, Out>(stream, spec, operands, Same());
  }
}

}  // namespace

void ApplyEpilogue(Stream& stream, const GemmSpec& spec,
                   const GemmOperands& operands) {
  if (!spec.float8 && !spec.bias && spec.activation == Activation::kNone) {
    return;
  }
  DispatchElement(spec.dtype, [&]<typename T>(T) {
    if (spec.out_dtype == spec.dtype) {
      ApplyTyped<T, T>(stream, spec, operands);
    } else {
      ApplyTyped<T, ComputeType<T>>(stream, spec, operands);
    }
  });
}

}  // namespace trireme
