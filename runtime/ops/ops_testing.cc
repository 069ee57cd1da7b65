#include "runtime/ops/ops_testing.h"

#include <cmath>

#include "gtest/gtest.h"

namespace trireme {
Tensor Operands::operator()(const Shape& shape) {
  const int64_t n = shape.num_elements();
  const Tensor flat = Tensor::Empty(device_, {n + shifted_}, dtype_);
  const Tensor x = flat.Slice(shifted_, n + shifted_).Reshape(shape);
  if (device_.dry()) return x;
  std::normal_distribution<float> normal;
  DispatchFloating(dtype_, [&]<typename T>(T) {
    DispatchFloating(rounded_, [&]<typename R>(R) {
      T* const values = x.data<T>();
      for (int64_t i = 0; i < n; ++i) {
        values[i] = T(static_cast<ComputeType<T>>(R(normal(engine_))));
      }
    });
  });
  return x;
}

Tensor RandomTensor(Device& device, const Shape& shape, DType dtype,
                    uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  const Tensor x = Tensor::Empty(device, shape, dtype);
  DispatchFloating(dtype, [&]<typename T>(T) {
    for (int64_t i = 0; i < x.num_elements(); ++i) {
      x.data<T>()[i] = T(static_cast<ComputeType<T>>(normal(engine)));
    }
  });
  return x;
}

std::vector<double> Doubles(const Tensor& x) {
  std::vector<double> result;
  DispatchFloating(x.dtype(), [&]<typename T>(T) {
    for (T value : x.ToVector<T>()) {
      result.push_back(static_cast<double>(value));
    }
  });
  return result;
}

void ExpectWithin(const Tensor& got, const std::vector<double>& expected,
                  double tolerance, const std::string& what) {
  const std::vector<double> values = Doubles(got);
  ASSERT_EQ(values.size(), expected.size()) << what;
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], expected[i], tolerance * (1 + std::abs(expected[i])))
        << what << ", element " << i << " of " << values.size();
  }
}

double RoundingOf(DType dtype) {
  return dtype == DType::kBFloat16  ? 1.0 / 256
         : dtype == DType::kFloat16 ? 1.0 / 1024
         : dtype == DType::kFloat32 ? 2e-6
                                    : 1e-13;
}

void ExpectNear(const Tensor& got, const std::vector<double>& expected,
                const std::string& what, double slack) {
  ExpectWithin(got, expected, slack * RoundingOf(got.dtype()), what);
}

}  // namespace trireme
