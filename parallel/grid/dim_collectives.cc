#include "parallel/grid/dim_collectives.h"

#include "runtime/core/log.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

Shape WithDim(Shape shape, int dim, int64_t size) {
  shape.set_dim(dim, size);
  return shape;
}

// x seen as [rows, columns, ..] → [columns, rows, ..], in the given shape.
Tensor Swapped(const Tensor& x, int64_t rows, int64_t columns,
               const Shape& shape, MemoryCategory category) {
  if (rows == 1 || columns == 1) return x.Reshape(shape);
  const Tensor y =
      Tensor::Empty(x.device(), shape, x.dtype(), category, "exchanged slices");
  SwapRowsAndColumns(x, rows, columns, y);
  return y;
}

}  // namespace

PendingTensor StartGather(Communicator& group, const Tensor& local, int dim,
                          std::string_view name) {
  const int n = group.size();
  const Tensor stacked =
      Tensor::Empty(local.device(), WithDim(local.shape(), 0, local.dim(0) * n),
                    local.dtype(), MemoryCategory::kCommunication, name);
  Event event = group.AllGather(local, stacked, name);
  // One index before the dim: the stacked slices are the full tensor.
  const int64_t before = local.shape().elements_before(dim);
  const Shape shape = WithDim(local.shape(), dim, local.dim(dim) * n);
  if (before == 1) return {stacked.Reshape(shape), std::move(event)};
  return {std::move(event), [stacked, shape, before, n] {
            const Tensor full =
                Tensor::Empty(stacked.device(), shape, stacked.dtype(),
                              MemoryCategory::kActivations, "gathered slices");
            SwapRowsAndColumns(stacked, n, before, full);
            return full;
          }};
}

PendingTensor StartReduceScatter(Communicator& group, const Tensor& full,
                                 int dim, std::string_view name) {
  const int n = group.size();
  CHECK_EQ(full.dim(dim) % n, 0);
  const Tensor local = Tensor::Empty(
      full.device(), WithDim(full.shape(), dim, full.dim(dim) / n),
      full.dtype(), MemoryCategory::kActivations, "reduce-scattered slice");
  const int64_t before = local.shape().elements_before(dim);
  Tensor stacked = full;
  if (before > 1) {
    stacked = Tensor::Empty(full.device(), full.shape(), full.dtype(),
                            MemoryCategory::kCommunication, name);
    SwapRowsAndColumns(full, before, n, stacked);
  }
  const int64_t elements = local.num_elements();
  return {local, group.ReduceScatter(stacked.Reshape({n, elements}),
                                     local.Reshape({1, elements}), name)};
}

Tensor ExchangeSlices(Communicator& group, const Tensor& local, int from_dim,
                      int to_dim, std::string_view name) {
  const int64_t n = group.size();
  CHECK_EQ(local.dim(to_dim) % n, 0) << local.shape();
  const Shape slice = WithDim(local.shape(), to_dim, local.dim(to_dim) / n);
  const Shape stacked = {n, slice.num_elements()};
  const Tensor sent = Swapped(local, local.shape().elements_before(to_dim), n,
                              stacked, MemoryCategory::kCommunication);
  // Where nothing lies before the slices what arrives is the result itself.
  const int64_t before = slice.elements_before(from_dim);
  const Tensor received =
      Tensor::Empty(local.device(), stacked, local.dtype(),
                    before == 1 ? MemoryCategory::kActivations
                                : MemoryCategory::kCommunication,
                    "exchanged slices");
  group.AllToAll(sent, received, name).Wait();
  return Swapped(received, n, before,
                 WithDim(slice, from_dim, slice.dim(from_dim) * n),
                 MemoryCategory::kActivations);
}

Tensor SliceDim(const Tensor& full, int dim, int parts, int index) {
  CHECK_EQ(full.dim(dim) % parts, 0);
  const int64_t count = full.dim(dim) / parts;
  return CopySlice(full, dim, index * count, (index + 1) * count);
}

Tensor PlaceInDim(const Tensor& local, int dim, int parts, int index) {
  const Tensor full = Tensor::Zeros(
      local.device(), WithDim(local.shape(), dim, local.dim(dim) * parts),
      local.dtype(), MemoryCategory::kActivations, "placed slice");
  WriteSlice(local, dim, index * local.dim(dim), full);
  return full;
}

}  // namespace trireme
