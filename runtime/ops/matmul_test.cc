// Matrix products against sums in double precision.

#include "runtime/ops/matmul.h"

#include <omp.h>

#include <cmath>
#include <memory>
#include <numbers>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/dtype.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/cpu/gemm.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

// a[m, k]·b[k, n] of matrices stored as the flags say.
std::vector<double> Product(const double* a, bool transpose_a, const double* b,
                            bool transpose_b, int64_t m, int64_t n, int64_t k) {
  std::vector<double> out(m * n);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t l = 0; l < k; ++l) {
        out[i * n + j] += a[transpose_a ? l * m + i : i * k + l] *
                          b[transpose_b ? j * k + l : l * n + j];
      }
    }
  }
  return out;
}

double Activated(Activation activation, double x) {
  switch (activation) {
    case Activation::kGeluTanh:
      return x / 2 *
             (1 + std::tanh(std::sqrt(2 / std::numbers::pi) *
                            (x + 0.044715 * std::pow(x, 3))));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return x / 2 * std::erfc(-x / std::numbers::sqrt2);
    default:
      return x;
  }
}

double Tolerance(DType dtype) {
  switch (dtype) {
    case DType::kBFloat16:
      return 1.0 / 256;
    case DType::kFloat16:
      return 1.0 / 2048;
    case DType::kFloat32:
      return 2e-6;
    default:
      return 1e-14;
  }
}

// The error of a sum of k products of unit normals grows as its square root;
// that of rounding the result to `out_dtype` as the result does.
void ExpectProduct(const Tensor& got, const std::vector<double>& want,
                   int64_t k) {
  ASSERT_EQ(got.num_elements(), static_cast<int64_t>(want.size()));
  const std::vector<double> values = Doubles(got);
  const double sums = got.dtype() == DType::kFloat64 ? 1e-14 : 2e-6;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(values[i], want[i],
                Tolerance(got.dtype()) * std::abs(want[i]) +
                    sums * (1 + std::sqrt(static_cast<double>(k))))
        << "element " << i;
  }
}

class MatMulTest
    : public testing::TestWithParam<std::tuple<DType, bool, bool>> {
 protected:
  CpuDevice device_{int64_t{1} << 30};
};

TEST_P(MatMulTest, MatchesDoublePrecisionAtAnyShape) {
  const auto [dtype, transpose_a, transpose_b] = GetParam();
  const std::vector<std::tuple<int64_t, int64_t, int64_t>> sizes = {
      {1, 1, 1},   {1, 7, 5},    {3, 1, 9},    {5, 4, 1},   {1, 64, 1},
      {17, 33, 9}, {32, 64, 48}, {65, 31, 70}, {128, 1, 3}, {96, 40, 257}};
  for (auto [m, n, k] : sizes) {
    SCOPED_TRACE(testing::Message() << m << "x" << n << "x" << k);
    const Tensor a = RandomTensor(
        device_, transpose_a ? Shape{k, m} : Shape{m, k}, dtype, 1);
    const Tensor b = RandomTensor(
        device_, transpose_b ? Shape{n, k} : Shape{k, n}, dtype, 2);
    MatMulOptions options;
    options.transpose_a = transpose_a;
    options.transpose_b = transpose_b;
    const std::vector<double> want =
        Product(Doubles(a).data(), transpose_a, Doubles(b).data(), transpose_b,
                m, n, k);
    ExpectProduct(MatMul(a, b, nullptr, options), want, k);
  }
}

TEST_P(MatMulTest, AppliesBiasAndActivation) {
  const auto [dtype, transpose_a, transpose_b] = GetParam();
  const int64_t m = 37, n = 50, k = 24;
  const Tensor a =
      RandomTensor(device_, transpose_a ? Shape{k, m} : Shape{m, k}, dtype, 1);
  const Tensor b =
      RandomTensor(device_, transpose_b ? Shape{n, k} : Shape{k, n}, dtype, 2);
  const Tensor bias = RandomTensor(device_, {n}, dtype, 3);
  for (Activation activation : {Activation::kNone, Activation::kGeluTanh,
                                Activation::kSilu, Activation::kGelu}) {
    MatMulOptions options;
    options.transpose_a = transpose_a;
    options.transpose_b = transpose_b;
    options.activation = activation;
    std::vector<double> want = Product(Doubles(a).data(), transpose_a,
                                       Doubles(b).data(), transpose_b, m, n, k);
    const std::vector<double> offsets = Doubles(bias);
    for (size_t i = 0; i < want.size(); ++i) {
      want[i] = Activated(activation, want[i] + offsets[i % n]);
    }
    ExpectProduct(MatMul(a, b, &bias, options), want, k);
    if (dtype == DType::kBFloat16) {
      options.out_dtype = DType::kFloat32;
      const Tensor wide = MatMul(a, b, &bias, options);
      EXPECT_EQ(wide.dtype(), DType::kFloat32);
      ExpectProduct(wide, want, k);
    }
  }
}

