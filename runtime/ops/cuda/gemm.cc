// Matrix products by cuBLASLt. It knows matrices by columns, so the transposed
// product is asked for: outᵀ[n, m] = bᵀ[n, k]·aᵀ[k, m].
//
// Products of FP8 codes, in bf16, are those of its tensor cores where it takes
// the shape: rows of codes and of results are multiples of 16 bytes. It applies
// one scale of each operand itself, and scales by rows on GPUs of compute
// capability 9 alone, elsewhere a pass of ours does. Other products of codes
// are of what these stand for.
//
// What comes with a product (bias, GELU, GELU's derivative, the sums that are a
// bias's gradient) is part of it where cuBLASLt says that it has an algorithm
// for that, else a pass of ours. Its GELU is the tanh form.

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>

#include "absl/hash/hash.h"
#include "runtime/core/log.h"
#include "runtime/device/cuda/cuda_stream.h"
#include "runtime/ops/cuda/families.h"
#include "runtime/ops/cuda/gemm_epilogue.h"

namespace trireme {
namespace {

// The most that one product may use.
constexpr uint64_t kMaxWorkspace = uint64_t{32} << 20;
// What the arena promises of addresses.
constexpr uint32_t kFullAlignment = 16;

void Check(cublasStatus_t status, const char* what) {
  CHECK(status == CUBLAS_STATUS_SUCCESS)
      << what << ": " << cublasLtGetStatusString(status);
}

// Whether cuBLASLt multiplies the codes.
bool MultipliesCodes(const GemmSpec& spec) {
  return spec.float8 && spec.dtype == DType::kBFloat16 &&
         spec.k % kFullAlignment == 0 && spec.n % kFullAlignment == 0;
}

// Whether cuBLASLt has scales by rows on the GPU of this thread.
bool HasRowScales() {
  int gpu = 0;
  cudaDeviceProp properties{};
  if (cudaGetDevice(&gpu) != cudaSuccess ||
      cudaGetDeviceProperties(&properties, gpu) != cudaSuccess) {
    // A dry run on a machine without one: nothing is multiplied.
    (void)cudaGetLastError();
    return false;
  }
  return properties.major == 9;
}

cudaDataType_t TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return CUDA_R_16BF;
    case DType::kFloat16:
      return CUDA_R_16F;
    case DType::kFloat64:
      return CUDA_R_64F;
    default:
      CHECK(dtype == DType::kFloat32) << dtype;
      return CUDA_R_32F;
  }
}

cudaDataType_t OperandType(const GemmSpec& spec) {
  return spec.float8 ? CUDA_R_8F_E4M3 : TypeOf(spec.dtype);
}

// An object of cuBLASLt.
template <typename T, cublasStatus_t (*kDestroy)(T)>
class Owned {
 public:
  Owned() = default;
  ~Owned() {
    if (object_ != nullptr) kDestroy(object_);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;

  T* address() { return &object_; }
  T get() const { return object_; }

 private:
  T object_ = nullptr;
};

using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference =
    Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <typename T>
void Set(const Description& description, cublasLtMatmulDescAttributes_t what,
         T value) {
  Check(cublasLtMatmulDescSetAttribute(description.get(), what, &value,
                                       sizeof(value)),
        "cublasLtMatmulDescSetAttribute");
}
template <typename T>
void Set(const Layout& layout, cublasLtMatrixLayoutAttribute_t what, T value) {
  Check(cublasLtMatrixLayoutSetAttribute(layout.get(), what, &value,
                                         sizeof(value)),
        "cublasLtMatrixLayoutSetAttribute");
}
template <typename T>
void Set(const Preference& preference,
         cublasLtMatmulPreferenceAttributes_t what, T value) {
  Check(cublasLtMatmulPreferenceSetAttribute(preference.get(), what, &value,
                                             sizeof(value)),
        "cublasLtMatmulPreferenceSetAttribute");
}

// An operand [rows, columns] of ours is, by columns, the matrix [columns, rows]
// or, where successive elements go down its columns, [rows, columns].
struct Operand {
  cublasOperation_t operation = CUBLAS_OP_N;
  Layout layout;

