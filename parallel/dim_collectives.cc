#include "parallel/dim_collectives.h"

#include <cstring>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// How slice i of n of a dim lies in the full tensor: for each index of the dims
// before it, one contiguous run.
struct DimLayout {
  int64_t before;
  int64_t run_bytes;
};

DimLayout LayoutOf(const Tensor& slice, int dim) {
  return {slice.shape().elements_before(dim),
          slice.dim(dim) * slice.shape().elements_after(dim) *
              DTypeSize(slice.dtype())};
}

Shape WithDim(Shape shape, int dim, int64_t size) {
  shape.set_dim(dim, size);
  return shape;
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
  const DimLayout layout = LayoutOf(local, dim);
  const Shape shape = WithDim(local.shape(), dim, local.dim(dim) * n);
  if (layout.before == 1) return {stacked.Reshape(shape), std::move(event)};
  return {std::move(event), [stacked, shape, layout, n] {
            const Tensor full =
                Tensor::Empty(stacked.device(), shape, stacked.dtype(),
                              MemoryCategory::kActivations, "gathered slices");
            if (full.device().dry()) return full;
            const auto [before, run] = layout;
            const char* from = static_cast<const char*>(stacked.raw_data());
            char* to = static_cast<char*>(full.raw_data());
            for (int rank = 0; rank < n; ++rank) {
              for (int64_t i = 0; i < before; ++i) {
                std::memcpy(to + (i * n + rank) * run,
                            from + (rank * before + i) * run, run);
              }
            }
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
  const DimLayout layout = LayoutOf(local, dim);
  Tensor stacked = full;
  if (layout.before > 1) {
    stacked = Tensor::Empty(full.device(), full.shape(), full.dtype(),
                            MemoryCategory::kCommunication, name);
    if (!full.device().dry()) {
      const auto [before, run] = layout;
      const char* from = static_cast<const char*>(full.raw_data());
      char* to = static_cast<char*>(stacked.raw_data());
      for (int rank = 0; rank < n; ++rank) {
        for (int64_t i = 0; i < before; ++i) {
          std::memcpy(to + (rank * before + i) * run,
                      from + (i * n + rank) * run, run);
        }
      }
    }
  }
  const int64_t elements = local.num_elements();
  return {local, group.ReduceScatter(stacked.Reshape({n, elements}),
                                     local.Reshape({1, elements}), name)};
}

Tensor SliceDim(const Tensor& full, int dim, int parts, int index) {
  CHECK_EQ(full.dim(dim) % parts, 0);
  const Tensor local = Tensor::Empty(
      full.device(), WithDim(full.shape(), dim, full.dim(dim) / parts),
      full.dtype(), MemoryCategory::kActivations, "slice");
  if (full.device().dry()) return local;
  const auto [before, run] = LayoutOf(local, dim);
  const char* from = static_cast<const char*>(full.raw_data());
  char* to = static_cast<char*>(local.raw_data());
  for (int64_t i = 0; i < before; ++i) {
    std::memcpy(to + i * run, from + (i * parts + index) * run, run);
  }
  return local;
}

Tensor PlaceInDim(const Tensor& local, int dim, int parts, int index) {
  const Tensor full = Tensor::Zeros(
      local.device(), WithDim(local.shape(), dim, local.dim(dim) * parts),
      local.dtype(), MemoryCategory::kActivations, "placed slice");
  if (full.device().dry()) return full;
  const auto [before, run] = LayoutOf(local, dim);
  const char* from = static_cast<const char*>(local.raw_data());
  char* to = static_cast<char*>(full.raw_data());
  for (int64_t i = 0; i < before; ++i) {
    std::memcpy(to + (i * parts + index) * run, from + i * run, run);
  }
  return full;
}

}  // namespace trireme
