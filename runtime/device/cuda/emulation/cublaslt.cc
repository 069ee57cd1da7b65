// The part of cuBLASLt (cublasLt.h) that runtime/ops/cuda/gemm.cc uses, in
// plain loops: products of fp64, fp32, fp16 and bf16 by columns, strided
// batches, bias and GELU, GELU's derivative and sums of B's columns, and of FP8
// (E4M3) with scales by rows or without.
// Anything else is refused by name.

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime_api.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "fmt/format.h"
#include "runtime/device/cuda/emulation/emulated_gpu.h"
#include "runtime/device/cuda/emulation/refusal.h"

namespace trireme::cuda_emulation {
namespace {

struct Matmul {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t transpose_a = CUBLAS_OP_N;
  cublasOperation_t transpose_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;  // or what sums are written to
  const void* x = nullptr;     // of GELU's derivative
  int64_t x_leading = 0;
  cublasLtMatmulMatrixScale_t a_scale_mode =
      CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  cublasLtMatmulMatrixScale_t b_scale_mode =
      CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  const void* a_scale = nullptr;
  const void* b_scale = nullptr;

  bool row_scales() const {
    return a_scale_mode == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
  }
  bool has_bias() const {
    return epilogue == CUBLASLT_EPILOGUE_BIAS ||
           epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
  }
  bool of_gradients() const {
    return epilogue == CUBLASLT_EPILOGUE_DGELU ||
           epilogue == CUBLASLT_EPILOGUE_BGRADB;
  }
};

// By columns.
struct Matrix {
  cudaDataType_t type;
  uint64_t rows;
  uint64_t columns;
  int64_t leading;
  int32_t batch = 1;
  int64_t stride = 0;  // of the batch
};

struct Preferences {
  uint64_t workspace_bytes = 0;
};

// What an algorithm of ours says, and what it asks for as workspace: it fills
// it with what no one may rely on.
constexpr uint64_t kAlgorithm = 0x7472697265ull;
constexpr size_t kWorkspaceBytes = 256;

template <typename T>
T ValueOf(const char* function, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) {
    Refuse(
        fmt::format("{}: {} bytes, expected {}", function, bytes, sizeof(T)));
  }
  T result;
  std::memcpy(&result, value, sizeof(T));
  return result;
}

size_t SizeOf(cudaDataType_t type) {
  switch (type) {
    case CUDA_R_64F:
      return 8;
    case CUDA_R_32F:
      return 4;
    case CUDA_R_16F:
    case CUDA_R_16BF:
      return 2;
    case CUDA_R_8F_E4M3:
      return 1;
    default:
      Refuse(
          fmt::format("cublasLt: cudaDataType_t {}", static_cast<int>(type)));
  }
}

double Load(cudaDataType_t type, const void* from, int64_t i) {
  switch (type) {
    case CUDA_R_64F:
      return static_cast<const double*>(from)[i];
    case CUDA_R_32F:
      return static_cast<const float*>(from)[i];
    case CUDA_R_16F:
      return __half2float(static_cast<const __half*>(from)[i]);
    case CUDA_R_8F_E4M3:
      return __half2float(__half(__nv_cvt_fp8_to_halfraw(
          static_cast<const __nv_fp8_storage_t*>(from)[i], __NV_E4M3)));
    default:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(from)[i]);
  }
}

template <typename C>
void Store(cudaDataType_t type, C value, void* to, int64_t i) {
  switch (type) {
    case CUDA_R_64F:
      static_cast<double*>(to)[i] = value;
      break;
    case CUDA_R_32F:
      static_cast<float*>(to)[i] = static_cast<float>(value);
      break;
    case CUDA_R_16F:
      static_cast<__half*>(to)[i] = __float2half_rn(static_cast<float>(value));
      break;
    default:
      static_cast<__nv_bfloat16*>(to)[i] =
          __float2bfloat16_rn(static_cast<float>(value));
  }
}

// To nearest even, of finite numbers.
float RoundToTf32(float x) {
  constexpr uint32_t kDropped = 13;
  auto bits = std::bit_cast<uint32_t>(x);
  bits += (uint32_t{1} << (kDropped - 1)) - 1 + ((bits >> kDropped) & 1);
  return std::bit_cast<float>(bits >> kDropped << kDropped);
}