TEST_P(MatMulTest, MultipliesBatches) {
  const auto [dtype, transpose_a, transpose_b] = GetParam();
  const int64_t batch = 6, m = 13, n = 18, k = 20;
  const Tensor a = RandomTensor(
      device_, transpose_a ? Shape{2, 3, k, m} : Shape{2, 3, m, k}, dtype, 1);
  MatMulOptions options;
  options.transpose_a = transpose_a;
  options.transpose_b = transpose_b;
  for (bool shared : {false, true}) {
    const int64_t count = shared ? 1 : batch;
    Tensor b = RandomTensor(
        device_, {count, transpose_b ? n : k, transpose_b ? k : n}, dtype, 2);
    b = shared ? b.Reshape({b.dim(1), b.dim(2)})
               : b.Reshape({2, 3, b.dim(1), b.dim(2)});
    const Tensor out = MatMul(a, b, nullptr, options);
    EXPECT_EQ(out.shape(), (Shape{2, 3, m, n}));
    std::vector<double> want;
    const std::vector<double> left = Doubles(a), right = Doubles(b);
    for (int64_t i = 0; i < batch; ++i) {
      const auto product = Product(left.data() + i * m * k, transpose_a,
                                   right.data() + (shared ? 0 : i * k * n),
                                   transpose_b, m, n, k);
      want.insert(want.end(), product.begin(), product.end());
    }
    ExpectProduct(out, want, k);
  }
}

TEST_P(MatMulTest, AccumulatesInPlaceOverFoldedRows) {
  const auto [dtype, transpose_a, transpose_b] = GetParam();
  const int64_t m = 21, n = 34, k = 60;
  const DType sum_dtype =
      dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  // The folded leading dims are the summed ones of a weight gradient.
  const Tensor a = RandomTensor(
      device_, transpose_a ? Shape{4, 15, m} : Shape{m, k}, dtype, 1);
  const Tensor b = RandomTensor(
      device_, transpose_b ? Shape{n, k} : Shape{4, 15, n}, dtype, 2);
  const Tensor out = RandomTensor(device_, {m, n}, sum_dtype, 3);
  std::vector<double> want = Doubles(out);
  MatMulOptions options;
  options.transpose_a = transpose_a;
  options.transpose_b = transpose_b;
  const std::vector<double> product = Product(
      Doubles(a).data(), transpose_a, Doubles(b).data(), transpose_b, m, n, k);
  for (int times = 0; times < 2; ++times) {
    MatMulAccumulate(a, b, options, out);
    for (size_t i = 0; i < want.size(); ++i) want[i] += product[i];
  }
  ExpectProduct(out, want, k);
}

// What a layer's backward asks for beside a product is what it is alone, to the
// bit: the same kernels, behind it.
TEST_P(MatMulTest, GradientsBesideProductsHaveTheirOwnBits) {
  const auto [dtype, transpose_a, transpose_b] = GetParam();
  const int64_t m = 37, n = 50, k = 24;
  const Tensor a =
      RandomTensor(device_, transpose_a ? Shape{k, m} : Shape{m, k}, dtype, 1);
  const Tensor b =
      RandomTensor(device_, transpose_b ? Shape{n, k} : Shape{k, n}, dtype, 2);
  const Tensor x = RandomTensor(device_, {m, n}, dtype, 3);
  const MatMulOptions options = {.transpose_a = transpose_a,
                                 .transpose_b = transpose_b};
  for (Activation activation :
       {Activation::kGeluTanh, Activation::kSilu, Activation::kRelu}) {
    EXPECT_EQ(Doubles(MatMulActivationBackward(a, b, activation, x, options)),
              Doubles(ActivationBackward(activation, x,
                                         MatMul(a, b, nullptr, options))));
  }
  if (!transpose_a) return;
  const DType sum_dtype = ComputeDType(dtype);
  const auto sums = [&](const Shape& shape) {
    return RandomTensor(device_, shape, sum_dtype, 4);
  };
  const Tensor alone = sums({m, n}), columns_alone = sums({m});
  MatMulAccumulate(a, b, options, alone);
  AccumulateColumnSums(a, columns_alone);
  const Tensor out = sums({m, n}), columns = sums({m});
  MatMulAccumulate(a, b, options, out, &columns);
  EXPECT_EQ(Doubles(out), Doubles(alone));
  EXPECT_EQ(Doubles(columns), Doubles(columns_alone));
}

INSTANTIATE_TEST_SUITE_P(
    Types, MatMulTest,
    testing::Combine(testing::Values(DType::kBFloat16, DType::kFloat16,
                                     DType::kFloat32, DType::kFloat64),
                     testing::Bool(), testing::Bool()),
    [](const auto& info) {
      return std::string(DTypeName(std::get<0>(info.param))) +
             (std::get<1>(info.param) ? "TransposedA" : "A") +
             (std::get<2>(info.param) ? "TransposedB" : "B");
    });

