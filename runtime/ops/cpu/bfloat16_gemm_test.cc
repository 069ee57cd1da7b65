// Both kernels for bf16 products against sums in fp64. Jobs meet only one of
// them on a given processor, and the large shapes that take its special ways
// are too slow for tests of whole models.

#include "runtime/ops/cpu/bfloat16_gemm.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/cpu/bfloat16_dot.h"
#include "runtime/ops/cpu/onednn_gemm.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

CpuGemmSpec Spec(int64_t m, int64_t n, int64_t k) {
  CpuGemmSpec spec;
  spec.m = m;
  spec.n = n;
  spec.k = k;
  spec.a = {m * k, k, 1};
  spec.b = {k * n, n, 1};
  spec.out = {m * n, n, 1};
  spec.dtype = DType::kBFloat16;
  spec.out_dtype = DType::kBFloat16;
  return spec;
}

CpuGemmSpec WithColumnsOfA(CpuGemmSpec spec) {
  spec.a = {spec.m * spec.k, 1, spec.m};
  return spec;
}
CpuGemmSpec WithColumnsOfB(CpuGemmSpec spec) {
  spec.b = {spec.k * spec.n, 1, spec.k};
  return spec;
}
CpuGemmSpec Unrounded(CpuGemmSpec spec) {
  spec.out_dtype = DType::kFloat32;
  return spec;
}
CpuGemmSpec Accumulating(CpuGemmSpec spec) {
  spec.accumulate = true;
  return Unrounded(spec);
}
CpuGemmSpec WithBias(CpuGemmSpec spec) {
  spec.bias = true;
  return spec;
}
CpuGemmSpec Batched(CpuGemmSpec spec, int64_t batch) {
  spec.batch = batch;
  return spec;
}
// Rows of the result within longer rows, like heads.
CpuGemmSpec IntoWiderRows(CpuGemmSpec spec) {
  spec.out.row += 24;
  spec.out.batch = spec.m * spec.out.row;
  return spec;
}

std::vector<CpuGemmSpec> Products() {
  std::vector<CpuGemmSpec> specs;
  // Whole tiles; parts of tiles, of vectors, of groups of rows and of pairs of
  // vectors; a single row, column, pair.
  for (const auto& [m, n, k] :
       std::vector<std::array<int64_t, 3>>{{64, 48, 64},
                                           {65, 49, 66},
                                           {7, 16, 2},
                                           {1, 1, 4},
                                           {130, 97, 34},
                                           {200, 33, 130},
                                           {3, 80, 18}}) {
    const CpuGemmSpec spec = Spec(m, n, k);
    for (const CpuGemmSpec& layout :
         {spec, WithColumnsOfB(spec), WithColumnsOfA(spec)}) {
      specs.push_back(WithBias(layout));
      specs.push_back(Accumulating(layout));
      specs.push_back(Batched(IntoWiderRows(layout), 3));
    }
  }
  // Longer sums than one block of terms, wider results than one block of b, and
  // enough work for oneDNN to be given b packed.
  specs.push_back(Accumulating(WithColumnsOfA(Spec(72, 1100, 2050))));
  specs.push_back(Unrounded(Spec(24, 50, 2050)));
  specs.push_back(WithBias(Spec(24, 1100, 1100)));
  specs.push_back(WithBias(WithColumnsOfB(Spec(520, 520, 520))));
  specs.push_back(Spec(520, 520, 520));
  return specs;
}

using MakeGemm = std::unique_ptr<Gemm> (*)(const CpuGemmSpec&);