// The matrix op(x) of [rows, columns], by columns without gaps.
template <typename C>
std::vector<C> Dense(const Matmul& matmul, const Matrix& layout, const void* x,
                     int64_t offset, cublasOperation_t operation, int64_t rows,
                     int64_t columns) {
  std::vector<C> dense(static_cast<size_t>(rows * columns));
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at = operation == CUBLAS_OP_N ? j * layout.leading + i
                                                  : i * layout.leading + j;
      C& element = dense[j * rows + i];
      element = static_cast<C>(Load(layout.type, x, offset + at));
      if (matmul.compute == CUBLAS_COMPUTE_32F_FAST_TF32) {
        element = static_cast<C>(RoundToTf32(static_cast<float>(element)));
      }
    }
  }
  return dense;
}

// GELU's tanh form.
template <typename C>
C Gelu(C x) {
  const C u = C(0.7978845608028654) * (x + C(0.044715) * x * x * x);
  return C(0.5) * x * (C(1) + std::tanh(u));
}

template <typename C>
C GeluDerivative(C x) {
  const C t = std::tanh(C(0.7978845608028654) * (x + C(0.044715) * x * x * x));
  const C slope = C(0.7978845608028654) * (C(1) + C(0.134145) * x * x);
  return C(0.5) * (C(1) + t + x * (C(1) - t * t) * slope);
}

struct Product {
  Matmul matmul;
  Matrix a, b, c, d;
  double alpha, beta;
  const void *a_data, *b_data, *c_data;
  void* d_data;
};

template <typename C>
void Run(const Product& p) {
  const auto rows = static_cast<int64_t>(p.d.rows);
  const auto columns = static_cast<int64_t>(p.d.columns);
  const auto depth = static_cast<int64_t>(
      p.matmul.transpose_a == CUBLAS_OP_N ? p.a.columns : p.a.rows);
  const bool gelu = p.matmul.epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
  const bool derivative = p.matmul.epilogue == CUBLASLT_EPILOGUE_DGELU;
  const bool bias = p.matmul.has_bias();
  std::vector<C> sums(static_cast<size_t>(rows));
  for (int64_t i = 0; i < p.d.batch; ++i) {
    const std::vector<C> a = Dense<C>(p.matmul, p.a, p.a_data, i * p.a.stride,
                                      p.matmul.transpose_a, rows, depth);
    const std::vector<C> b = Dense<C>(p.matmul, p.b, p.b_data, i * p.b.stride,
                                      p.matmul.transpose_b, depth, columns);
    for (int64_t column = 0; column < columns; ++column) {
      if (p.matmul.epilogue == CUBLASLT_EPILOGUE_BGRADB) {
        C of_column = 0;
        for (int64_t k = 0; k < depth; ++k) of_column += b[column * depth + k];
        Store(p.d.type, of_column, const_cast<void*>(p.matmul.bias), column);
      }
      sums.assign(sums.size(), C(0));
      for (int64_t k = 0; k < depth; ++k) {
        const C factor = b[column * depth + k];
        for (int64_t row = 0; row < rows; ++row) {
          sums[row] += a[k * rows + row] * factor;
        }
      }
      for (int64_t row = 0; row < rows; ++row) {
        C value = static_cast<C>(p.alpha) * sums[row];
        if (p.matmul.row_scales()) {
          value *=
              static_cast<C>(static_cast<const float*>(p.matmul.a_scale)[row]);
          value *= static_cast<C>(
              static_cast<const float*>(p.matmul.b_scale)[column]);
        } else if (p.matmul.a_scale != nullptr) {
          value *= static_cast<C>(*static_cast<const float*>(p.matmul.a_scale));
          value *= static_cast<C>(*static_cast<const float*>(p.matmul.b_scale));
        }
        if (p.beta != 0) {
          value +=
              static_cast<C>(p.beta) *
              static_cast<C>(Load(p.c.type, p.c_data,
                                  i * p.c.stride + column * p.c.leading + row));
        }
        if (bias) {
          value += static_cast<C>(Load(p.d.type, p.matmul.bias, row));
        }
        if (gelu) value = Gelu(value);
        if (derivative) {
          value *= GeluDerivative(static_cast<C>(
              Load(p.d.type, p.matmul.x, column * p.matmul.x_leading + row)));
        }
        Store(p.d.type, value, p.d_data,
              i * p.d.stride + column * p.d.leading + row);
      }
    }
  }
}

// The bytes from the first to the last element.
size_t BytesOf(const Matrix& x) {
  const int64_t last = (x.batch - 1) * x.stride +
                       (static_cast<int64_t>(x.columns) - 1) * x.leading +
                       static_cast<int64_t>(x.rows);
  return static_cast<size_t>(last) * SizeOf(x.type);
}

double FactorOf(cudaDataType_t type, const void* factor) {
  return Load(type, factor, 0);
}

