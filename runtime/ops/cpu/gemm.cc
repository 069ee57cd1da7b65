#include "runtime/ops/cpu/gemm.h"

#include <omp.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "absl/hash/hash.h"
#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/ops/cpu/bfloat16_gemm.h"
#include "runtime/ops/cpu/gemm_fp64.h"
#include "runtime/ops/cpu/onednn_gemm.h"

namespace trireme {
namespace {

// Problems seen so far. A job has some tens of them; none is ever dropped.
class GemmCache {
 public:
  const Gemm& Get(const GemmSpec& spec) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::unique_ptr<Gemm>& gemm = gemms_[spec];
    if (gemm == nullptr) gemm = MakeBFloat16Gemm(spec);
    if (gemm == nullptr) {
      gemm = spec.dtype == DType::kFloat64 ? MakeFp64Gemm(spec)
                                           : MakeOneDnnGemm(spec);
    }
    return *gemm;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<GemmSpec, std::unique_ptr<Gemm>, absl::Hash<GemmSpec>>
      gemms_;
};

std::string StridesText(const MatrixStrides& s) {
  return fmt::format("({}, {}, {})", s.batch, s.row, s.column);
}

}  // namespace

std::string GemmSpec::ToString() const {
  return fmt::format(
      "gemm batch {} m {} n {} k {}, {} to {}, strides a {} b {} out {}, bias "
      "{}, activation {}, accumulate {}, threads {}",
      batch, m, n, k, DTypeName(dtype), DTypeName(out_dtype), StridesText(a),
      StridesText(b), StridesText(out), bias, static_cast<int>(activation),
      accumulate, threads);
}

const Gemm& PreparedGemm(const GemmSpec& spec) {
  CHECK(spec.batch > 0 && spec.m > 0 && spec.n > 0 && spec.k > 0)
      << spec.ToString();
  CHECK(IsFloating(spec.dtype)) << spec.ToString();
  CHECK(spec.out_dtype == spec.dtype ||
        (IsHalf(spec.dtype) && spec.out_dtype == DType::kFloat32))
      << spec.ToString();
  CHECK(!spec.accumulate ||
        (!spec.bias && spec.activation == Activation::kNone &&
         !IsHalf(spec.out_dtype)))
      << spec.ToString();
  CHECK_EQ(spec.out.column, 1);
  // Never destroyed: oneDNN's own statics may already be gone at exit.
  static GemmCache& cache = *new GemmCache;
  return cache.Get(spec);
}

// omp_get_max_threads() does not know of OMP_THREAD_LIMIT, and oneDNN leaves
// out the part of a product that was meant for threads it does not get.
int AvailableThreads() {
  return omp_in_parallel()
             ? 1
             : std::min(omp_get_max_threads(), omp_get_thread_limit());
}

}  // namespace trireme
