// AdamW and the moving average against the formulas in double precision.

#include "runtime/ops/adamw.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

// A normal random vector, off the device's alignment by `shift` elements.
Tensor Random(Device& device, DType dtype, int64_t n, uint32_t seed,
              int64_t shift = 0) {
  const Tensor x =
      Tensor::Empty(device, {n + shift}, dtype).Slice(shift, n + shift);
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  DispatchFloating(dtype, [&]<typename T>(T) {
    for (int64_t i = 0; i < n; ++i) x.data<T>()[i] = T(normal(engine));
  });
  return x;
}

// One parameter and what the optimizer keeps for it. `value` is a copy in
// another type, or the master itself.
struct State {
  State(Device& device, DType dtype, DType value_dtype, int64_t n,
        int64_t shift = 0)
      : grad(Random(device, dtype, n, 1, shift)),
        master(Random(device, dtype, n, 2, shift)),
        m(Random(device, dtype, n, 3, shift)),
        v(Random(device, dtype, n, 4, shift)),
        value(value_dtype == dtype ? master
                                   : Random(device, value_dtype, n, 5, shift)) {
    // Squares are not negative.
    DispatchFloating(dtype, [&]<typename T>(T) {
      for (int64_t i = 0; i < n; ++i) {
        const auto root = static_cast<ComputeType<T>>(v.data<T>()[i]);
        v.data<T>()[i] = T(root * root);
      }
    });
  }

  Tensor grad, master, m, v, value;
};

struct Types {
  DType master;
  DType value;
};
constexpr Types kTypes[] = {{DType::kFloat32, DType::kFloat32},
                            {DType::kFloat32, DType::kBFloat16},
                            {DType::kFloat32, DType::kFloat16},
                            {DType::kFloat64, DType::kFloat64}};

class AdamWTest : public testing::TestWithParam<std::tuple<Types, int64_t>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()).master; }
  DType value_dtype() const { return std::get<0>(GetParam()).value; }
  int64_t size() const { return std::get<1>(GetParam()); }
  double tolerance() const { return dtype() == DType::kFloat64 ? 1e-13 : 2e-6; }

  CpuDevice device_{kPlenty};
};

TEST_P(AdamWTest, ThreeStepsFollowTheFormula) {
  State state(device_, dtype(), value_dtype(), size());
  std::vector<double> theta = Doubles(state.master), m = Doubles(state.m),
                      v = Doubles(state.v);
  AdamWOptions options{.learning_rate = 0.02,
                       .beta1 = 0.8,
                       .beta2 = 0.95,
                       .eps = 1e-6,
                       .weight_decay = 0.1,
                       .gradient_scale = 0.25};
  for (int64_t step = 1; step <= 3; ++step) {
    const std::vector<double> gradient = Doubles(state.grad);
    for (size_t i = 0; i < theta.size(); ++i) {
      const double g = 0.25 * gradient[i];
      m[i] = 0.8 * m[i] + 0.2 * g;
      v[i] = 0.95 * v[i] + 0.05 * g * g;
      const double m_hat = m[i] / (1 - std::pow(0.8, step));
      const double v_hat = v[i] / (1 - std::pow(0.95, step));
      theta[i] -= 0.02 * (m_hat / (std::sqrt(v_hat) + 1e-6) + 0.1 * theta[i]);
    }
    options.step = step;
    AdamWStep(options, state.grad, state.master, state.m, state.v, state.value);
  }
  ExpectWithin(state.m, m, tolerance(), "m");
  ExpectWithin(state.v, v, tolerance(), "v");
  ExpectWithin(state.master, theta, 4 * tolerance(), "master");
  // What forward reads is the master, rounded once.
  const std::vector<double> master = Doubles(state.master);
  const std::vector<double> value = Doubles(state.value);
  for (size_t i = 0; i < master.size(); ++i) {
    const double expected = DispatchFloating(value_dtype(), [&]<typename T>(T) {
      return static_cast<double>(T(static_cast<ComputeType<T>>(master[i])));
    });
    ASSERT_EQ(value[i], expected);
  }
}