class BFloat16Products : public testing::Test {
 protected:
  // What the kernels make of random operands, on one thread and on three.
  void ExpectRight(MakeGemm make, CpuGemmSpec spec) {
    SCOPED_TRACE(spec.ToString());
    const Tensor a = RandomTensor(device_, {spec.batch * spec.m * spec.k},
                                  DType::kBFloat16, 1);
    const Tensor b = RandomTensor(device_, {spec.batch * spec.k * spec.n},
                                  DType::kBFloat16, 2);
    const Tensor bias = RandomTensor(device_, {spec.n}, DType::kBFloat16, 3);
    const auto before = [&] {
      return RandomTensor(device_, {spec.batch * spec.out.batch},
                          spec.out_dtype, 4);
    };
    const std::vector<double> expected = Expected(
        spec, Doubles(a), Doubles(b), Doubles(bias), Doubles(before()));
    // Terms are of the order of 1; the longest sums pass 100 on their way, and
    // round two thousand times.
    const double rounding =
        spec.out_dtype == DType::kBFloat16 ? 0x1p-8 : 0x1p-12;
    for (const int threads : {1, std::min(3, omp_get_thread_limit())}) {
      spec.threads = threads;
      const std::unique_ptr<Gemm> gemm = make(spec);
      ASSERT_NE(gemm, nullptr);
      const Tensor workspace = Tensor::Empty(
          device_, {std::max<int64_t>(1, gemm->workspace_bytes())},
          DType::kBool, MemoryCategory::kWorkspace, "workspace");
      const Tensor out = before();
      gemm->Run(a.raw_data(), b.raw_data(), bias.raw_data(), out.raw_data(),
                workspace.raw_data());
      const std::vector<double> got = Doubles(out);
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_NEAR(got[i], expected[i], rounding * (1 + std::abs(expected[i])))
            << "element " << i << ", threads " << threads;
      }
    }
  }

  CpuDevice device_{kPlenty};

 private:
  // Also what lies between the rows, which nobody may touch.
  static std::vector<double> Expected(const CpuGemmSpec& spec,
                                      const std::vector<double>& a,
                                      const std::vector<double>& b,
                                      const std::vector<double>& bias,
                                      std::vector<double> out) {
    std::vector<double> sums(spec.n);
    for (int64_t i = 0; i < spec.batch; ++i) {
      for (int64_t row = 0; row < spec.m; ++row) {
        std::fill(sums.begin(), sums.end(), 0.0);
        for (int64_t term = 0; term < spec.k; ++term) {
          const double x =
              a[i * spec.a.batch + row * spec.a.row + term * spec.a.column];
          const int64_t first = i * spec.b.batch + term * spec.b.row;
          for (int64_t column = 0; column < spec.n; ++column) {
            sums[column] += x * b[first + column * spec.b.column];
          }
        }
        for (int64_t column = 0; column < spec.n; ++column) {
          double& to = out[i * spec.out.batch + row * spec.out.row + column];
          to = sums[column] + (spec.bias ? bias[column] : 0) +
               (spec.accumulate ? to : 0);
        }
      }
    }
    return out;
  }
};

TEST_F(BFloat16Products, OfOneDnnAreRight) {
  for (const CpuGemmSpec& spec : Products()) ExpectRight(MakeOneDnnGemm, spec);
}

TEST_F(BFloat16Products, OfDotsAreRight) {
  if (!UsesBFloat16Dots()) GTEST_SKIP() << "not this processor's best";
  for (const CpuGemmSpec& spec : Products())
    ExpectRight(MakeBFloat16Gemm, spec);
}

// What the kernel cannot do falls to oneDNN rather than coming out wrong.
TEST_F(BFloat16Products, OfOddLengthOrWithActivationAreLeftToOneDnn) {
  EXPECT_EQ(MakeBFloat16Gemm(Spec(16, 16, 3)), nullptr);
  CpuGemmSpec activated = Spec(16, 16, 4);
  activated.activation = Activation::kSilu;
  EXPECT_EQ(MakeBFloat16Gemm(activated), nullptr);
  EXPECT_EQ(MakeBFloat16Gemm(Spec(16, 16, 1 << 14)), nullptr);
  CpuGemmSpec single = Spec(16, 16, 4);
  single.dtype = single.out_dtype = DType::kFloat32;
  EXPECT_EQ(MakeBFloat16Gemm(single), nullptr);
}

}  // namespace
}  // namespace trireme
