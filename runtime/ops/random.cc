#include "runtime/ops/random.h"

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

float* Floats(const Tensor& x) { return static_cast<float*>(x.raw_data()); }

}  // namespace

void FillRandom(const RandomStream& stream, Distribution distribution,
                double scale, std::span<const ElementRun> runs,
                const Tensor& target) {
  for (const ElementRun& run : runs) {
    CHECK(run.from >= 0 && run.to >= 0 && run.count >= 0 &&
          run.to + run.count <= target.num_elements())
        << run.count << " elements to " << run.to << " of " << target.shape();
  }
  Device& device = target.device();
  device.kernels().random.fill(device.stream(), target.dtype(), stream,
                               distribution, scale, runs, target.raw_data());
}

void AddFlowNoise(std::span<const RandomStream> streams, const Tensor& clean,
                  const Tensor& sigmas, const Tensor& noised,
                  const Tensor& target) {
  const auto samples = static_cast<int64_t>(streams.size());
  CHECK_EQ(clean.dim(0), samples);
  CHECK_EQ(sigmas.num_elements(), samples);
  for (const Tensor* tensor : {&clean, &sigmas, &noised, &target}) {
    CHECK_EQ(tensor->dtype(), DType::kFloat32);
  }
  for (const Tensor* tensor : {&noised, &target}) {
    CHECK_EQ(tensor->shape(), clean.shape());
  }
  Device& device = clean.device();
  device.kernels().random.add_flow_noise(
      device.stream(), streams,
      {.elements = clean.shape().elements_after(0),
       .clean = Floats(clean),
       .sigmas = Floats(sigmas),
       .noised = Floats(noised),
       .target = Floats(target)});
}

}  // namespace trireme