  Operand(cudaDataType_t type, int64_t rows, int64_t columns,
          const MatrixStrides& strides, int64_t batch) {
    const bool by_rows = strides.column == 1;
    CHECK(by_rows || strides.row == 1);
    operation = by_rows ? CUBLAS_OP_N : CUBLAS_OP_T;
    const int64_t inner = by_rows ? columns : rows;
    const int64_t outer = by_rows ? rows : columns;
    // A stride that nothing is reached by may be anything.
    const int64_t leading =
        std::max(by_rows ? strides.row : strides.column, inner);
    Check(cublasLtMatrixLayoutCreate(layout.address(), type,
                                     static_cast<uint64_t>(inner),
                                     static_cast<uint64_t>(outer), leading),
          "cublasLtMatrixLayoutCreate");
    if (batch > 1) {
      Set(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
          static_cast<int32_t>(batch));
      Set(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, strides.batch);
    }
  }
};

uint32_t AlignmentOf(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address) | kFullAlignment;
  return uint32_t{1} << std::countr_zero(bits);
}

// The algorithm depends on the addresses' alignment, too.
struct Problem {
  GemmSpec spec;
  uint32_t a = kFullAlignment;
  uint32_t b = kFullAlignment;
  uint32_t out = kFullAlignment;
  uint32_t bias = kFullAlignment;
  uint32_t x = kFullAlignment;
  bool tf32 = false;

  bool operator==(const Problem&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const Problem& p) {
    return H::combine(std::move(h), p.spec, p.a, p.b, p.out, p.bias, p.x,
                      p.tf32);
  }
};

// A product made ready once for each problem.
class Product {
 public:
  // `aligned`: the same of the best addresses, whose workspace is what there
  // will be; null if this is it.
  Product(cublasLtHandle_t handle, const Problem& problem,
          const Product* aligned)
      : handle_(handle),
        wide_(problem.spec.dtype == DType::kFloat64),
        tf32_(problem.tf32),
        accumulate_(problem.spec.accumulate),
        row_scales_(problem.spec.float8 && !problem.spec.one_scale &&
                    HasRowScales()),
        scales_(row_scales_ || (problem.spec.float8 && problem.spec.one_scale)),
        left_(OperandType(problem.spec), problem.spec.k, problem.spec.n,
              problem.spec.b, problem.spec.batch),
        right_(OperandType(problem.spec), problem.spec.m, problem.spec.k,
               problem.spec.a, problem.spec.batch),
        out_(TypeOf(problem.spec.out_dtype), problem.spec.m, problem.spec.n,
             problem.spec.out, problem.spec.batch),
        rest_(RestOf(problem.spec, scales_)) {
    if (aligned != nullptr && aligned->rest_.row_sums) {
      rest_.row_sums = problem.spec.row_sums;
    }
    const uint64_t most_workspace =
        aligned == nullptr ? kMaxWorkspace : aligned->workspace_bytes_;
    Describe(problem);
    if (!ChooseAlgorithm(problem, most_workspace)) {
      CHECK_NE(epilogue_, CUBLASLT_EPILOGUE_DEFAULT)
          << "cuBLASLt has no algorithm for m " << problem.spec.m << " n "
          << problem.spec.n << " k " << problem.spec.k << " of "
          << problem.spec.dtype;
      // It may have the product without what comes with it.
      rest_ = problem.spec;
      rest_.float8 = problem.spec.float8 && !scales_;
      Describe(problem);
      CHECK(ChooseAlgorithm(problem, most_workspace))
          << "cuBLASLt has no algorithm for m " << problem.spec.m << " n "
          << problem.spec.n << " k " << problem.spec.k << " of "
          << problem.spec.dtype;
    }
    if (epilogue_ == CUBLASLT_EPILOGUE_BGRADB) {
      sums_bytes_ = problem.spec.m * DTypeSize(problem.spec.out_dtype);
    }
  }

  int64_t workspace_bytes() const { return sums_at() + sums_bytes_; }
  // What is still to do.
  const GemmSpec& rest() const { return rest_; }

