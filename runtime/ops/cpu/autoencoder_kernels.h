// CPU kernels behind runtime/ops/gaussian.h and runtime/ops/distance_loss.h.
// Sums are of fixed blocks of rows, in fp64, in order.

#ifndef TRIREME_RUNTIME_OPS_CPU_AUTOENCODER_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_AUTOENCODER_KERNELS_H_

#include <cstdint>

#include "runtime/core/dtype.h"

namespace trireme {

// moments [rows, 2·channels]: of each row the means, then the logarithms of the
// variances.
struct GaussianArguments {
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t channels = 0;
  const void* moments = nullptr;
  // Of sets: the rows of each, of which the first counts[i] count. Divergences
  // are sums of the sets' means over rows and channels. Null: of all rows.
  int64_t set_rows = 0;
  const int32_t* counts = nullptr;
};

enum class DistanceTerm { kDistance, kNormal, kEikonal, kOccupancy };

// values [samples, rows, evaluations] of a field at each query itself and, of
// seven evaluations, a step further and a step back along x, y and z. queries
// [samples, rows, 7] in the compute type; of each sample the first `valid` rows
// count.
struct DistanceLossArguments {
  DType dtype = DType::kFloat32;
  DistanceTerm term = DistanceTerm::kDistance;
  int64_t samples = 0;
  int64_t rows = 0;
  int64_t valid = 0;
  int64_t evaluations = 1;
  double step = 0;
  double truncation = 1;
  const void* values = nullptr;
  const void* queries = nullptr;
};

void SampleGaussianKernel(const GaussianArguments& arguments, const void* noise,
                          void* out);
void SampleGaussianBackwardKernel(const GaussianArguments& arguments,
                                  const void* noise, const void* gradient,
                                  void* moments_gradient);
double GaussianDivergenceKernel(const GaussianArguments& arguments);
void GaussianDivergenceBackwardKernel(const GaussianArguments& arguments,
                                      double factor, void* moments_gradient);
double DistanceLossKernel(const DistanceLossArguments& arguments);
void DistanceLossBackwardKernel(const DistanceLossArguments& arguments,
                                double factor, void* values_gradient);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_AUTOENCODER_KERNELS_H_
