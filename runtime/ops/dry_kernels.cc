#include "runtime/ops/dry_kernels.h"

#include <algorithm>
#include <numeric>

namespace trireme {
namespace {

int64_t ComputeSize(DType dtype) { return dtype == DType::kFloat64 ? 8 : 4; }

// `tensors` of n elements each.
void CountBytes(Stream& stream, DType dtype, int64_t n, int64_t tensors) {
  stream.Count({.bytes = n * tensors * DTypeSize(dtype)});
}

// What one of attention's two products takes, forward.
int64_t ScoreFlops(const AttentionProblem& p) {
  return 2 * p.batch * p.heads * p.VisiblePairs() * p.head_dim;
}

int64_t QueryElements(const AttentionProblem& p) {
  return p.batch * p.heads * p.queries * p.head_dim;
}

int64_t KeyElements(const AttentionProblem& p) {
  return p.batch * p.key_heads * p.keys * p.head_dim;
}

int64_t OutputSize(const AttentionProblem& p) {
  return p.unrounded ? ComputeSize(p.dtype) : DTypeSize(p.dtype);
}

AttentionKernels DryAttention(const AttentionKernels& twin) {
  AttentionKernels kernels = twin;
  kernels.forward = [](Stream& stream, const AttentionProblem& p,
                       const AttentionOperands&, void*) {
    stream.Count(
        {.product_flops = 2 * ScoreFlops(p),
         .bytes = (QueryElements(p) + 2 * KeyElements(p)) * DTypeSize(p.dtype) +
                  QueryElements(p) * OutputSize(p),
         .attention = true});
  };
  kernels.backward = [](Stream& stream, const AttentionProblem& p,
                        const AttentionOperands&, const AttentionGradients&,
                        void*) {
    // Of q, k, v, the output and its gradient those of q, k and v.
    stream.Count(
        {.product_flops = 4 * ScoreFlops(p),
         .bytes =
             (3 * QueryElements(p) + 2 * KeyElements(p)) * DTypeSize(p.dtype) +
             (QueryElements(p) + 2 * KeyElements(p)) * OutputSize(p),
         .attention = true});
  };
  kernels.merge = [](Stream& stream, const AttentionMergeArguments& a) {
    CountBytes(stream, a.dtype, a.batch * a.heads * a.tokens * (a.head_dim + 1),
               3);
  };
  return kernels;
}

ConvolutionKernels DryConvolution(const ConvolutionKernels& twin) {
  ConvolutionKernels kernels = twin;
  kernels.run = [](Stream& stream, const ConvolutionProblem& p,
                   const ConvolutionOperands&) {
    const int64_t read = p.batch * p.height * p.width * p.in_channels;
    const int64_t weights =
        p.out_channels * p.in_channels * p.kernel * p.kernel;
    const int64_t pixels = p.batch * p.out_height() * p.out_width();
    stream.Count({.product_flops = 2 * pixels * weights,
                  .bytes = (read + weights + pixels * p.out_channels) *
                           DTypeSize(p.dtype)});
  };
  return kernels;
}

CopyKernels DryCopy() {
  return {
      .strided =
          [](Stream& stream, DType dtype, const StridedCopy& copy, const void*,
             void*) {
            CountBytes(stream, dtype, copy.outer * copy.inner * copy.run, 2);
          },
      .runs =
          [](Stream& stream, DType dtype, std::span<const ElementRun> runs,
             const void*, void*) {
            for (const ElementRun& run : runs) {
              CountBytes(stream, dtype, run.count, 2);
            }
          },
      .fill = [](Stream& stream, DType dtype, int64_t n, double,
                 void*) { CountBytes(stream, dtype, n, 1); },
      .add_offset = [](Stream& stream, int64_t n, int32_t, const int32_t*,
                       int32_t*) { CountBytes(stream, DType::kInt32, n, 2); },
      .masked_fill = [](Stream& stream, int64_t n, int32_t, const int32_t*,
                        const uint8_t*,
                        int32_t*) { CountBytes(stream, DType::kInt32, n, 2); }};
}

EmbeddingKernels DryEmbedding() {
  return {.gather_rows =
              [](Stream& stream, DType dtype, const RowIndices& lookup,
                 const void*, void*) {
                CountBytes(stream, dtype, lookup.count * lookup.width, 2);
              },
          .scatter_add_rows =
              [](Stream& stream, DType dtype, const RowIndices& lookup,
                 const void*, void*) {
                const int64_t n = lookup.count * lookup.width;
                stream.Count(
                    {.bytes = n * (DTypeSize(dtype) + 2 * ComputeSize(dtype))});
              },
          .timestep_embedding =
              [](Stream& stream, DType, DType dtype, int64_t n,
                 int64_t channels, double, const void*,
                 void*) { CountBytes(stream, dtype, n * channels, 1); },
          .patchify =
              [](Stream& stream, const PatchArguments& a, const void*, void*) {
                CountBytes(stream, a.dtype,
                           a.batch * a.channels * a.height * a.width, 2);
              },
          .unpatchify =
              [](Stream& stream, const PatchArguments& a, const void*, void*) {
                CountBytes(stream, a.dtype,
                           a.batch * a.channels * a.height * a.width, 2);
              }};
}

// A batch stride of 0 shares one matrix.
int64_t Matrices(const GemmSpec& spec, const MatrixStrides& strides) {
  return strides.batch == 0 ? 1 : spec.batch;
}

Float8Kernels DryFloat8() {
  return {
      .scales =
          [](Stream& stream, const Float8Vectors& vectors, const void*, void*) {
            CountBytes(stream, vectors.dtype, vectors.rows * vectors.columns,
                       1);
          },
      .quantize =
          [](Stream& stream, const Float8Vectors& vectors, const void*,
             const void*, void*) {
            // A code is a byte.
            const int64_t elements = vectors.rows * vectors.columns;
            stream.Count({.bytes = elements * (DTypeSize(vectors.dtype) + 1)});
          },
      .quantize_whole =
          [](Stream& stream, const Float8Vectors& vectors, const void*,
             const void* scale, void*, void*) {
            const int64_t elements = vectors.rows * vectors.columns;
            const int64_t code = scale == nullptr ? 0 : 1;
            stream.Count(
                {.bytes = elements * (DTypeSize(vectors.dtype) + code)});
          }};
}

int64_t CodesAndScales(const QuantizedMatrix& matrix) {
  return matrix.rows *
         (matrix.code_bytes() + matrix.blocks() * int64_t{sizeof(float)});
}

GemmKernels DryGemm(const GemmKernels& twin) {
  GemmKernels kernels = twin;
  kernels.run = [](Stream& stream, const GemmSpec& s, const GemmOperands&) {
    const int64_t size = s.float8 ? 1 : DTypeSize(s.dtype);
    const int64_t read = Matrices(s, s.a) * s.m * s.k * size +
                         (s.b_codes.format == WeightFormat::kFull
                              ? Matrices(s, s.b) * s.k * s.n * size
                              : CodesAndScales(s.b_codes)) +
                         (s.bias ? s.n : 0) * DTypeSize(s.dtype);
    const int64_t written = s.batch * s.m * s.n * (s.accumulate ? 2 : 1);
    stream.Count({.product_flops = 2 * s.batch * s.m * s.n * s.k,
                  .bytes = read + written * DTypeSize(s.out_dtype),
                  .float8 = s.float8});
    // As passes of their own, which they are on the host.
    if (s.derivative != Activation::kNone) {
      CountBytes(stream, s.dtype, s.m * s.n, 3);
    }
    if (s.row_sums) CountBytes(stream, s.dtype, s.k * s.m, 1);
  };
  return kernels;
}

GroupNormKernels DryGroupNorm() {
  // x is read twice.
  return {.forward = [](Stream& stream, const GroupNormArguments& a, void*) {
    CountBytes(stream, a.dtype, a.batch * a.pixels * a.channels, 3);
  }};
}

GroupedGemmKernels DryGroupedGemm(const GroupedGemmKernels& twin) {
  GroupedGemmKernels kernels = twin;
  kernels.run = [](Stream& stream, std::span<const int64_t> counts,
                   const GroupedGemmSpec& s, const GroupedGemmOperands&) {
    const int64_t rows =
        std::accumulate(counts.begin(), counts.end(), int64_t{0});
    const int64_t weights = s.groups * s.n * s.k;
    // Sums are read and written.
    const int64_t weight_bytes =
        s.codes.format == WeightFormat::kFull
            ? weights *
                  (s.accumulate ? 2 * ComputeSize(s.dtype) : DTypeSize(s.dtype))
            : CodesAndScales(s.codes);
    const int64_t bias_bytes = s.bias ? s.groups * s.n * DTypeSize(s.dtype) : 0;
    stream.Count({.product_flops = 2 * rows * s.n * s.k,
                  .bytes = rows * (s.n + s.k) * DTypeSize(s.dtype) +
                           weight_bytes + bias_bytes});
  };
  return kernels;
}

int64_t Elements(const NormArguments& a) {
  return a.groups * a.rows_per_group * a.width;
}

int64_t Elements(const HeadsNormArguments& a) {
  return a.batch * a.tokens * a.heads * a.head_dim;
}

NormKernels DryNorm() {
  return {
      .forward = [](Stream& stream, const NormArguments& a,
                    void*) { CountBytes(stream, a.dtype, Elements(a), 2); },
      .backward = [](Stream& stream, const NormArguments& a, const void*,
                     const void*, void*,
                     void*) { CountBytes(stream, a.dtype, Elements(a), 3); },
      .sum_blocks =
          [](Stream& stream, const NormArguments& a, const void*, int, int,
             bool, void*) {
            stream.Count(
                {.bytes = a.groups * NormBlocksPerGroup(a.rows_per_group) *
                          a.width * ComputeSize(a.dtype)});
          },
      .heads_forward =
          [](Stream& stream, const HeadsNormArguments& a, void*,
             const HeadsLayout&) {
            CountBytes(stream, a.dtype, Elements(a), 2);
          },
      .heads_backward =
          [](Stream& stream, const HeadsNormArguments& a, const void*,
             const HeadsLayout&, void*, const HeadsLayout&,
             void*) { CountBytes(stream, a.dtype, Elements(a), 3); }};
}

OptimizerKernels DryOptimizer() {
  return {.adamw =
              [](Stream& stream, const AdamWArguments& a) {
                // The gradient is read; three or four more are read and
                // written.
                const int64_t states = a.averages ? 9 : 7;
                stream.Count({.bytes = a.n * (states * DTypeSize(a.dtype) +
                                              DTypeSize(a.value_dtype))});
              },
          .ema = [](Stream& stream, DType dtype, int64_t n, double, const void*,
                    void*) { CountBytes(stream, dtype, n, 3); }};
}

PointwiseKernels DryPointwise() {
  return {
      .activation_forward = [](Stream& stream, DType dtype, Activation,
                               int64_t n, const void*,
                               void*) { CountBytes(stream, dtype, n, 2); },
      .activation_backward = [](Stream& stream, DType dtype, Activation,
                                int64_t n, const void*, const void*,
                                void*) { CountBytes(stream, dtype, n, 3); },
      .swiglu_forward =
          [](Stream& stream, DType dtype, int64_t rows, int64_t width,
             const void*,
             void*) { CountBytes(stream, dtype, rows * width, 3); },
      .swiglu_backward =
          [](Stream& stream, DType dtype, int64_t rows, int64_t width,
             const void*, const void*,
             void*) { CountBytes(stream, dtype, rows * width, 5); },
      .add = [](Stream& stream, DType dtype, int64_t n, const void*,
                const void*, void*) { CountBytes(stream, dtype, n, 3); },
      .multiply = [](Stream& stream, DType dtype, int64_t n, const void*,
                     const void*, void*) { CountBytes(stream, dtype, n, 3); },
      .scale = [](Stream& stream, DType dtype, int64_t n, double, const void*,
                  void*) { CountBytes(stream, dtype, n, 2); },
      .add_in_place =
          [](Stream& stream, DType source, DType target, int64_t n, double,
             const void*, void*) {
            stream.Count(
                {.bytes = n * (DTypeSize(source) + 2 * DTypeSize(target))});
          },
      .cast =
          [](Stream& stream, DType from, DType to, int64_t n, const void*,
             void*) {
            stream.Count({.bytes = n * (DTypeSize(from) + DTypeSize(to))});
          },
      .add_broadcast =
          [](Stream& stream, DType dtype, int64_t rows, int64_t width,
             const void*, const void*,
             void*) { CountBytes(stream, dtype, rows * width, 2); },
      .gated_residual_forward =
          [](Stream& stream, DType dtype, int64_t batch, int64_t tokens,
             int64_t width, const void*, const void*, const void*,
             void*) { CountBytes(stream, dtype, batch * tokens * width, 3); },
      .gated_residual_backward =
          [](Stream& stream, DType dtype, int64_t batch, int64_t tokens,
             int64_t width, const void*, const void*, const void*, void*,
             void*) { CountBytes(stream, dtype, batch * tokens * width, 3); }};
}

QuantizationKernels DryQuantization() {
  return {.dequantize = [](Stream& stream, const QuantizedMatrix& matrix,
                           const void*, const void*, DType dtype, void*) {
    CountBytes(stream, dtype, matrix.rows * matrix.columns, 1);
  }};
}

RandomKernels DryRandom() {
  return {.fill =
              [](Stream& stream, DType dtype, const RandomStream&, Distribution,
                 double, std::span<const ElementRun> runs, void*) {
                for (const ElementRun& run : runs) {
                  CountBytes(stream, dtype, run.count, 1);
                }
              },
          .add_flow_noise =
              [](Stream& stream, std::span<const RandomStream> streams,
                 const FlowNoiseArguments& a) {
                CountBytes(stream, DType::kFloat32,
                           static_cast<int64_t>(streams.size()) * a.elements,
                           3);
              }};
}

ReductionKernels DryReduction() {
  return {
      .reduce =
          [](Stream& stream, DType dtype, ScalarReduction, int64_t n,
             const void*) {
            CountBytes(stream, dtype, n, 1);
            return 0.0;
          },
      .block_sums_of_squares = [](Stream& stream, DType dtype, int64_t n,
                                  int64_t, const void*,
                                  double*) { CountBytes(stream, dtype, n, 1); },
      .softmax_forward =
          [](Stream& stream, DType dtype, int64_t rows, int64_t width,
             const void*,
             void*) { CountBytes(stream, dtype, rows * width, 2); },
      .softmax_backward =
          [](Stream& stream, DType dtype, int64_t rows, int64_t width,
             const void*, const void*,
             void*) { CountBytes(stream, dtype, rows * width, 3); },
      .sum_tokens =
          [](Stream& stream, DType dtype, int64_t batch, int64_t tokens,
             int64_t width, const void*,
             void*) { CountBytes(stream, dtype, batch * tokens * width, 1); },
      .squared_error =
          [](Stream& stream, DType dtype, int64_t n, const void*, const void*) {
            CountBytes(stream, dtype, n, 2);
            return 0.0;
          },
      .squared_error_backward = [](Stream& stream, DType dtype, int64_t n,
                                   double, const void*, const void*,
                                   void*) { CountBytes(stream, dtype, n, 3); },
      .cross_entropy =
          [](Stream& stream, const CrossEntropyArguments& a, double*) {
            CountBytes(stream, a.dtype, a.rows * a.classes, 1);
            return 0.0;
          },
      .cross_entropy_backward =
          [](Stream& stream, const CrossEntropyArguments& a, double, void*) {
            CountBytes(stream, a.dtype, a.rows * a.classes, 2);
          },
      .add_column_sums =
          [](Stream& stream, DType dtype, int64_t rows, int64_t columns,
             const void*,
             void*) { CountBytes(stream, dtype, rows * columns, 1); }};
}

RoutingKernels DryRouting() {
  return {
      .top_k =
          [](Stream& stream, DType dtype, const ColumnChoice& c, const void*,
             int32_t*) {
            CountBytes(stream, dtype, c.rows * c.columns, 1);
            CountBytes(stream, DType::kInt32, c.rows * c.k, 1);
          },
      .select_columns =
          [](Stream& stream, DType dtype, const ColumnChoice& c, const int32_t*,
             const void*, void*) {
            CountBytes(stream, dtype, c.rows * c.k, 2);
            CountBytes(stream, DType::kInt32, c.rows * c.k, 1);
          },
      .place_columns =
          [](Stream& stream, DType dtype, const ColumnChoice& c, const int32_t*,
             const void*, void*) {
            CountBytes(stream, dtype, c.rows * (c.k + c.columns), 1);
            CountBytes(stream, DType::kInt32, c.rows * c.k, 1);
          },
      .sort_routes =
          [](Stream& stream, const RouteSort& s) {
            const int64_t routes = s.tokens * s.k;
            for (int64_t g = 0; g < s.groups; ++g) {
              s.counts[g] = routes / s.groups + (g < routes % s.groups ? 1 : 0);
            }
            CountBytes(stream, DType::kInt32, routes, 4);
          },
      .count_routes =
          [](Stream& stream, DType, int64_t samples, int64_t routes, int64_t,
             const int32_t*,
             void*) { CountBytes(stream, DType::kInt32, samples * routes, 1); },
      .sum_rows =
          [](Stream& stream, DType dtype, int64_t tokens, int64_t k,
             int64_t width, const int32_t*, const void*,
             void*) { CountBytes(stream, dtype, tokens * (k + 1) * width, 1); },
      .scale_rows = [](Stream& stream, DType dtype, int64_t rows, int64_t width,
                       const void*, const void*,
                       void*) { CountBytes(stream, dtype, rows * width, 2); },
      .row_dots = [](Stream& stream, DType dtype, int64_t rows, int64_t width,
                     const void*, const void*,
                     void*) { CountBytes(stream, dtype, rows * width, 2); },
      .log_sum_exp = [](Stream& stream, DType dtype, int64_t rows,
                        int64_t width, const void*,
                        void*) { CountBytes(stream, dtype, rows * width, 1); }};
}

// Of a surface, of which samples are made: as many tokens as a block of each
// side has, of those that it passes.
constexpr int64_t kTokensOfSmall = 16;
constexpr int64_t kTokensOfLarge = 64;

// Keys that a query is multiplied with, over all branches.
int64_t SparseKeys(const SparseAttentionProblem& p) {
  const int64_t small = std::min(
      p.most_small, (p.block_tokens + kTokensOfSmall - 1) / kTokensOfSmall);
  const int64_t large = std::min(p.block_tokens, kTokensOfLarge);
  return small + std::min(p.top_k * large, p.block_tokens) + large;
}

// `products` with all keys; tensors of the queries' and of the keys' size.
void CountSparse(Stream& stream, const SparseAttentionProblem& p,
                 int64_t products, int64_t query_tensors, int64_t key_tensors) {
  const int64_t queries = p.batch * p.queries * p.heads * p.head_dim;
  const int64_t keys =
      p.batch * (p.keys + p.most_small) * p.key_heads * p.head_dim;
  stream.Count({.product_flops = 2 * products * queries * SparseKeys(p),
                .bytes = (queries * query_tensors + keys * key_tensors) *
                         DTypeSize(p.dtype),
                .attention = true});
}

SparseAttentionKernels DrySparseAttention(const SparseAttentionKernels& twin) {
  SparseAttentionKernels kernels = twin;
  // Of q, keys and values those of the branches and the output.
  kernels.forward = [](Stream& stream, const SparseAttentionProblem& p,
                       const SparseAttentionOperands&, void*) {
    CountSparse(stream, p, 2, kSparseBranches + 2, 2);
  };
  // Of q, keys, values, branches and the output's gradient those of q, keys
  // and values.
  kernels.backward = [](Stream& stream, const SparseAttentionProblem& p,
                        const SparseAttentionOperands&,
                        const SparseAttentionGradients&, void*) {
    CountSparse(stream, p, 4, kSparseBranches + 3, 4);
  };
  return kernels;
}

SpatialBlockKernels DrySpatialBlocks() {
  return {
      .mean =
          [](Stream& stream, const BlockMeanArguments& a, const void*, void*) {
            CountBytes(stream, a.dtype,
                       a.batch * (a.tokens + a.blocks.most) * a.width, 1);
          },
      .mean_backward =
          [](Stream& stream, const BlockMeanArguments& a, const void*, void*) {
            CountBytes(stream, a.dtype,
                       a.batch * (a.tokens + a.blocks.most) * a.width, 1);
          }};
}

SplitNormKernels DrySplitNorm() {
  return {.squares =
              [](Stream& stream, const SplitNormArguments& a, double*) {
                CountBytes(stream, a.dtype, a.rows * a.columns, 1);
              },
          .forward =
              [](Stream& stream, const SplitNormArguments& a, void*,
                 const HeadsLayout&) {
                CountBytes(stream, a.dtype, a.rows * a.columns, 2);
              },
          .dots =
              [](Stream& stream, const SplitNormArguments& a, const void*,
                 const HeadsLayout&, double*) {
                CountBytes(stream, a.dtype, a.rows * a.columns, 2);
              },
          .backward =
              [](Stream& stream, const SplitNormArguments& a, const void*,
                 const HeadsLayout&, const double*, void*, const HeadsLayout&) {
                CountBytes(stream, a.dtype, a.rows * a.columns, 3);
              },
          .weight_gradient =
              [](Stream& stream, const SplitNormArguments& a, const void*,
                 const HeadsLayout&, void*) {
                CountBytes(stream, a.dtype, a.rows * a.columns, 2);
              }};
}

WeightDecompositionKernels DryWeightDecomposition() {
  return {.add_row_products =
              [](Stream& stream, DType dtype, int64_t rows, int64_t columns,
                 double, const void*, const void*,
                 double*) { CountBytes(stream, dtype, rows * columns, 2); },
          .direction_factors = [](Stream& stream, DType dtype, int64_t n,
                                  const void*, const double*, void*,
                                  void*) { CountBytes(stream, dtype, n, 3); },
          .scale_columns =
              [](Stream& stream, DType dtype, int64_t rows, int64_t columns,
                 const void*, const void*,
                 void*) { CountBytes(stream, dtype, rows * columns, 2); },
          .magnitude_gradient =
              [](Stream& stream, DType dtype, int64_t rows, int64_t columns,
                 const void*, const void*, const void*,
                 void*) { CountBytes(stream, dtype, rows * columns, 2); }};
}

// Of a product of all queries with the keys of their windows.
int64_t ScoreFlops(const WindowAttentionArguments& a) {
  return 2 * a.windows() * a.heads * a.places() * a.places() * a.head_dim;
}

int64_t QueryElements(const WindowAttentionArguments& a) {
  return a.batch * a.height * a.width * a.heads * a.head_dim;
}

WindowAttentionKernels DryWindowAttention() {
  return {
      .forward =
          [](Stream& stream, const WindowAttentionArguments& a, void*, void*) {
            stream.Count({.product_flops = 2 * ScoreFlops(a),
                          .bytes = 4 * QueryElements(a) * DTypeSize(a.dtype),
                          .attention = true});
          },
      .backward =
          [](Stream& stream, const WindowAttentionArguments& a,
             const WindowAttentionGradients&, void*, double*) {
            stream.Count({.product_flops = 4 * ScoreFlops(a),
                          .bytes = 7 * QueryElements(a) * DTypeSize(a.dtype),
                          .attention = true});
          }};
}

}  // namespace

Kernels DryKernels(const Kernels& twin) {
  return {.attention = DryAttention(twin.attention),
          .convolution = DryConvolution(twin.convolution),
          .copy = DryCopy(),
          .embedding = DryEmbedding(),
          .float8 = DryFloat8(),
          .gemm = DryGemm(twin.gemm),
          .group_norm = DryGroupNorm(),
          .grouped_gemm = DryGroupedGemm(twin.grouped_gemm),
          .norm = DryNorm(),
          .optimizer = DryOptimizer(),
          .pointwise = DryPointwise(),
          .quantization = DryQuantization(),
          .random = DryRandom(),
          .reduction = DryReduction(),
          .routing = DryRouting(),
          .sparse_attention = DrySparseAttention(twin.sparse_attention),
          .spatial_blocks = DrySpatialBlocks(),
          .split_norm = DrySplitNorm(),
          .weight_decomposition = DryWeightDecomposition(),
          .window_attention = DryWindowAttention()};
}

}  // namespace trireme
