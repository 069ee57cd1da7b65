#include "runtime/ops/weight_decomposition.h"

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

const WeightDecompositionKernels& KernelsOf(const Tensor& x) {
  return x.device().kernels().weight_decomposition;
}

// The numbers of a tensor with one for each of `columns`, of the compute type
// of x.
void* OfColumns(const Tensor& x, const Tensor& numbers) {
  CHECK_EQ(numbers.num_elements(), x.dim(-1));
  CHECK_EQ(numbers.dtype(), ComputeDType(x.dtype()));
  return numbers.raw_data();
}

}  // namespace

void AddRowProducts(const Tensor& a, const Tensor& b, double factor,
                    const Tensor& sums) {
  CHECK_EQ(a.dtype(), b.dtype());
  CHECK_EQ(a.rank(), 2);
  CHECK(a.shape() == b.shape()) << a.shape() << " by " << b.shape();
  CHECK_EQ(sums.num_elements(), a.dim(0));
  CHECK_EQ(sums.dtype(), DType::kFloat64);
  KernelsOf(a).add_row_products(a.device().stream(), a.dtype(), a.dim(0),
                                a.dim(1), factor, a.raw_data(), b.raw_data(),
                                static_cast<double*>(sums.raw_data()));
}

DirectionFactors MakeDirectionFactors(const Tensor& magnitude,
                                      const Tensor& squares) {
  CHECK_EQ(magnitude.num_elements(), squares.num_elements());
  CHECK_EQ(squares.dtype(), DType::kFloat64);
  CHECK_EQ(magnitude.dtype(), ComputeDType(magnitude.dtype()));
  const Shape shape = {magnitude.num_elements()};
  const auto make = [&] {
    return Tensor::Empty(magnitude.device(), shape, magnitude.dtype(),
                         MemoryCategory::kActivations, "factors of rows");
  };
  DirectionFactors factors = {.scale = make(), .inverse = make()};
  KernelsOf(magnitude).direction_factors(
      magnitude.device().stream(), magnitude.dtype(), shape.num_elements(),
      magnitude.raw_data(), static_cast<const double*>(squares.raw_data()),
      factors.scale.raw_data(), factors.inverse.raw_data());
  return factors;
}

Tensor ScaleColumns(const Tensor& x, const Tensor& factors) {
  Tensor y = Tensor::EmptyLike(x, "scaled columns");
  const int64_t width = x.dim(-1);
  KernelsOf(x).scale_columns(x.device().stream(), x.dtype(),
                             x.num_elements() / width, width, x.raw_data(),
                             OfColumns(x, factors), y.raw_data());
  return y;
}

void AddMagnitudeGradient(const Tensor& x, const Tensor& grad_out,
                          const Tensor& inverse, const Tensor& gradient) {
  CHECK_EQ(x.dtype(), grad_out.dtype());
  CHECK_EQ(x.num_elements(), grad_out.num_elements());
  const int64_t width = x.dim(-1);
  KernelsOf(x).magnitude_gradient(x.device().stream(), x.dtype(),
                                  x.num_elements() / width, width, x.raw_data(),
                                  grad_out.raw_data(), OfColumns(x, inverse),
                                  OfColumns(x, gradient));
}

}  // namespace trireme
