#include "parallel/head_exchange.h"

#include "parallel/dim_collectives.h"
#include "runtime/core/log.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

// x seen as [rows, columns, ..] → [columns, rows, ..], in the given shape.
Tensor Swapped(const Tensor& x, int64_t rows, int64_t columns,
               const Shape& shape, MemoryCategory category) {
  if (rows == 1 || columns == 1) return x.Reshape(shape);
  const Tensor y =
      Tensor::Empty(x.device(), shape, x.dtype(), category, "head exchange");
  SwapRowsAndColumns(x, rows, columns, y);
  return y;
}

// Slice i of the leading dim goes to rank i and comes from rank i.
Tensor AllToAll(Communicator& group, const Tensor& x, std::string_view name,
                MemoryCategory category) {
  const Tensor y = Tensor::Empty(x.device(), x.shape(), x.dtype(), category,
                                 "head exchange");
  group.AllToAll(x, y, name).Wait();
  return y;
}

}  // namespace

Tensor ExchangeHeadsForTokens(Communicator& group, const Tensor& x, int parts,
                              std::string_view name) {
  const int64_t ranks = group.size();
  if (ranks == 1) return x;
  const int64_t batch = x.dim(0), tokens = x.dim(1);
  const int64_t width = x.dim(2) / ranks;
  CHECK_EQ(x.dim(2) % (parts * ranks), 0) << x.shape();
  // What arrives of a single sample is the result itself.
  const Tensor received = AllToAll(
      group,
      Swapped(x, batch * tokens * parts, ranks, {ranks, batch, tokens, width},
              MemoryCategory::kCommunication),
      name,
      batch == 1 ? MemoryCategory::kActivations
                 : MemoryCategory::kCommunication);
  return Swapped(received, ranks, batch, {batch, ranks * tokens, width},
                 MemoryCategory::kActivations);
}

Tensor ExchangeTokensForHeads(Communicator& group, const Tensor& x, int parts,
                              std::string_view name) {
  const int64_t ranks = group.size();
  if (ranks == 1) return x;
  const int64_t batch = x.dim(0), tokens = x.dim(1) / ranks;
  const int64_t width = x.dim(2);
  CHECK_EQ(x.dim(1) % ranks, 0) << x.shape();
  const Tensor received =
      AllToAll(group,
               Swapped(x, batch, ranks, {ranks, batch, tokens, width},
                       MemoryCategory::kCommunication),
               name, MemoryCategory::kCommunication);
  return Swapped(received, ranks, batch * tokens * parts,
                 {batch, tokens, ranks * width}, MemoryCategory::kActivations);
}

Tensor TakeHeads(const Communicator& group, const Tensor& x, int parts) {
  if (group.size() == 1) return x;
  return SliceDim(x.Reshape({x.dim(0) * x.dim(1) * parts, -1}), 1, group.size(),
                  group.rank())
      .Reshape({x.dim(0), x.dim(1), -1});
}

Tensor SpreadHeads(const Communicator& group, const Tensor& x, int parts) {
  if (group.size() == 1) return x;
  return PlaceInDim(x.Reshape({x.dim(0) * x.dim(1) * parts, -1}), 1,
                    group.size(), group.rank())
      .Reshape({x.dim(0), x.dim(1), -1});
}

Tensor GatherHeads(Communicator& group, const Tensor& x,
                   std::string_view name) {
  if (group.size() == 1) return x;
  return StartGather(group, x, 2, name).Wait();
}

}  // namespace trireme
