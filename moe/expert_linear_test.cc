// Experts that are kept in fewer bits compute with what their codes stand for,
// whatever parts their matrices have: in bf16 the host's matrix unit multiplies
// the codes themselves.

#include "moe/expert_linear.h"

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/core/dtype.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"
#include "runtime/ops/pointwise.h"
#include "runtime/ops/quantization.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 30;

class ExpertLinearTest
    : public testing::TestWithParam<std::tuple<WeightFormat, DType>> {
 protected:
  WeightFormat format() const { return std::get<0>(GetParam()); }
  DType dtype() const { return std::get<1>(GetParam()); }

  Tensor Random(const Shape& shape) {
    std::vector<float> values(shape.num_elements());
    std::normal_distribution<float> normal;
    for (float& value : values) value = normal(random_);
    return Upload<float>(device_, shape, values);
  }

  struct Results {
    std::vector<float> y, dx;
  };
  Results Through(Parameter& weight, const Tensor& x, const Tensor& dy) {
    const auto rows = std::make_shared<ExpertRows>();
    rows->name = "experts";
    rows->counts = {3, 0, 2};
    Results results;
    Tape tape(device_);
    const Variable input = tape.Leaf(x);
    const Variable y = ExpertLinear(tape, input, weight, nullptr, rows);
    results.y = Values(y.value());
    tape.Backward({&y, 1}, {dy}, Tape::WeightGradients::kImmediate);
    results.dx = Values(tape.TakeGradient(input));
    return results;
  }

  Tensor Typed(const Tensor& x) { return Cast(x, dtype(), "operand"); }
  static std::vector<float> Values(const Tensor& x) {
    return Download<float>(Cast(x, DType::kFloat32, "values"));
  }

  CpuDevice device_{kLimitBytes};
  std::mt19937 random_{3};
};

TEST_P(ExpertLinearTest, FrozenExpertsAreWhatTheirCodesStandFor) {
  // Rows of more than a block of NF4.
  for (const Shape& shape : {Shape{3, 5, 70}, Shape{3, 2, 4, 70}}) {
    Parameter frozen;
    frozen.name = "experts";
    frozen.global_shape = shape;
    frozen.trainable = false;
    frozen.dtype = dtype();
    frozen.format = format();
    const int64_t rows = shape.num_elements() / 70;
    frozen.quantized = EmptyQuantized(
        device_, {.format = format(), .rows = rows, .columns = 70}, "experts");
    Quantize(Random({rows, 70}), frozen.quantized);
    Parameter plain = frozen;
    plain.format = WeightFormat::kFull;
    plain.quantized = {};
    plain.value =
        Dequantize(frozen.quantized, dtype(), "experts").Reshape(shape);
    const Tensor x = Typed(Random({5, 70}));
    const Tensor dy = Typed(Random({5, rows / 3}));
    const Results expected = Through(plain, x, dy);
    const Results found = Through(frozen, x, dy);
    EXPECT_EQ(found.y, expected.y);
    EXPECT_EQ(found.dx, expected.dx);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Formats, ExpertLinearTest,
    testing::Combine(testing::Values(WeightFormat::kFloat8,
                                     WeightFormat::kNormalFloat4),
                     testing::Values(DType::kFloat32, DType::kBFloat16)),
    [](const auto& info) {
      return std::string(std::get<0>(info.param) == WeightFormat::kFloat8
                             ? "float8_"
                             : "normal_float4_") +
             std::string(DTypeName(std::get<1>(info.param)));
    });

}  // namespace
}  // namespace trireme