  void Run(Stream& stream, const GemmOperands& o) {
    void* const sums = static_cast<std::byte*>(o.workspace) + sums_at();
    SetEpilogueOperands(sums_bytes_ > 0 ? sums : o.bias, o.x);
    if (scales_) SetScales(o.a_scales, o.b_scales);
    const double factors[] = {1, accumulate_ ? 1.0 : 0.0};
    const float narrow[] = {1, accumulate_ ? 1.0f : 0.0f};
    const auto factor = [&](int i) -> const void* {
      return wide_ ? static_cast<const void*>(&factors[i]) : &narrow[i];
    };
    Check(cublasLtMatmul(handle_, description_->get(), factor(0), o.b,
                         left_.layout.get(), o.a, right_.layout.get(),
                         factor(1), o.out, out_.layout.get(), o.out,
                         out_.layout.get(), &algorithm_, o.workspace,
                         workspace_bytes_, Handle(stream)),
          "cublasLtMatmul");
    if (sums_bytes_ > 0) {
      // cuBLASLt does not add to what is there.
      const DType dtype = rest_.out_dtype;
      CudaPointwise().add_in_place(stream, dtype, dtype, rest_.m, 1.0, sums,
                                   o.row_sums);
    }
  }

 private:
  // A bias comes after all scales.
  static GemmSpec RestOf(const GemmSpec& spec, bool applies_scales) {
    GemmSpec rest = spec;
    rest.float8 = spec.float8 && !applies_scales;
    if (!rest.float8 && HasFusedEpilogue(spec)) {
      rest.bias = rest.row_sums = false;
      rest.activation = rest.derivative = Activation::kNone;
    }
    return rest;
  }

  // What of the spec is not left.
  static cublasLtEpilogue_t EpilogueOf(const GemmSpec& spec,
                                       const GemmSpec& rest) {
    if (spec.derivative != rest.derivative) return CUBLASLT_EPILOGUE_DGELU;
    if (spec.row_sums != rest.row_sums) return CUBLASLT_EPILOGUE_BGRADB;
    if (spec.bias == rest.bias) return CUBLASLT_EPILOGUE_DEFAULT;
    return spec.activation == Activation::kGeluTanh
               ? CUBLASLT_EPILOGUE_GELU_BIAS
               : CUBLASLT_EPILOGUE_BIAS;
  }

