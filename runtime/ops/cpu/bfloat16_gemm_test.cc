// The kernels for bf16 products against sums in fp64. Jobs meet only some of
// them on a given processor, and the large shapes that take their special ways
// are too slow for tests of whole models.

#include "runtime/ops/cpu/bfloat16_gemm.h"

#include <omp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/log.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/tensor.h"
#include "runtime/ops/cpu/amx_gemm.h"
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

// A copy of a tensor's bytes, behind which no one may read or write.
class AtEndOfMemory {
 public:
  explicit AtEndOfMemory(const Tensor& x) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    const int64_t bytes = (x.bytes() + page - 1) / page * page;
    size_ = bytes + page;
    memory_ = static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    CHECK(memory_ != MAP_FAILED);
    CHECK_EQ(mprotect(memory_ + bytes, page, PROT_NONE), 0);
    data_ = memory_ + bytes - x.bytes();
    std::memcpy(data_, x.raw_data(), x.bytes());
  }
  ~AtEndOfMemory() { munmap(memory_, size_); }
  AtEndOfMemory(const AtEndOfMemory&) = delete;
  AtEndOfMemory& operator=(const AtEndOfMemory&) = delete;

  char* data() const { return data_; }

 private:
  char* memory_;
  int64_t size_;
  char* data_;
};

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
      const Tensor workspace = Workspace(*gemm);
      const Tensor out = before();
      if (at_end_of_memory_) {
        AtEndOfMemory a_end(a), b_end(b), bias_end(bias), out_end(out);
        AtEndOfMemory workspace_end(workspace);
        gemm->Run(a_end.data(), b_end.data(), bias_end.data(), out_end.data(),
                  workspace_end.data());
        std::memcpy(out.raw_data(), out_end.data(), out.bytes());
      } else {
        gemm->Run(a.raw_data(), b.raw_data(), bias.raw_data(), out.raw_data(),
                  workspace.raw_data());
      }
      const std::vector<double> got = Doubles(out);
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_NEAR(got[i], expected[i], rounding * (1 + std::abs(expected[i])))
            << "element " << i << ", threads " << threads;
      }
    }
  }

  Tensor Workspace(const Gemm& gemm) {
    return Tensor::Empty(device_,
                         {std::max<int64_t>(1, gemm.workspace_bytes())},
                         DType::kBool, MemoryCategory::kWorkspace, "workspace");
  }

  CpuDevice device_{kPlenty};
  bool at_end_of_memory_ = false;

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

TEST_F(BFloat16Products, OfTilesAreRight) {
  if (!UsesAmx()) GTEST_SKIP() << "no matrix unit";
  for (const CpuGemmSpec& spec : Products()) ExpectRight(MakeAmxGemm, spec);
  // Several blocks of terms, and of rows, whose sums are kept between.
  ExpectRight(MakeAmxGemm, WithBias(Unrounded(Spec(70, 40, 1100))));
  ExpectRight(MakeAmxGemm, WithColumnsOfA(Spec(4130, 33, 544)));
}

// Every extent about a tile, with operands that end where memory does.
TEST_F(BFloat16Products, OfTilesOfOddSizesStayWithinTheirOperands) {
  if (!UsesAmx()) GTEST_SKIP() << "no matrix unit";
  const std::vector<int64_t> sizes = {1,  2,  15, 16, 17, 31, 32,
                                      33, 47, 48, 63, 64, 65, 70};
  at_end_of_memory_ = true;
  for (size_t i = 0; i < sizes.size(); ++i) {
    for (size_t j = 0; j < sizes.size(); ++j) {
      const CpuGemmSpec spec =
          Spec(sizes[i], sizes[j], sizes[(3 * i + 5 * j) % sizes.size()]);
      for (const CpuGemmSpec& layout :
           {spec, WithColumnsOfB(spec), WithColumnsOfA(spec),
            WithColumnsOfB(WithColumnsOfA(spec))}) {
        switch ((i + j) % 4) {
          case 0:
            ExpectRight(MakeAmxGemm, WithBias(layout));
            break;
          case 1:
            ExpectRight(MakeAmxGemm, Accumulating(layout));
            break;
          case 2:
            ExpectRight(MakeAmxGemm, Batched(IntoWiderRows(layout), 2));
            break;
          default:
            ExpectRight(MakeAmxGemm, WithBias(Unrounded(layout)));
        }
      }
    }
  }
}

// As groups of any number of rows, or terms, are multiplied.
class OfAnySize final : public Gemm {
 public:
  static std::unique_ptr<Gemm> Make(const CpuGemmSpec& spec) {
    CpuGemmSpec any = spec;
    // Gradients are sums over as many rows as come.
    (spec.accumulate ? any.k : any.m) = 0;
    return std::make_unique<OfAnySize>(spec, MakeRaggedAmxGemm(any));
  }

  OfAnySize(const CpuGemmSpec& spec, std::unique_ptr<RaggedGemm> ragged)
      : m_(spec.m), k_(spec.k), ragged_(std::move(ragged)) {}

  int64_t workspace_bytes() const override {
    return ragged_->workspace_bytes();
  }
  void Run(const void* a, const void* b, const void* bias, void* out,
           void* workspace) const override {
    ragged_->Run(m_, k_, a, b, bias, out, workspace);
  }

 private:
  const int64_t m_, k_;
  const std::unique_ptr<RaggedGemm> ragged_;
};

TEST_F(BFloat16Products, OfTilesOfAnySizeStayWithinTheirWorkspace) {
  if (!UsesAmx()) GTEST_SKIP() << "no matrix unit";
  at_end_of_memory_ = true;
  // Fewer and more rows, or terms, than are done at a time.
  for (const int64_t rows : {1, 33, 2050}) {
    const CpuGemmSpec product = Spec(rows, 36, 545);
    ExpectRight(OfAnySize::Make, WithBias(product));
    ExpectRight(OfAnySize::Make, WithColumnsOfB(product));
    ExpectRight(OfAnySize::Make,
                Accumulating(WithColumnsOfA(Spec(70, 36, rows))));
  }
}