// What cublasLtMatmul's reference says of FP8: A transposed and B not, all
// sizes and leading dimensions but B's columns multiples of 16 bytes, results
// in bf16 or fp32, scales by rows or one scale for both or for none, and those
// by rows on compute capability 9 alone.
void CheckFloat8(const Matmul& matmul, const Matrix& a, const Matrix& b,
                 const Matrix& d) {
  const auto aligned = [](const Matrix& x) {
    const auto size = static_cast<int64_t>(SizeOf(x.type));
    return x.rows * static_cast<uint64_t>(size) % 16 == 0 &&
           x.leading * size % 16 == 0;
  };
  cudaDeviceProp properties;
  cudaGetDeviceProperties(&properties, 0);
  const int capability = 10 * properties.major + properties.minor;
  if (capability < 89 || (matmul.row_scales() && properties.major != 9)) {
    Refuse(fmt::format("cublasLt: FP8 {}on compute capability {}.{}",
                       matmul.row_scales() ? "with scales by rows " : "",
                       properties.major, properties.minor));
  }
  if (b.type != a.type || (d.type != CUDA_R_16BF && d.type != CUDA_R_32F) ||
      matmul.compute != CUBLAS_COMPUTE_32F || matmul.scale != CUDA_R_32F ||
      matmul.transpose_a != CUBLAS_OP_T || matmul.transpose_b != CUBLAS_OP_N ||
      a.batch != 1 || matmul.a_scale_mode != matmul.b_scale_mode ||
      (matmul.a_scale == nullptr) != (matmul.b_scale == nullptr) ||
      matmul.epilogue == CUBLASLT_EPILOGUE_GELU_BIAS || matmul.of_gradients() ||
      !aligned(a) || a.columns % 16 != 0 || !aligned(b) || !aligned(d)) {
    Refuse(fmt::format(
        "cublasLt: FP8 of {}x{} · {}x{} to type {}, operations {} and {}",
        a.rows, a.columns, b.rows, b.columns, static_cast<int>(d.type),
        static_cast<int>(matmul.transpose_a),
        static_cast<int>(matmul.transpose_b)));
  }
}

void CheckTypes(const Matmul& matmul, const Matrix& a, const Matrix& b,
                const Matrix& d) {
  const bool wide = a.type == CUDA_R_64F;
  if (a.type == CUDA_R_8F_E4M3) {
    CheckFloat8(matmul, a, b, d);
    return;
  }
  if (a.type != b.type || matmul.row_scales() || matmul.a_scale != nullptr ||
      (d.type != a.type && (wide || d.type != CUDA_R_32F)) ||
      (matmul.compute != (wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F) &&
       (matmul.compute != CUBLAS_COMPUTE_32F_FAST_TF32 ||
        a.type != CUDA_R_32F)) ||
      matmul.scale != (wide ? CUDA_R_64F : CUDA_R_32F)) {
    Refuse(fmt::format("cublasLt: types {} · {} to {}, compute {}, scale {}",
                       static_cast<int>(a.type), static_cast<int>(b.type),
                       static_cast<int>(d.type),
                       static_cast<int>(matmul.compute),
                       static_cast<int>(matmul.scale)));
  }
}

// What cublasLt.h says of the epilogues of gradients, in one matrix.
void CheckEpilogue(const Matmul& m, const Matrix& d) {
  if (!m.of_gradients()) return;
  if (d.batch != 1) Refuse("cublasLt: epilogues of gradients in a batch");
  if (m.epilogue == CUBLASLT_EPILOGUE_DGELU &&
      (m.x_leading % 8 != 0 || m.x_leading < static_cast<int64_t>(d.rows))) {
    Refuse(fmt::format("cublasLt: leading dimension {} of GELU's input",
                       m.x_leading));
  }
}

// The shapes of op(a)·op(b) = d.
void CheckShapes(const Matmul& m, const Matrix& a, const Matrix& b,
                 const Matrix& d) {
  const bool a_plain = m.transpose_a == CUBLAS_OP_N;
  const bool b_plain = m.transpose_b == CUBLAS_OP_N;
  if ((a_plain ? a.rows : a.columns) != d.rows ||
      (b_plain ? b.columns : b.rows) != d.columns ||
      (a_plain ? a.columns : a.rows) != (b_plain ? b.rows : b.columns) ||
      a.batch != d.batch || b.batch != d.batch) {
    Refuse("cublasLt: shapes do not match");
  }
  for (const Matrix* x : {&a, &b, &d}) {
    if (x->leading < static_cast<int64_t>(x->rows)) {
      Refuse(fmt::format("cublasLt: leading dimension {} of {} rows",
                         x->leading, x->rows));
    }
  }
}

}  // namespace
}  // namespace trireme::cuda_emulation

