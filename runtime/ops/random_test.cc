#include "runtime/ops/random.h"

#include <vector>

#include "gtest/gtest.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"
#include "runtime/ops/ops_testing.h"

namespace trireme {
namespace {

// Runs as the shard of a matrix has them, one longer than what a thread makes
// at a time, and none on a block of Philox.
const std::vector<ElementRun> kRuns = {{5, 0, 3}, {21, 3, 1}, {1002, 4, 9001}};
constexpr int64_t kElements = 9005;

TEST(FillRandom, EachElementIsTheStreamsAtItsPlace) {
  CpuDevice device(kPlenty);
  const RandomStream stream({.seed = 3, .sample = 7});
  for (const DType dtype : kFloatingTypes) {
    const Tensor normal = Tensor::Zeros(device, {kElements}, dtype);
    const Tensor uniform = Tensor::Zeros(device, {kElements}, dtype);
    FillRandom(stream, Distribution::kNormal, 0.3, kRuns, normal);
    FillRandom(stream, Distribution::kUniform, 0.7, kRuns, uniform);
    const std::vector<double> normals = Doubles(normal);
    const std::vector<double> uniforms = Doubles(uniform);
    DispatchFloating(dtype, [&]<typename T>(T) {
      for (const ElementRun& run : kRuns) {
        for (int64_t i = 0; i < run.count; ++i) {
          const auto rounded = [](double value) {
            return static_cast<double>(T(static_cast<float>(value)));
          };
          ASSERT_EQ(normals[run.to + i],
                    rounded(0.3 * stream.Normal(run.from + i)));
          ASSERT_EQ(uniforms[run.to + i],
                    rounded(0.7 * (2.0 * stream.Uniform(run.from + i) - 1.0)));
        }
      }
    });
  }
}

TEST(FillRandomDeathTest, NamesARunOutsideTheTensor) {
  CpuDevice device(kPlenty);
  const Tensor x = Tensor::Zeros(device, {4}, DType::kFloat32);
  EXPECT_DEATH(FillRandom(RandomStream({}), Distribution::kNormal, 1,
                          std::vector<ElementRun>{{0, 2, 3}}, x),
               "3 elements to 2 of \\[4\\]");
}

TEST(AddFlowNoise, MixesEachSampleWithItsOwnStream) {
  CpuDevice device(kPlenty);
  const Shape shape{3, 5000};
  const Tensor clean = RandomTensor(device, shape, DType::kFloat32, 1);
  const std::vector<float> sigmas = {0, 0.25f, 1};
  std::vector<RandomStream> streams;
  for (uint64_t i = 0; i < 3; ++i) streams.emplace_back(RandomKey{.sample = i});
  const Tensor noised = Tensor::EmptyLike(clean);
  const Tensor target = Tensor::EmptyLike(clean);
  AddFlowNoise(streams, clean, Upload<float>(device, {3}, sigmas), noised,
               target);
  const std::vector<double> x0 = Doubles(clean);
  std::vector<double> expected_noised, expected_target;
  for (int64_t i = 0; i < shape.num_elements(); ++i) {
    const int64_t sample = i / 5000;
    const double noise = static_cast<float>(streams[sample].Normal(i % 5000));
    expected_noised.push_back((1 - sigmas[sample]) * x0[i] +
                              sigmas[sample] * noise);
    expected_target.push_back(noise - x0[i]);
  }
  ExpectNear(noised, expected_noised, "noised samples");
  ExpectNear(target, expected_target, "flow");
}

}  // namespace
}  // namespace trireme