// An expert's rows have the same bits beside any others, and a gradient that is
// added up in chunks is that of the whole.
TEST_F(BFloat16Products, OfTilesHaveTheBitsOfTheirParts) {
  if (!UsesAmx()) GTEST_SKIP() << "no matrix unit";
  constexpr int64_t kM = 203, kN = 170, kK = 1120, kRow = 77, kColumn = 45,
                    kTerm = 608;  // where they are parted
  const Tensor a = RandomTensor(device_, {kM * kK}, DType::kBFloat16, 1);
  const Tensor b = RandomTensor(device_, {kK * kN}, DType::kBFloat16, 2);
  const auto run = [&](CpuGemmSpec spec, int64_t a_at, int64_t b_at,
                       const Tensor& out, int64_t at) {
    const std::unique_ptr<Gemm> gemm = MakeAmxGemm(spec);
    const Tensor workspace = Workspace(*gemm);
    gemm->Run(
        a.data<BFloat16>() + a_at, b.data<BFloat16>() + b_at, nullptr,
        static_cast<char*>(out.raw_data()) + at * DTypeSize(spec.out_dtype),
        workspace.raw_data());
  };
  for (const CpuGemmSpec& whole :
       {Spec(kM, kN, kK), Accumulating(WithColumnsOfA(Spec(kM, kN, kK))),
        Unrounded(WithColumnsOfB(Spec(kM, kN, kK)))}) {
    SCOPED_TRACE(whole.ToString());
    const auto zeros = [&] {
      return Tensor::Zeros(device_, {kM * kN}, whole.out_dtype);
    };
    const Tensor expected = zeros();
    run(whole, 0, 0, expected, 0);
    CpuGemmSpec threads = whole;
    threads.threads = std::min(3, omp_get_thread_limit());
    const Tensor of_threads = zeros();
    run(threads, 0, 0, of_threads, 0);
    EXPECT_EQ(Doubles(of_threads), Doubles(expected));

    const Tensor of_parts = zeros();
    for (const int64_t m : {int64_t{0}, kRow}) {
      for (const int64_t n : {int64_t{0}, kColumn}) {
        CpuGemmSpec part = whole;
        part.m = m == 0 ? kRow : kM - kRow;
        part.n = n == 0 ? kColumn : kN - kColumn;
        run(part, m * whole.a.row, n * whole.b.column, of_parts, m * kN + n);
      }
    }
    EXPECT_EQ(Doubles(of_parts), Doubles(expected));

    if (!whole.accumulate) continue;
    const Tensor of_terms = zeros();
    for (const int64_t k : {int64_t{0}, kTerm}) {
      CpuGemmSpec part = whole;
      part.k = k == 0 ? kTerm : kK - kTerm;
      run(part, k * whole.a.column, k * whole.b.row, of_terms, 0);
    }
    EXPECT_EQ(Doubles(of_terms), Doubles(expected));
  }
}

// Few rows are packed in place of the weights; a row has the same bits as among
// many, where the weights are. By one more thread than there are panels as
// well.
TEST_F(BFloat16Products, OfTilesOfFewRowsHaveTheBitsOfMany) {
  if (!UsesAmx()) GTEST_SKIP() << "no matrix unit";
  constexpr int64_t kM = 400, kN = 90, kK = 1111;
  const Tensor a = RandomTensor(device_, {kM * kK}, DType::kBFloat16, 1);
  const Tensor b = RandomTensor(device_, {kK * kN}, DType::kBFloat16, 2);
  const Tensor bias = RandomTensor(device_, {kN}, DType::kBFloat16, 3);
  for (CpuGemmSpec spec : {WithBias(WithColumnsOfB(Spec(kM, kN, kK))),
                           Unrounded(WithColumnsOfB(Spec(kM, kN, kK)))}) {
    spec.m = 0;
    for (const int threads : {1, std::min(4, omp_get_thread_limit())}) {
      spec.threads = threads;
      const std::unique_ptr<RaggedGemm> product = MakeRaggedAmxGemm(spec);
      const Tensor workspace =
          Tensor::Empty(device_, {product->workspace_bytes()}, DType::kBool,
                        MemoryCategory::kWorkspace, "workspace");
      const auto rows = [&](int64_t first, int64_t count) {
        const Tensor out = Tensor::Zeros(device_, {count * kN}, spec.out_dtype);
        product->Run(count, kK, a.data<BFloat16>() + first * kK, b.raw_data(),
                     bias.raw_data(), out.raw_data(), workspace.raw_data());
        return Doubles(out);
      };
      const std::vector<double> all = rows(0, kM);
      for (const auto& [first, count] :
           std::vector<std::pair<int64_t, int64_t>>{
               {0, 1}, {3, 16}, {100, 33}, {367, 33}}) {
        const std::vector<double> expected(all.begin() + first * kN,
                                           all.begin() + (first + count) * kN);
        EXPECT_EQ(rows(first, count), expected)
            << count << " rows from " << first << ", threads " << threads;
      }
    }
  }
}

TEST_F(BFloat16Products, WithActivationAreNotOfTiles) {
  CpuGemmSpec activated = Spec(16, 16, 4);
  activated.activation = Activation::kSilu;
  EXPECT_EQ(MakeAmxGemm(activated), nullptr);
  CpuGemmSpec single = Spec(16, 16, 4);
  single.dtype = single.out_dtype = DType::kFloat32;
  EXPECT_EQ(MakeAmxGemm(single), nullptr);
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
