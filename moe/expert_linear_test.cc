// Experts that are kept in fewer bits compute with what their codes stand for,
// whatever parts their matrices have.

#include "moe/expert_linear.h"

#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"
#include "runtime/ops/quantization.h"

namespace trireme {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 30;

class ExpertLinearTest : public testing::TestWithParam<WeightFormat> {
 protected:
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
    results.y = Download<float>(y.value());
    tape.Backward({&y, 1}, {dy}, Tape::WeightGradients::kImmediate);
    results.dx = Download<float>(tape.TakeGradient(input));
    return results;
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
    frozen.format = GetParam();
    const int64_t rows = shape.num_elements() / 70;
    frozen.quantized = EmptyQuantized(
        device_, {.format = GetParam(), .rows = rows, .columns = 70},
        "experts");
    Quantize(Random({rows, 70}), frozen.quantized);
    Parameter plain = frozen;
    plain.format = WeightFormat::kFull;
    plain.quantized = {};
    plain.value =
        Dequantize(frozen.quantized, DType::kFloat32, "experts").Reshape(shape);
    const Tensor x = Random({5, 70});
    const Tensor dy = Random({5, rows / 3});
    const Results expected = Through(plain, x, dy);
    const Results found = Through(frozen, x, dy);
    EXPECT_EQ(found.y, expected.y);
    EXPECT_EQ(found.dx, expected.dx);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, ExpertLinearTest,
                         testing::Values(WeightFormat::kFloat8,
                                         WeightFormat::kNormalFloat4),
                         [](const auto& info) {
                           return info.param == WeightFormat::kFloat8
                                      ? "float8"
                                      : "normal_float4";
                         });

}  // namespace
}  // namespace trireme
