#include "runtime/ops/gaussian.h"

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/cpu/autoencoder_kernels.h"
#include "runtime/ops/host_kernel.h"

namespace trireme {
namespace {

GaussianArguments ArgumentsOf(const Tensor& moments, HostKernel& kernel,
                              const Tensor* counts = nullptr) {
  const int64_t width = moments.dim(moments.rank() - 1);
  CHECK_EQ(width % 2, 0) << moments.shape();
  GaussianArguments arguments = {.dtype = moments.dtype(),
                                 .rows = moments.num_elements() / width,
                                 .channels = width / 2,
                                 .moments = kernel.Reads(moments)};
  if (counts != nullptr) {
    CHECK(moments.rank() == 3 && counts->dtype() == DType::kInt32 &&
          counts->num_elements() == moments.dim(0))
        << moments.shape() << " " << counts->shape();
    arguments.set_rows = moments.dim(1);
    arguments.counts = static_cast<const int32_t*>(kernel.Reads(*counts));
  }
  return arguments;
}

}  // namespace

Tensor SampleGaussian(const Tensor& moments, const Tensor& noise) {
  CHECK_EQ(2 * noise.num_elements(), moments.num_elements());
  CHECK(noise.dtype() == moments.dtype());
  const Tensor out = Tensor::EmptyLike(noise, "latents");
  HostKernel kernel(moments.device());
  const GaussianArguments arguments = ArgumentsOf(moments, kernel);
  kernel.Run(moments.bytes() + 2 * noise.bytes(),
             [arguments, e = kernel.Reads(noise), z = kernel.Writes(out)] {
               SampleGaussianKernel(arguments, e, z);
             });
  return out;
}

Tensor SampleGaussianBackward(const Tensor& moments, const Tensor& noise,
                              const Tensor& grad_out) {
  CHECK(noise.shape() == grad_out.shape() && noise.dtype() == grad_out.dtype());
  const Tensor gradient = Tensor::EmptyLike(moments, "gradient of moments");
  HostKernel kernel(moments.device());
  const GaussianArguments arguments = ArgumentsOf(moments, kernel);
  kernel.Run(2 * moments.bytes() + 2 * noise.bytes(),
             [arguments, e = kernel.Reads(noise), dz = kernel.Reads(grad_out),
              to = kernel.Writes(gradient)] {
               SampleGaussianBackwardKernel(arguments, e, dz, to);
             });
  return gradient;
}

Tensor GaussianDivergence(const Tensor& moments, const Tensor* counts) {
  HostKernel kernel(moments.device());
  const GaussianArguments arguments = ArgumentsOf(moments, kernel, counts);
  const double sum = kernel.Sum(
      moments.bytes(), [&] { return GaussianDivergenceKernel(arguments); });
  return Full(moments.device(), {1}, ComputeDType(moments.dtype()), sum,
              MemoryCategory::kActivations, "divergence");
}

Tensor GaussianDivergenceBackward(const Tensor& moments, double factor,
                                  const Tensor* counts) {
  const Tensor gradient = Tensor::EmptyLike(moments, "gradient of moments");
  HostKernel kernel(moments.device());
  const GaussianArguments arguments = ArgumentsOf(moments, kernel, counts);
  kernel.Run(2 * moments.bytes(),
             [arguments, factor, to = kernel.Writes(gradient)] {
               GaussianDivergenceBackwardKernel(arguments, factor, to);
             });
  return gradient;
}

}  // namespace trireme