  // The product with what rest_ leaves to cuBLASLt.
  void Describe(const Problem& problem) {
    epilogue_ = EpilogueOf(problem.spec, rest_);
    description_.emplace();
    Check(cublasLtMatmulDescCreate(description_->address(),
                                   wide_   ? CUBLAS_COMPUTE_64F
                                   : tf32_ ? CUBLAS_COMPUTE_32F_FAST_TF32
                                           : CUBLAS_COMPUTE_32F,
                                   wide_ ? CUDA_R_64F : CUDA_R_32F),
          "cublasLtMatmulDescCreate");
    Set(*description_, CUBLASLT_MATMUL_DESC_TRANSA, left_.operation);
    Set(*description_, CUBLASLT_MATMUL_DESC_TRANSB, right_.operation);
    Set(*description_, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_);
    if (epilogue_ == CUBLASLT_EPILOGUE_DGELU) {
      Set(*description_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, problem.spec.n);
    }
    // The choice heeds the alignment of these addresses.
    const auto aligned = [](uint32_t alignment) {
      return reinterpret_cast<const void*>(uintptr_t{alignment});
    };
    SetEpilogueOperands(aligned(problem.bias), aligned(problem.x));
    if (row_scales_) {
      for (const auto mode : {CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
                              CUBLASLT_MATMUL_DESC_B_SCALE_MODE}) {
        Set(*description_, mode, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
      }
    }
    if (scales_) SetScales(aligned(kFullAlignment), aligned(kFullAlignment));
  }

  void SetEpilogueOperands(const void* bias_or_sums, const void* x) {
    if (epilogue_ == CUBLASLT_EPILOGUE_DEFAULT) return;
    if (epilogue_ == CUBLASLT_EPILOGUE_DGELU) {
      Set(*description_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, x);
    } else {
      Set(*description_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_or_sums);
    }
  }

  void SetScales(const void* of_a, const void* of_b) {
    Set(*description_, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, of_b);
    Set(*description_, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, of_a);
  }

  // No algorithm that splits sums and adds the parts in place: their order
  // would not be fixed. False if there is none.
  bool ChooseAlgorithm(const Problem& problem, uint64_t most_workspace) {
    Preference preference;
    Check(cublasLtMatmulPreferenceCreate(preference.address()),
          "cublasLtMatmulPreferenceCreate");
    Set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, most_workspace);
    Set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, problem.b);
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, problem.a);
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, problem.out);
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, problem.out);
    cublasLtMatmulHeuristicResult_t result = {};
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_, description_->get(), left_.layout.get(), right_.layout.get(),
        out_.layout.get(), out_.layout.get(), preference.get(), 1, &result,
        &found);
    if (epilogue_ != CUBLASLT_EPILOGUE_DEFAULT &&
        (status == CUBLAS_STATUS_NOT_SUPPORTED ||
         status == CUBLAS_STATUS_INVALID_VALUE)) {
      return false;
    }
    Check(status, "cublasLtMatmulAlgoGetHeuristic");
    if (found == 0) return false;
    algorithm_ = result.algo;
    workspace_bytes_ = result.workspaceSize;
    return true;
  }

  // In the workspace, behind cuBLASLt's.
  int64_t sums_at() const {
    constexpr int64_t kAlignment = 64;
    return (static_cast<int64_t>(workspace_bytes_) + kAlignment - 1) /
           kAlignment * kAlignment;
  }

  const cublasLtHandle_t handle_;
  const bool wide_;
  const bool tf32_;
  const bool accumulate_;
  // By cuBLASLt: of rows; any.
  const bool row_scales_;
  const bool scales_;
  const Operand left_, right_, out_;
  GemmSpec rest_;
  cublasLtEpilogue_t epilogue_ = CUBLASLT_EPILOGUE_DEFAULT;
  std::optional<Description> description_;
  cublasLtMatmulAlgo_t algorithm_ = {};
  uint64_t workspace_bytes_ = 0;
  int64_t sums_bytes_ = 0;
};

// Problems seen so far: a job has some tens.
class Products {
 public:
  Products() { Check(cublasLtCreate(&handle_), "cublasLtCreate"); }

  // Thread-safe.
  template <typename F>
  auto With(const Problem& problem, F&& f) {
    std::lock_guard<std::mutex> lock(mutex_);
    return f(Find(problem));
  }

 private:
  Product& Find(const Problem& problem) {
    std::unique_ptr<Product>& product = products_[problem];
    if (product == nullptr) {
      const Problem aligned = {.spec = problem.spec, .tf32 = problem.tf32};
      product = std::make_unique<Product>(
          handle_, problem, problem == aligned ? nullptr : &Find(aligned));
    }
    return *product;
  }

  cublasLtHandle_t handle_ = nullptr;
  std::mutex mutex_;
  std::unordered_map<Problem, std::unique_ptr<Product>, absl::Hash<Problem>>
      products_;
};

Products& AllProducts() {
  // Never destroyed: the library's own statics may already be gone at exit.
  static Products& products = *new Products;
  return products;
}

// Whether products of the spec round to TF32 where that is asked for.
bool RoundsTo(bool tf32, const GemmSpec& spec) {
  return tf32 && spec.dtype == DType::kFloat32;
}

bool HasCodes(const GemmSpec& spec) {
  return spec.b_codes.format != WeightFormat::kFull;
}

// cuBLASLt has no product of values by codes of these: what they stand for
// comes into workspace first, all of it.
GemmSpec WithValuesOfB(GemmSpec spec) {
  spec.b_codes = {};
  return spec;
}

int64_t ValueBytesOfB(const GemmSpec& spec) {
  constexpr int64_t kAlignment = 64;
  return (spec.n * spec.k * DTypeSize(spec.dtype) + kAlignment - 1) /
         kAlignment * kAlignment;
}