TEST_P(AdamWTest, MovingAverageFollowsTheFormula) {
  const Tensor master = Random(device_, dtype(), size(), 1);
  const Tensor average = Random(device_, dtype(), size(), 2);
  std::vector<double> expected = Doubles(average);
  const std::vector<double> masters = Doubles(master);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i] = 0.9 * expected[i] + 0.1 * masters[i];
  }
  EmaStep(0.9, master, average);
  ExpectWithin(average, expected, tolerance(), "average");
  EXPECT_EQ(Doubles(master), masters);
}

INSTANTIATE_TEST_SUITE_P(
    TypesAndTails, AdamWTest,
    testing::Combine(testing::ValuesIn(kTypes),
                     testing::Values(1, 7, 64, 100, 385)),
    [](const testing::TestParamInfo<AdamWTest::ParamType>& info) {
      const Types types = std::get<0>(info.param);
      return std::string(DTypeName(types.master)) + "_" +
             std::string(DTypeName(types.value)) + "_" +
             std::to_string(std::get<1>(info.param));
    });

// A parameter without gradient and without decay stays where it is.
TEST(AdamWStepTest, ZeroGradientFromRestMovesNothing) {
  CpuDevice device(kPlenty);
  const Tensor master = Random(device, DType::kFloat32, 37, 1);
  const std::vector<double> before = Doubles(master);
  const Tensor zero = Tensor::Zeros(device, {37}, DType::kFloat32);
  const Tensor m = zero.Clone(), v = zero.Clone();
  AdamWStep({.learning_rate = 1}, zero, master, m, v, master);
  EXPECT_EQ(Doubles(master), before);
}

// The first step from rest has the length of the learning rate, whatever the
// size of the gradient: the bias corrections are in place.
TEST(AdamWStepTest, FirstStepHasTheLengthOfTheLearningRate) {
  CpuDevice device(kPlenty);
  const std::vector<float> gradient = {1e-3f, -1e-3f, 50.0f, -50.0f};
  const Tensor grad = Tensor::FromValues<float>(device, {4}, gradient);
  const Tensor master = Tensor::Zeros(device, {4}, DType::kFloat32);
  const Tensor m = master.Clone(), v = master.Clone();
  AdamWStep({.learning_rate = 0.01}, grad, master, m, v, master);
  const std::vector<double> moved = Doubles(master);
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(moved[i], gradient[i] > 0 ? -0.01 : 0.01, 1e-6);
  }
}

// Steps too small for bf16 gather in the master until they show in the value.
TEST(AdamWStepTest, SmallStepsAreNotLostToBfloat16) {
  CpuDevice device(kPlenty);
  const std::vector<float> ones(1, 1.0f);
  const Tensor grad = Tensor::FromValues<float>(device, {1}, ones);
  const Tensor master = Tensor::FromValues<float>(device, {1}, ones);
  const Tensor m = Tensor::Zeros(device, {1}, DType::kFloat32);
  const Tensor v = m.Clone();
  const Tensor value = Tensor::Zeros(device, {1}, DType::kBFloat16);
  for (int64_t step = 1; step <= 100; ++step) {
    AdamWStep({.learning_rate = 1e-3, .step = step}, grad, master, m, v, value);
  }
  EXPECT_NEAR(Doubles(master)[0], 0.9, 1e-4);
  EXPECT_NEAR(Doubles(value)[0], 0.9, 1.0 / 256);
}

TEST(AdamWStepTest, NanGradientIsNotSwallowed) {
  CpuDevice device(kPlenty);
  State state(device, DType::kFloat32, DType::kBFloat16, 37);
  state.grad.data<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  AdamWStep({}, state.grad, state.master, state.m, state.v, state.value);
  EXPECT_TRUE(std::isnan(Doubles(state.value)[5]));
  EXPECT_TRUE(std::isfinite(Doubles(state.value)[6]));
}

// Three steps and an average of a parameter large enough for several threads.
std::vector<std::vector<double>> Trained(const Types& types, int64_t shift) {
  CpuDevice device(kPlenty);
  State state(device, types.master, types.value, 3 * 67 * 385, shift);
  const Tensor average =
      Random(device, types.master, state.master.num_elements(), 6, shift);
  for (int64_t step = 1; step <= 3; ++step) {
    AdamWStep({.weight_decay = 0.1, .step = step}, state.grad, state.master,
              state.m, state.v, state.value);
    EmaStep(0.999, state.master, average);
  }
  return {Doubles(state.master), Doubles(state.m), Doubles(state.v),
          Doubles(state.value), Doubles(average)};
}