TEST(MatMul, SlicesNeedNotBeAligned) {
  CpuDevice device(int64_t{1} << 30);
  const Tensor a = RandomTensor(device, {19, 5}, DType::kBFloat16, 1);
  const Tensor b = RandomTensor(device, {5, 7}, DType::kBFloat16, 2);
  const Tensor part = a.Slice(3, 17);
  ExpectProduct(
      MatMul(part, b),
      Product(Doubles(part).data(), false, Doubles(b).data(), false, 14, 7, 5),
      5);
}

TEST(MatMul, ResultDoesNotDependOnThreads) {
  // What oneDNN's AVX-512 kernels give; others may split sums among threads.
  if (!__builtin_cpu_supports("avx512f")) GTEST_SKIP() << "no AVX-512";
  // oneDNN splits work for as many threads as it believes to get.
  if (omp_get_thread_limit() < 3) GTEST_SKIP() << "threads are limited";
  CpuDevice device(int64_t{1} << 30);
  const int threads = omp_get_max_threads();
  for (DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    for (bool transpose : {false, true}) {
      const Tensor a = RandomTensor(device, {512, 384}, dtype, 1);
      const Tensor b = RandomTensor(
          device, transpose ? Shape{512, 96} : Shape{384, 96}, dtype, 2);
      MatMulOptions options;
      options.transpose_a = transpose;
      options.out_dtype = DType::kFloat32;
      omp_set_num_threads(1);
      const Tensor one = MatMul(a, b, nullptr, options);
      omp_set_num_threads(3);
      const Tensor three = MatMul(a, b, nullptr, options);
      omp_set_num_threads(threads);
      EXPECT_EQ(one.ToVector<float>(), three.ToVector<float>())
          << dtype << " transposed " << transpose;
    }
  }
}

TEST(MatMul, DryRunCountsTheSameBytes) {
  auto run = [](CpuDevice& device, DType dtype) {
    const Tensor a = Tensor::Zeros(device, {4, 32, 96}, dtype);
    const Tensor w = Tensor::Zeros(device, {80, 96}, dtype);
    const Tensor grad = Tensor::Zeros(
        device, {80, 96},
        dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32);
    MatMulOptions options;
    options.transpose_b = true;
    const Tensor y = MatMul(a, w, nullptr, options);
    EXPECT_EQ(y.shape(), (Shape{4, 32, 80}));
    MatMulAccumulate(y, a, {.transpose_a = true}, grad);
    AccumulateColumnSums(grad, Tensor::Zeros(device, {96}, grad.dtype()));
    return device.Statistics();
  };
  for (DType dtype :
       {DType::kBFloat16, DType::kFloat16, DType::kFloat32, DType::kFloat64}) {
    CpuDevice real(int64_t{1} << 30);
    CpuDevice dry(int64_t{1} << 30, CpuDevice::Mode::kDry);
    const MemoryStatistics a = run(real, dtype);
    const MemoryStatistics b = run(dry, dtype);
    EXPECT_EQ(a.peak_bytes, b.peak_bytes) << dtype;
    EXPECT_EQ(a.peak_by_category, b.peak_by_category) << dtype;
  }
}

TEST(AccumulateColumnSums, AddsEveryRow) {
  CpuDevice device(int64_t{1} << 30);
  for (DType dtype :
       {DType::kBFloat16, DType::kFloat16, DType::kFloat32, DType::kFloat64}) {
    for (auto [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {7, 3}, {130, 129}, {200, 400}, {3, 1000}}) {
      const Tensor x = RandomTensor(device, {rows, columns}, dtype, 1);
      const Tensor out = RandomTensor(
          device, {columns},
          dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32, 2);
      std::vector<double> want = Doubles(out);
      const std::vector<double> values = Doubles(x);
      for (size_t i = 0; i < values.size(); ++i) want[i % columns] += values[i];
      AccumulateColumnSums(x, out);
      ExpectProduct(out, want, rows);
    }
  }
}

// Lengths that vary do not pile up kernels, and none goes while it is held.
TEST(PreparedGemm, KeepsABoundedNumberOfProducts) {
  CpuGemmSpec spec;
  spec.dtype = spec.out_dtype = DType::kFloat64;
  spec.n = spec.k = 2;
  spec.a = spec.b = spec.out = {0, 2, 1};
  spec.m = 1;
  const std::shared_ptr<const Gemm> held = PreparedGemm(spec);
  EXPECT_EQ(PreparedGemm(spec), held);
  spec.m = 2;
  const std::weak_ptr<const Gemm> dropped = PreparedGemm(spec);
  for (spec.m = 3; spec.m < 3 + kMaxPreparedGemms; ++spec.m) {
    PreparedGemm(spec);
  }
  EXPECT_TRUE(dropped.expired());
  const double a[2] = {2, 3}, b[4] = {1, 10, 100, 1000};
  double out[2];
  held->Run(a, b, nullptr, out, nullptr);
  EXPECT_EQ(out[0], 302);
  EXPECT_EQ(out[1], 3020);
}

}  // namespace
}  // namespace trireme
