// What instructions of GPUs do, on a real one and on the emulated one: first of
// all the same.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cuda/gpus.h"
#include "runtime/device/cuda/orders_testing.h"
#include "runtime/device/cuda/ptx_testing.h"
#include "runtime/device/tensor.h"

namespace trireme {
namespace {

class PtxTest : public testing::TestWithParam<DType> {
 protected:
  PtxTest() { UseOrder(kLazyOrder); }

  const std::unique_ptr<Device> gpu_ = MakeCudaDevice(0, int64_t{1} << 30);
};

// Small whole numbers, so that every order of additions gives the same.
std::vector<float> Numbers(int64_t count, int64_t step) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(static_cast<float>(i * step % 17 - 8));
  }
  return values;
}

template <typename T>
Tensor Rounded(Device& gpu, const std::vector<float>& values) {
  const std::vector<T> rounded(values.begin(), values.end());
  return Tensor::FromValues<T>(gpu, {static_cast<int64_t>(values.size())},
                               rounded);
}

TEST_P(PtxTest, TensorCoresMultiplyWhatTheFragmentsSay) {
  const std::vector<float> a = Numbers(16 * 16, 7), b = Numbers(16 * 8, 5);
  const std::vector<float> sums = Numbers(16 * 8, 3);
  const auto operand = [&](const std::vector<float>& values) {
    return GetParam() == DType::kBFloat16 ? Rounded<BFloat16>(*gpu_, values)
                                          : Rounded<Float16>(*gpu_, values);
  };
  const Tensor left = operand(a), right = operand(b);
  const Tensor out = Rounded<float>(*gpu_, sums);
  MultiplyByTensorCores(gpu_->stream(), GetParam(), left.raw_data(),
                        right.raw_data(), static_cast<float*>(out.raw_data()));
  std::vector<float> expected = sums;
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      for (int k = 0; k < 16; ++k) {
        expected[row * 8 + column] += a[row * 16 + k] * b[k * 8 + column];
      }
    }
  }
  EXPECT_EQ(out.ToVector<float>(), expected);
}

INSTANTIATE_TEST_SUITE_P(HalfTypes, PtxTest,
                         testing::Values(DType::kBFloat16, DType::kFloat16),
                         [](const testing::TestParamInfo<DType>& info) {
                           return std::string(DTypeName(info.param));
                         });

}  // namespace
}  // namespace trireme
