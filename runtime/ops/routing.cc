#include "runtime/ops/routing.h"

#include <limits>
#include <numeric>

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

Tensor New(const Tensor& like, const Shape& shape, DType dtype,
           std::string_view label) {
  return Tensor::Empty(like.device(), shape, dtype,
                       MemoryCategory::kActivations, label);
}

const int32_t* Indices(const Tensor& indices) {
  CHECK_EQ(indices.dtype(), DType::kInt32);
  return static_cast<const int32_t*>(indices.raw_data());
}

int32_t* MutableIndices(const Tensor& indices) {
  return static_cast<int32_t*>(indices.raw_data());
}

ColumnChoice Choice(const Tensor& indices, int64_t columns) {
  CHECK_EQ(indices.rank(), 2);
  return {.rows = indices.dim(0), .columns = columns, .k = indices.dim(1)};
}

}  // namespace

Tensor TopK(const Tensor& x, int64_t k) {
  CHECK_EQ(x.rank(), 2);
  CHECK(k >= 1 && k <= x.dim(1)) << k << " of " << x.shape();
  const Tensor indices = New(x, {x.dim(0), k}, DType::kInt32, "top k");
  Device& device = x.device();
  device.kernels().routing.top_k(device.stream(), x.dtype(),
                                 Choice(indices, x.dim(1)), x.raw_data(),
                                 MutableIndices(indices));
  return indices;
}

Tensor SelectColumns(const Tensor& x, const Tensor& indices) {
  CHECK_EQ(x.dim(0), indices.dim(0));
  const Tensor y = New(x, indices.shape(), x.dtype(), "selected columns");
  Device& device = x.device();
  device.kernels().routing.select_columns(
      device.stream(), x.dtype(), Choice(indices, x.dim(1)), Indices(indices),
      x.raw_data(), y.raw_data());
  return y;
}

Tensor PlaceColumns(const Tensor& y, const Tensor& indices, int64_t columns) {
  CHECK(y.shape() == indices.shape()) << y.shape() << indices.shape();
  const Tensor x =
      New(y, {y.dim(0), columns}, y.dtype(), "gradient of selected columns");
  Device& device = y.device();
  device.kernels().routing.place_columns(
      device.stream(), y.dtype(), Choice(indices, columns), Indices(indices),
      y.raw_data(), x.raw_data());
  return x;
}

int64_t SortedRoutes::rows() const {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

SortedRoutes SortRoutes(const Tensor& groups, int64_t num_groups) {
  CHECK_EQ(groups.rank(), 2);
  const int64_t n = groups.num_elements();
  CHECK_LE(n, std::numeric_limits<int32_t>::max()) << groups.shape();
  SortedRoutes sorted;
  sorted.routes = New(groups, {n}, DType::kInt32, "routes by expert");
  sorted.tokens = New(groups, {n}, DType::kInt32, "tokens by expert");
  sorted.places = New(groups, groups.shape(), DType::kInt32, "rows of routes");
  sorted.counts.assign(num_groups, 0);
  Device& device = groups.device();
  device.kernels().routing.sort_routes(device.stream(),
                                       {.tokens = groups.dim(0),
                                        .k = groups.dim(1),
                                        .groups = num_groups,
                                        .group = Indices(groups),
                                        .routes = MutableIndices(sorted.routes),
                                        .token = MutableIndices(sorted.tokens),
                                        .places = MutableIndices(sorted.places),
                                        .counts = sorted.counts.data()});
  // The host goes on with the counts.
  device.stream().Synchronize();
  return sorted;
}

Tensor CountRoutes(const Tensor& groups, int64_t samples, int64_t num_groups,
                   DType dtype) {
  CHECK_EQ(groups.num_elements() % samples, 0);
  const DType compute = ComputeDType(dtype);
  const Tensor counts =
      New(groups, {samples, num_groups}, compute, "routes of samples");
  Device& device = groups.device();
  device.kernels().routing.count_routes(
      device.stream(), compute, samples, groups.num_elements() / samples,
      num_groups, Indices(groups), counts.raw_data());
  return counts;
}

Tensor SumRows(const Tensor& rows, const Tensor& places) {
  CHECK_EQ(rows.rank(), 2);
  CHECK_EQ(places.rank(), 2);
  const Tensor y =
      New(rows, {places.dim(0), rows.dim(1)}, rows.dtype(), "summed rows");
  Device& device = rows.device();
  device.kernels().routing.sum_rows(
      device.stream(), rows.dtype(), places.dim(0), places.dim(1), rows.dim(1),
      Indices(places), rows.raw_data(), y.raw_data());
  return y;
}

Tensor ScaleRows(const Tensor& x, const Tensor& factors) {
  CHECK_EQ(factors.dtype(), ComputeDType(x.dtype()));
  CHECK_EQ(factors.num_elements(), x.dim(0));
  const Tensor y = New(x, x.shape(), x.dtype(), "scaled rows");
  Device& device = x.device();
  device.kernels().routing.scale_rows(device.stream(), x.dtype(), x.dim(0),
                                      x.dim(1), factors.raw_data(),
                                      x.raw_data(), y.raw_data());
  return y;
}

Tensor RowDots(const Tensor& a, const Tensor& b) {
  CHECK(a.shape() == b.shape() && a.dtype() == b.dtype());
  const Tensor dots =
      New(a, {a.dim(0), 1}, ComputeDType(a.dtype()), "dot products of rows");
  Device& device = a.device();
  device.kernels().routing.row_dots(device.stream(), a.dtype(), a.dim(0),
                                    a.dim(1), a.raw_data(), b.raw_data(),
                                    dots.raw_data());
  return dots;
}

Tensor LogSumExp(const Tensor& x) {
  CHECK_EQ(x.rank(), 2);
  const Tensor y = New(x, {x.dim(0), 1}, x.dtype(), "log-sum-exp");
  Device& device = x.device();
  device.kernels().routing.log_sum_exp(device.stream(), x.dtype(), x.dim(0),
                                       x.dim(1), x.raw_data(), y.raw_data());
  return y;
}

}  // namespace trireme
