#include "runtime/ops/ops_testing.h"

#include <omp.h>

#include <cmath>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"

namespace trireme {
namespace {

// The outputs' elements; == on them is equality of bits here, as the operands
// are finite.
std::vector<std::vector<double>> Values(const std::vector<Tensor>& tensors) {
  std::vector<std::vector<double>> values;
  for (const Tensor& tensor : tensors) values.push_back(Doubles(tensor));
  return values;
}

}  // namespace

Tensor Operands::operator()(const Shape& shape) {
  const int64_t n = shape.num_elements();
  const Tensor flat = Tensor::Empty(device_, {n + shifted_}, dtype_);
  const Tensor x = flat.Slice(shifted_, n + shifted_).Reshape(shape);
  if (device_.dry()) return x;
  std::normal_distribution<float> normal;
  DispatchFloating(dtype_, [&]<typename T>(T) {
    for (int64_t i = 0; i < n; ++i) x.data<T>()[i] = T(normal(engine_));
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

void ExpectNear(const Tensor& got, const std::vector<double>& expected,
                const std::string& what, double slack) {
  const double rounding = got.dtype() == DType::kBFloat16  ? 1.0 / 256
                          : got.dtype() == DType::kFloat16 ? 1.0 / 1024
                          : got.dtype() == DType::kFloat32 ? 2e-6
                                                           : 1e-13;
  ExpectWithin(got, expected, slack * rounding, what);
}

void ExpectResultDoesNotDependOnThreads(const std::vector<OpCase>& cases) {
  const int before = omp_get_max_threads();
  for (const OpCase& op : cases) {
    for (DType dtype : kFloatingTypes) {
      CpuDevice device(kPlenty);
      std::vector<std::vector<double>> expected;
      for (int threads : {1, 2, 3}) {
        omp_set_num_threads(threads);
        Operands operands(device, dtype);
        const auto values = Values(op.run(operands));
        if (threads == 1) expected = values;
        EXPECT_TRUE(values == expected)
            << op.name << " in " << dtype << " with " << threads << " threads";
      }
    }
  }
  omp_set_num_threads(before);
}

void ExpectOperandsNeedNoAlignment(const std::vector<OpCase>& cases) {
  for (const OpCase& op : cases) {
    for (DType dtype : kFloatingTypes) {
      CpuDevice device(kPlenty);
      Operands aligned(device, dtype), shifted(device, dtype, true);
      EXPECT_TRUE(Values(op.run(aligned)) == Values(op.run(shifted)))
          << op.name << " in " << dtype;
    }
  }
}

void ExpectDryDeviceCountsTheSameMemory(const std::vector<OpCase>& cases) {
  for (const OpCase& op : cases) {
    for (DType dtype : kFloatingTypes) {
      CpuDevice device(kPlenty), dry(kPlenty, CpuDevice::Mode::kDry);
      Operands operands(device, dtype), dry_operands(dry, dtype);
      const std::vector<Tensor> kept = op.run(operands);
      const std::vector<Tensor> dry_kept = op.run(dry_operands);
      const MemoryStatistics real = device.Statistics();
      const MemoryStatistics counted = dry.Statistics();
      EXPECT_EQ(counted.current_by_category, real.current_by_category)
          << op.name;
      EXPECT_EQ(counted.at_peak_by_category, real.at_peak_by_category)
          << op.name;
      for (size_t i = 0; i < kept.size(); ++i) {
        EXPECT_EQ(dry_kept[i].shape(), kept[i].shape()) << op.name;
        EXPECT_EQ(dry_kept[i].dtype(), kept[i].dtype()) << op.name;
      }
    }
  }
}

}  // namespace trireme