TEST(OptimizerProperties, ResultDoesNotDependOnThreads) {
  const int before = omp_get_max_threads();
  for (const Types& types : kTypes) {
    omp_set_num_threads(1);
    const auto expected = Trained(types, 0);
    for (int threads : {2, 3}) {
      omp_set_num_threads(threads);
      EXPECT_TRUE(Trained(types, 0) == expected)
          << types.master << " with " << threads << " threads";
    }
  }
  omp_set_num_threads(before);
}

TEST(OptimizerProperties, StateNeedsNoAlignment) {
  for (const Types& types : kTypes) {
    EXPECT_TRUE(Trained(types, 0) == Trained(types, 1)) << types.master;
  }
}

// The average that a step takes with it has the bits of one taken after it, and
// the step those that it has without.
TEST(OptimizerProperties, AverageInTheSamePassIsThatOfAPassOfItsOwn) {
  for (const Types& types : kTypes) {
    CpuDevice device(kPlenty);
    const State together(device, types.master, types.value, 9001);
    const State apart(device, types.master, types.value, 9001);
    const Tensor average = Random(device, types.master, 9001, 6);
    const Tensor after = average.Clone();
    AdamWOptions options = {.step = 2};
    AdamWStep(options, apart.grad, apart.master, apart.m, apart.v, apart.value);
    EmaStep(0.9, apart.master, after);
    options.ema_decay = 0.9;
    AdamWStep(options, together.grad, together.master, together.m, together.v,
              together.value, average);
    EXPECT_TRUE(Doubles(together.master) == Doubles(apart.master));
    EXPECT_TRUE(Doubles(together.value) == Doubles(apart.value));
    EXPECT_TRUE(Doubles(average) == Doubles(after)) << types.master;
  }
}

// A copy of the weights that is too large for the caches is written past them,
// in lines that begin and end within rows of vectors: the bits are those of its
// parts, which are small.
TEST(OptimizerProperties, LargeParameterIsUpdatedAsItsParts) {
  constexpr int64_t kElements = (int64_t{1} << 20) + 37;
  constexpr int64_t kPart = 400'000;
  for (const DType value : {DType::kBFloat16, DType::kFloat16}) {
    CpuDevice device(kPlenty);
    const State whole(device, DType::kFloat32, value, kElements, /*shift=*/5);
    const std::vector<Tensor> parts = {
        whole.grad, whole.master.Clone(), whole.m.Clone(), whole.v.Clone(),
        Tensor::Empty(device, {kElements}, value)};
    const AdamWOptions options = {.weight_decay = 0.1, .step = 3};
    AdamWStep(options, whole.grad, whole.master, whole.m, whole.v, whole.value);
    for (int64_t begin = 0; begin < kElements; begin += kPart) {
      const auto part = [&](int i) {
        return parts[i].Slice(begin, std::min(kElements, begin + kPart));
      };
      AdamWStep(options, part(0), part(1), part(2), part(3), part(4));
    }
    EXPECT_TRUE(Doubles(whole.master) == Doubles(parts[1])) << value;
    EXPECT_TRUE(Doubles(whole.m) == Doubles(parts[2])) << value;
    EXPECT_TRUE(Doubles(whole.v) == Doubles(parts[3])) << value;
    EXPECT_TRUE(Doubles(whole.value) == Doubles(parts[4])) << value;
  }
}

// An optimizer step allocates nothing, and a dry one runs without data.
TEST(OptimizerProperties, StepsNeedNoMemory) {
  for (CpuDevice::Mode mode : {CpuDevice::Mode::kReal, CpuDevice::Mode::kDry}) {
    CpuDevice device(kPlenty, mode);
    std::vector<Tensor> state;
    for (int i = 0; i < 5; ++i) {
      state.push_back(Tensor::Zeros(device, {385}, DType::kFloat32,
                                    MemoryCategory::kOptimizer));
    }
    const int64_t before = device.Statistics().peak_bytes;
    AdamWStep({}, state[0], state[1], state[2], state[3], state[1]);
    EmaStep(0.999, state[1], state[4]);
    AdamWStep({.ema_decay = 0.999}, state[0], state[1], state[2], state[3],
              state[1], state[4]);
    EXPECT_EQ(device.Statistics().peak_bytes, before);
  }
}

}  // namespace
}  // namespace trireme
