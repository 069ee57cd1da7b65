#include "runtime/ops/cpu/gemm_fp64.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace trireme {
namespace {

double Activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGeluTanh:
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / std::numbers::pi) *
                            (x + 0.044715 * x * x * x)));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::numbers::sqrt2);
    case Activation::kRelu:
      return std::max(x, 0.0);
  }
  return x;
}

class Fp64Gemm final : public Gemm {
 public:
  explicit Fp64Gemm(const CpuGemmSpec& spec) : spec_(spec) {}

  int64_t workspace_bytes() const override { return 0; }

  void Run(const void* a, const void* b, const void* bias, void* out,
           void*) const override {
    const CpuGemmSpec& s = spec_;
    for (int64_t i = 0; i < s.batch; ++i) {
      double* to = static_cast<double*>(out) + i * s.out.batch;
      Multiply(static_cast<const double*>(a) + i * s.a.batch,
               static_cast<const double*>(b) + i * s.b.batch, to);
      if (!s.bias && s.activation == Activation::kNone) continue;
      for (int64_t row = 0; row < s.m; ++row) {
        for (int64_t column = 0; column < s.n; ++column) {
          double& x = to[row * s.out.row + column];
          if (s.bias) x += static_cast<const double*>(bias)[column];
          x = Activate(s.activation, x);
        }
      }
    }
  }

 private:
  void Multiply(const double* a, const double* b, double* out) const {
    const CpuGemmSpec& s = spec_;
    const bool transpose_a = s.a.column != 1;
    const bool transpose_b = s.b.column != 1;
    // A single row (column) may have any stride; BLAS wants a plausible one.
    const int64_t lda =
        std::max(transpose_a ? s.a.column : s.a.row, transpose_a ? s.m : s.k);
    const int64_t ldb =
        std::max(transpose_b ? s.b.column : s.b.row, transpose_b ? s.k : s.n);
    cblas_dgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                transpose_b ? CblasTrans : CblasNoTrans, s.m, s.n, s.k, 1.0, a,
                lda, b, ldb, s.accumulate ? 1.0 : 0.0, out,
                std::max(s.out.row, s.n));
  }

  const CpuGemmSpec spec_;
};

}  // namespace

std::unique_ptr<Gemm> MakeFp64Gemm(const CpuGemmSpec& spec) {
  // OpenBLAS has threads of its own, beside OpenMP's: keep it to the caller's.
  static const bool single_threaded = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  (void)single_threaded;
  return std::make_unique<Fp64Gemm>(spec);
}

}  // namespace trireme
