#include "runtime/ops/ops_testing.h"

#include <cmath>

#include "gtest/gtest.h"
#include "runtime/device/host.h"

namespace trireme {

Tensor Operands::operator()(const Shape& shape) {
  if (!keep_) return Make(shape);
  if (next_ == kept_.size()) kept_.push_back(Make(shape));
  return kept_[next_++];
}

Tensor Operands::Make(const Shape& shape) {
  const int64_t n = shape.num_elements();
  std::normal_distribution<float> normal;
  Tensor flat;
  DispatchFloating(dtype_, [&]<typename T>(T) {
    DispatchFloating(rounded_, [&]<typename R>(R) {
      std::vector<T> values(shifted_ + n);
      for (int64_t i = 0; i < n && !device_.dry(); ++i) {
        values[shifted_ + i] =
            T(static_cast<ComputeType<T>>(R(normal(engine_))));
      }
      flat = Upload<T>(device_, {n + shifted_}, values);
    });
  });
  return flat.Slice(shifted_, n + shifted_).Reshape(shape);
}

Tensor RandomTensor(Device& device, const Shape& shape, DType dtype,
                    uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<double> normal;
  Tensor x;
  DispatchFloating(dtype, [&]<typename T>(T) {
    std::vector<T> values(shape.num_elements());
    for (T& value : values) {
      value = T(static_cast<ComputeType<T>>(normal(engine)));
    }
    x = Upload<T>(device, shape, values);
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