template <bool kTf32>
int64_t WorkspaceBytes(const GemmSpec& spec) {
  if (HasCodes(spec)) {
    return ValueBytesOfB(spec) + WorkspaceBytes<kTf32>(WithValuesOfB(spec));
  }
  if (spec.float8 && !MultipliesCodes(spec)) {
    const ProductOfValues of_values(spec);
    return of_values.workspace_at + WorkspaceBytes<kTf32>(of_values.product);
  }
  const Problem problem = {.spec = spec, .tf32 = RoundsTo(kTf32, spec)};
  return AllProducts().With(
      problem, [](Product& product) { return product.workspace_bytes(); });
}

template <bool kTf32>
void Run(Stream& stream, const GemmSpec& spec, const GemmOperands& operands);

template <bool kTf32>
void RunOfValues(Stream& stream, const GemmSpec& spec,
                 const GemmOperands& operands) {
  const ProductOfValues of_values(spec);
  auto* const workspace = static_cast<std::byte*>(operands.workspace);
  std::byte* const b = workspace + of_values.b_at;
  const QuantizationKernels kernels = CudaQuantization();
  kernels.dequantize(stream, Float8Codes(spec.m, spec.k, spec.one_scale),
                     operands.a, operands.a_scales, spec.dtype, workspace);
  kernels.dequantize(stream, Float8Codes(spec.n, spec.k, spec.one_scale),
                     operands.b, operands.b_scales, spec.dtype, b);
  Run<kTf32>(stream, of_values.product,
             {.a = workspace,
              .b = b,
              .bias = operands.bias,
              .out = operands.out,
              .workspace = workspace + of_values.workspace_at});
}

template <bool kTf32>
void RunWithValuesOfB(Stream& stream, const GemmSpec& spec,
                      const GemmOperands& operands) {
  auto* const workspace = static_cast<std::byte*>(operands.workspace);
  CudaQuantization().dequantize(stream, spec.b_codes, operands.b,
                                operands.b_scales, spec.dtype, workspace);
  GemmOperands of_values = operands;
  of_values.b = workspace;
  of_values.b_scales = nullptr;
  of_values.workspace = workspace + ValueBytesOfB(spec);
  Run<kTf32>(stream, WithValuesOfB(spec), of_values);
}

template <bool kTf32>
void Run(Stream& stream, const GemmSpec& spec, const GemmOperands& operands) {
  if (HasCodes(spec)) {
    RunWithValuesOfB<kTf32>(stream, spec, operands);
    return;
  }
  if (spec.float8 && !MultipliesCodes(spec)) {
    RunOfValues<kTf32>(stream, spec, operands);
    return;
  }
  const Problem problem = {.spec = spec,
                           .a = AlignmentOf(operands.a),
                           .b = AlignmentOf(operands.b),
                           .out = AlignmentOf(operands.out),
                           .bias = AlignmentOf(operands.bias),
                           .x = AlignmentOf(operands.x),
                           .tf32 = RoundsTo(kTf32, spec)};
  const GemmSpec rest = AllProducts().With(problem, [&](Product& product) {
    product.Run(stream, operands);
    return product.rest();
  });
  ApplyEpilogue(stream, rest, operands);
  if (rest.derivative != Activation::kNone) {
    CudaPointwise().activation_backward(stream, rest.dtype, rest.derivative,
                                        rest.m * rest.n, operands.x,
                                        operands.out, operands.out);
  }
  if (rest.row_sums) {
    CudaReductions().add_column_sums(stream, rest.dtype, rest.k, rest.m,
                                     operands.a, operands.row_sums);
  }
}

}  // namespace

GemmKernels CudaGemm(bool tf32) {
  return tf32 ? GemmKernels{.workspace_bytes = WorkspaceBytes<true>,
                            .run = Run<true>}
              : GemmKernels{.workspace_bytes = WorkspaceBytes<false>,
                            .run = Run<false>};
}

}  // namespace trireme