namespace emulation = trireme::cuda_emulation;
using emulation::Refuse;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  static char only;
  *handle = reinterpret_cast<cublasLtHandle_t>(&only);
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasLtGetStatusString(cublasStatus_t) { return "emulated"; }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* description,
                                        cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  *description = reinterpret_cast<cublasLtMatmulDesc_t>(
      new emulation::Matmul{.compute = compute, .scale = scale});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
  delete reinterpret_cast<emulation::Matmul*>(description);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(
    cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute,
    const void* value, size_t bytes) {
  constexpr const char* kName = "cublasLtMatmulDescSetAttribute";
  auto& matmul = *reinterpret_cast<emulation::Matmul*>(description);
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      matmul.transpose_a =
          emulation::ValueOf<cublasOperation_t>(kName, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_TRANSB:
      matmul.transpose_b =
          emulation::ValueOf<cublasOperation_t>(kName, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      matmul.epilogue =
          emulation::ValueOf<cublasLtEpilogue_t>(kName, value, bytes);
      if (matmul.epilogue != CUBLASLT_EPILOGUE_DEFAULT && !matmul.has_bias() &&
          !matmul.of_gradients()) {
        Refuse(fmt::format("{}: epilogue {}", kName,
                           static_cast<int>(matmul.epilogue)));
      }
      break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      matmul.bias = emulation::ValueOf<const void*>(kName, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
      matmul.x = emulation::ValueOf<const void*>(kName, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
      matmul.x_leading = emulation::ValueOf<int64_t>(kName, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
      matmul.a_scale = emulation::ValueOf<const void*>(kName, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
      matmul.b_scale = emulation::ValueOf<const void*>(kName, value, bytes);
      break;
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE: {
      const auto mode =
          emulation::ValueOf<cublasLtMatmulMatrixScale_t>(kName, value, bytes);
      if (mode != CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F) {
        Refuse(fmt::format("{}: scale mode {}", kName, static_cast<int>(mode)));
      }
      (attribute == CUBLASLT_MATMUL_DESC_A_SCALE_MODE ? matmul.a_scale_mode
                                                      : matmul.b_scale_mode) =
          mode;
      break;
    }
    default:
      Refuse(
          fmt::format("{}: attribute {}", kName, static_cast<int>(attribute)));
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout,
                                          cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(
      new emulation::Matrix{type, rows, columns, leading});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete reinterpret_cast<emulation::Matrix*>(layout);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(
    cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute,
    const void* value, size_t bytes) {
  constexpr const char* kName = "cublasLtMatrixLayoutSetAttribute";
  auto& matrix = *reinterpret_cast<emulation::Matrix*>(layout);
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      matrix.batch = emulation::ValueOf<int32_t>(kName, value, bytes);
      break;
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      matrix.stride = emulation::ValueOf<int64_t>(kName, value, bytes);
      break;
    default:
      Refuse(
          fmt::format("{}: attribute {}", kName, static_cast<int>(attribute)));
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(
    cublasLtMatmulPreference_t* preference) {
  *preference =
      reinterpret_cast<cublasLtMatmulPreference_t>(new emulation::Preferences);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(
    cublasLtMatmulPreference_t preference) {
  delete reinterpret_cast<emulation::Preferences*>(preference);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t preference,
    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
    size_t bytes) {
  constexpr const char* kName = "cublasLtMatmulPreferenceSetAttribute";
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      reinterpret_cast<emulation::Preferences*>(preference)->workspace_bytes =
          emulation::ValueOf<uint64_t>(kName, value, bytes);
      break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      if (emulation::ValueOf<uint32_t>(kName, value, bytes) &
          CUBLASLT_REDUCTION_SCHEME_INPLACE) {
        Refuse(fmt::format("{}: sums in place", kName));
      }
      break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      break;
    default:
      Refuse(
          fmt::format("{}: attribute {}", kName, static_cast<int>(attribute)));
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t, cublasLtMatmulDesc_t description,
    cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
    int requested, cublasLtMatmulHeuristicResult_t results[], int* found) {
  const auto& matmul = *reinterpret_cast<emulation::Matmul*>(description);
  const auto& d_matrix = *reinterpret_cast<emulation::Matrix*>(d);
  emulation::CheckTypes(matmul, *reinterpret_cast<emulation::Matrix*>(a),
                        *reinterpret_cast<emulation::Matrix*>(b), d_matrix);
  emulation::CheckShapes(matmul, *reinterpret_cast<emulation::Matrix*>(a),
                         *reinterpret_cast<emulation::Matrix*>(b), d_matrix);
  emulation::CheckEpilogue(matmul, d_matrix);
  // The real one has these for some types, of which nothing is promised: here
  // they are those of 16 bits.
  if (matmul.of_gradients() &&
      emulation::SizeOf(reinterpret_cast<emulation::Matrix*>(a)->type) != 2) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  *found = requested < 1 ? 0 : 1;
  if (*found == 0) return CUBLAS_STATUS_SUCCESS;
  results[0] = {};
  results[0].algo.data[0] = emulation::kAlgorithm;
  results[0].workspaceSize =
      reinterpret_cast<emulation::Preferences*>(preference)->workspace_bytes <
              emulation::kWorkspaceBytes
          ? 0
          : emulation::kWorkspaceBytes;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(
    cublasLtHandle_t, cublasLtMatmulDesc_t description, const void* alpha,
    const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
    cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
    cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
    const cublasLtMatmulAlgo_t* algorithm, void* workspace,
    size_t workspace_bytes, cudaStream_t stream) {
  constexpr const char* kName = "cublasLtMatmul";
  if (algorithm == nullptr || algorithm->data[0] != emulation::kAlgorithm) {
    Refuse(fmt::format("{}: an algorithm that no heuristic gave", kName));
  }
  const auto& matmul = *reinterpret_cast<emulation::Matmul*>(description);
  emulation::Product p = {.matmul = matmul,
                          .a = *reinterpret_cast<emulation::Matrix*>(a_layout),
                          .b = *reinterpret_cast<emulation::Matrix*>(b_layout),
                          .c = *reinterpret_cast<emulation::Matrix*>(c_layout),
                          .d = *reinterpret_cast<emulation::Matrix*>(d_layout),
                          .alpha = emulation::FactorOf(matmul.scale, alpha),
                          .beta = emulation::FactorOf(matmul.scale, beta),
                          .a_data = a,
                          .b_data = b,
                          .c_data = c,
                          .d_data = d};
  emulation::CheckTypes(matmul, p.a, p.b, p.d);
  emulation::CheckShapes(matmul, p.a, p.b, p.d);
  emulation::CheckEpilogue(matmul, p.d);
  emulation::CheckOnDevice(kName, a, emulation::BytesOf(p.a));
  emulation::CheckOnDevice(kName, b, emulation::BytesOf(p.b));
  emulation::CheckOnDevice(kName, c, emulation::BytesOf(p.c));
  emulation::CheckOnDevice(kName, d, emulation::BytesOf(p.d));
  if (matmul.has_bias()) {
    emulation::CheckOnDevice(kName, matmul.bias,
                             p.d.rows * emulation::SizeOf(p.d.type));
  } else if (matmul.epilogue == CUBLASLT_EPILOGUE_BGRADB) {
    emulation::CheckOnDevice(kName, matmul.bias,
                             p.d.columns * emulation::SizeOf(p.d.type));
  } else if (matmul.epilogue == CUBLASLT_EPILOGUE_DGELU) {
    emulation::Matrix x = p.d;
    x.leading = matmul.x_leading;
    emulation::CheckOnDevice(kName, matmul.x, emulation::BytesOf(x));
  }
  if (matmul.row_scales()) {
    for (const void* scales : {matmul.a_scale, matmul.b_scale}) {
      if (reinterpret_cast<uintptr_t>(scales) % 16 != 0) {
        Refuse(fmt::format("{}: scales at no multiple of 16 bytes", kName));
      }
    }
    emulation::CheckOnDevice(kName, matmul.a_scale, p.d.rows * sizeof(float));
    emulation::CheckOnDevice(kName, matmul.b_scale,
                             p.d.columns * sizeof(float));
  } else if (matmul.a_scale != nullptr) {
    emulation::CheckOnDevice(kName, matmul.a_scale, sizeof(float));
    emulation::CheckOnDevice(kName, matmul.b_scale, sizeof(float));
  }
  if (workspace_bytes > 0) {
    emulation::CheckOnDevice(kName, workspace, workspace_bytes);
  }
  emulation::Enqueue(stream, [p, workspace, workspace_bytes] {
    if (workspace_bytes > 0) std::memset(workspace, 0xFF, workspace_bytes);
    if (p.matmul.compute == CUBLAS_COMPUTE_64F) {
      emulation::Run<double>(p);
    } else {
      emulation::Run<float>(p);
    }
  });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
