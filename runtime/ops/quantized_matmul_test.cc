// Products by weights in eight and four bits: a frozen layer whose codes are
// read wrongly while it multiplies trains adapters for another model.

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/dtype.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/cpu/quantized_gemm.h"
#include "runtime/ops/grouped_matmul.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/ops_testing.h"
#include "runtime/ops/quantization.h"

namespace trireme {
namespace {

class QuantizedMatMulTest
    : public testing::TestWithParam<std::tuple<WeightFormat, DType>> {
 protected:
  WeightFormat format() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }

  QuantizedTensor Weights(int64_t rows, int64_t columns, int64_t first) {
    const QuantizedTensor weights = EmptyQuantized(device_,
                                                   {.format = format(),
                                                    .rows = rows,
                                                    .columns = columns,
                                                    .first_column = first},
                                                   "weights");
    // Some columns follow, so that the last block is a whole one's part.
    Quantize(
        RandomTensor(device_, {rows, first + columns + 40}, DType::kFloat32, 1),
        weights);
    return weights;
  }

  CpuDevice device_{kPlenty};
};

// Neither a layer's result nor its gradients know whether weights are made full
// before: the bits are those of Dequantize and a product. Rows and columns are
// whole tiles of kernels or not, a rank's columns begin and end inside blocks
// of scales, and k is longer than what kernels sum at a time.
TEST_P(QuantizedMatMulTest, GivesTheBitsOfAProductByTheValues) {
  for (const auto& [m, rows, columns, first] :
       std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>>{
           {64, 128, 128, 0},
           {37, 193, 167, 0},
           {33, 160, 150, 51},
           {20, 131, 700, 37},
           {17, 650, 129, 63},
           {2, 40, 24, 5},
           {3, 1, 70, 0},
           {3, 70, 1, 64}}) {
    SCOPED_TRACE(testing::Message() << m << " by " << rows << ", " << columns
                                    << " from " << first);
    const QuantizedTensor codes = Weights(rows, columns, first);
    const Tensor values = Dequantize(codes, dtype(), "values");
    const Tensor x = RandomTensor(device_, {m, columns}, dtype(), 2);
    const Tensor bias = RandomTensor(device_, {rows}, dtype(), 3);
    const Tensor dy = RandomTensor(device_, {m, rows}, dtype(), 4);
    EXPECT_EQ(Doubles(MatMul(x, codes, &bias, {.transpose_b = true})),
              Doubles(MatMul(x, values, &bias, {.transpose_b = true})));
    EXPECT_EQ(Doubles(MatMul(x, codes, nullptr, {.transpose_b = true})),
              Doubles(MatMul(x, values, nullptr, {.transpose_b = true})));
    EXPECT_EQ(Doubles(MatMul(dy, codes)), Doubles(MatMul(dy, values)));
    EXPECT_EQ(
        Doubles(MatMulActivationBackward(dy, codes, Activation::kSilu, x)),
        Doubles(MatMulActivationBackward(dy, values, Activation::kSilu, x)));
  }
}

// Leading dims of what is multiplied are rows.
TEST_P(QuantizedMatMulTest, LeadingDimsAreRows) {
  const QuantizedTensor codes = Weights(40, 30, 0);
  const Tensor x = RandomTensor(device_, {2, 3, 30}, dtype(), 2);
  const Tensor y = MatMul(x, codes, nullptr, {.transpose_b = true});
  EXPECT_EQ(y.shape(), (Shape{2, 3, 40}));
  EXPECT_EQ(Doubles(y), Doubles(MatMul(x.Reshape({6, 30}), codes, nullptr,
                                       {.transpose_b = true})));
}

// A mixture's experts lie one after the other; each reads its own codes.
TEST_P(QuantizedMatMulTest, GroupsHaveTheBitsOfProductsByTheirValues) {
  constexpr int64_t kOut = 75, kIn = 550;
  const std::vector<int64_t> counts = {33, 0, 1, 97};
  const QuantizedTensor codes = Weights(4 * kOut, kIn, 37);
  const Tensor values =
      Dequantize(codes, dtype(), "values").Reshape({4, kOut, kIn});
  const Tensor x = RandomTensor(device_, {131, kIn}, dtype(), 2);
  const Tensor bias = RandomTensor(device_, {4, kOut}, dtype(), 3);
  const Tensor dy = RandomTensor(device_, {131, kOut}, dtype(), 4);
  for (const Tensor* addend : {static_cast<const Tensor*>(nullptr), &bias}) {
    EXPECT_EQ(Doubles(GroupedMatMul(x, codes, counts, true, addend, "experts")),
              Doubles(GroupedMatMul(x, values, counts, true, addend)));
  }
  EXPECT_EQ(
      Doubles(GroupedMatMul(dy, codes, counts, false, nullptr, "experts")),
      Doubles(GroupedMatMul(dy, values, counts, false)));
}

// A matrix of several panels of values, the last of which is narrower.
TEST_P(QuantizedMatMulTest, PanelsMakeTheWholeResult) {
  const int64_t length = kMaxPanelBytes / DTypeSize(dtype()) / 128, wide = 201;
  // What sums of so many terms in another order may differ by.
  const double slack =
      IsHalf(dtype()) ? 2 : std::sqrt(static_cast<double>(length));
  for (const bool transpose : {false, true}) {
    const QuantizedTensor codes =
        transpose ? Weights(wide, length, 7) : Weights(length, wide, 7);
    const Tensor values = Dequantize(codes, dtype(), "values");
    const Tensor x = RandomTensor(device_, {3, length}, dtype(), 2);
    const Tensor bias = RandomTensor(device_, {wide}, dtype(), 3);
    const MatMulOptions options = {.transpose_b = transpose};
    ExpectNear(MatMul(x, codes, &bias, options),
               Doubles(MatMul(x, values, &bias, options)),
               transpose ? "result" : "input gradient", slack);
  }
}

// As every product (PreparedGemm): a result of no terms would be what memory
// had before.
TEST(QuantizedGemmDeathTest, AProductWithoutTermsIsRefused) {
  CpuGemmSpec spec;
  spec.m = 32;
  spec.n = 128;
  spec.dtype = spec.out_dtype = DType::kBFloat16;
  spec.a = {0, 0, 1};
  spec.b = {0, 1, 0};
  spec.out = {0, 128, 1};
  spec.b_codes = {.format = WeightFormat::kFloat8, .rows = 128};
  EXPECT_DEATH(QuantizedGemmWorkspace(spec), "m 32 n 128 k 0");
}

// Why codes are multiplied at all: a large layer's values are never all there.
TEST_P(QuantizedMatMulTest, AWholeMatrixOfValuesIsNeverThere) {
  constexpr int64_t kRows = 4096, kColumns = 8192;
  for (const int64_t m : {4, 512}) {
    CpuDevice dry(int64_t{1} << 34, CpuDevice::Mode::kDry);
    const QuantizedTensor codes = EmptyQuantized(
        dry, {.format = format(), .rows = kRows, .columns = kColumns},
        "weights");
    const Tensor x = Tensor::Empty(dry, {m, kColumns}, dtype());
    const Tensor y = MatMul(x, codes, nullptr, {.transpose_b = true});
    MatMul(y, codes);
    const MemoryStatistics statistics = dry.Statistics();
    EXPECT_LT(
        statistics
            .peak_by_category[static_cast<int>(MemoryCategory::kWorkspace)],
        kRows * kColumns * DTypeSize(dtype()) / 2)
        << m << " rows";
  }
}

INSTANTIATE_TEST_SUITE_P(
    Formats, QuantizedMatMulTest,
    testing::Combine(testing::Values(WeightFormat::kFloat8,
                                     WeightFormat::kNormalFloat4),
                     testing::Values(DType::kBFloat16, DType::kFloat16,
                                     DType::kFloat32, DType::kFloat64)),
    [](const auto& info) {
      return std::string(std::get<0>(info.param) == WeightFormat::kFloat8
                             ? "Float8"
                             : "NormalFloat4") +
             "_" + std::string(DTypeName(std::get<1>(info.param)));
    });

}  // namespace
}  // namespace trireme
