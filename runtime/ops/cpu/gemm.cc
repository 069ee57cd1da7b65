#include "runtime/ops/cpu/gemm.h"

#include <omp.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "absl/hash/hash.h"
#include "fmt/format.h"
#include "runtime/core/log.h"
#include "runtime/ops/cpu/amx_gemm.h"
#include "runtime/ops/cpu/bfloat16_gemm.h"
#include "runtime/ops/cpu/gemm_fp64.h"
#include "runtime/ops/cpu/onednn_gemm.h"

namespace trireme {
namespace {

// Problems seen so far. A job has some tens of them; variable lengths make
// more, of which those that were not asked for the longest are dropped.
class GemmCache {
 public:
  std::shared_ptr<const Gemm> Get(const CpuGemmSpec& spec) {
    std::lock_guard<std::mutex> lock(mutex_);
    Entry& entry = entries_[spec];
    entry.last_use = ++uses_;
    if (entry.gemm != nullptr) return entry.gemm;
    entry.gemm = Make(spec);
    std::shared_ptr<const Gemm> gemm = entry.gemm;
    if (static_cast<int64_t>(entries_.size()) > kMaxPreparedGemms) DropOldest();
    return gemm;
  }

 private:
  struct Entry {
    std::shared_ptr<const Gemm> gemm;
    int64_t last_use = 0;
  };

  static std::shared_ptr<const Gemm> Make(const CpuGemmSpec& spec) {
    std::unique_ptr<Gemm> gemm;
    if (IsFasterByAmx(spec)) gemm = MakeAmxGemm(spec);
    if (gemm == nullptr) gemm = MakeBFloat16Gemm(spec);
    if (gemm != nullptr) return gemm;
    return spec.dtype == DType::kFloat64 ? MakeFp64Gemm(spec)
                                         : MakeOneDnnGemm(spec);
  }

  void DropOldest() {
    entries_.erase(std::min_element(
        entries_.begin(), entries_.end(), [](const auto& a, const auto& b) {
          return a.second.last_use < b.second.last_use;
        }));
  }

  std::mutex mutex_;
  std::unordered_map<CpuGemmSpec, Entry, absl::Hash<CpuGemmSpec>> entries_;
  int64_t uses_ = 0;
};

std::string StridesText(const MatrixStrides& s) {
  return fmt::format("({}, {}, {})", s.batch, s.row, s.column);
}

}  // namespace

std::string CpuGemmSpec::ToString() const {
  return fmt::format(
      "gemm batch {} m {} n {} k {}, {} to {}, strides a {} b {} out {}, bias "
      "{}, activation {}, accumulate {}, threads {}",
      batch, m, n, k, DTypeName(dtype), DTypeName(out_dtype), StridesText(a),
      StridesText(b), StridesText(out), bias, static_cast<int>(activation),
      accumulate, threads);
}

std::shared_ptr<const Gemm> PreparedGemm(const CpuGemmSpec& spec) {
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
