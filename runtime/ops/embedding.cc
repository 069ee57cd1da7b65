#include "runtime/ops/embedding.h"

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

RowIndices Lookup(const Tensor& table, const Tensor& indices) {
  CHECK_EQ(table.rank(), 2);
  CHECK_EQ(indices.dtype(), DType::kInt32);
  return {.rows = table.dim(0),
          .width = table.dim(1),
          .count = indices.num_elements(),
          .indices = static_cast<const int32_t*>(indices.raw_data())};
}

}  // namespace

Tensor GatherRows(const Tensor& table, const Tensor& indices) {
  const RowIndices lookup = Lookup(table, indices);
  Tensor out =
      Tensor::Empty(table.device(), {lookup.count, lookup.width}, table.dtype(),
                    MemoryCategory::kActivations, "embedding");
  Device& device = table.device();
  device.kernels().embedding.gather_rows(device.stream(), table.dtype(), lookup,
                                         table.raw_data(), out.raw_data());
  return out;
}

void ScatterAddRows(const Tensor& rows, const Tensor& indices,
                    const Tensor& table) {
  const RowIndices lookup = Lookup(table, indices);
  CHECK_EQ(rows.dim(-1), lookup.width);
  CHECK_EQ(rows.num_elements(), lookup.count * lookup.width);
  CHECK_EQ(table.dtype(), ComputeDType(rows.dtype()));
  Device& device = table.device();
  device.kernels().embedding.scatter_add_rows(
      device.stream(), rows.dtype(), lookup, rows.raw_data(), table.raw_data());
}

Tensor TimestepEmbedding(const Tensor& times, int64_t channels,
                         double max_period, DType dtype) {
  CHECK_EQ(channels % 2, 0);
  const int64_t n = times.num_elements();
  Tensor out = Tensor::Empty(times.device(), {n, channels}, dtype,
                             MemoryCategory::kActivations, "time embedding");
  Device& device = times.device();
  device.kernels().embedding.timestep_embedding(
      device.stream(), times.dtype(), dtype, n, channels, max_period,
      times.raw_data(), out.raw_data());
  return out;
}

Tensor Patchify(const Tensor& x, int64_t patch) {
  CHECK_EQ(x.rank(), 4);
  const PatchArguments a = {.dtype = x.dtype(),
                            .batch = x.dim(0),
                            .channels = x.dim(1),
                            .height = x.dim(2),
                            .width = x.dim(3),
                            .patch = patch};
  CHECK(a.height % patch == 0 && a.width % patch == 0)
      << x.shape() << " in patches of " << patch;
  Tensor tokens =
      Tensor::Empty(x.device(),
                    {a.batch, a.height / patch * (a.width / patch),
                     patch * patch * a.channels},
                    x.dtype(), MemoryCategory::kActivations, "patches");
  Device& device = x.device();
  device.kernels().embedding.patchify(device.stream(), a, x.raw_data(),
                                      tokens.raw_data());
  return tokens;
}

Tensor Unpatchify(const Tensor& tokens, int64_t patch, int64_t channels,
                  int64_t height, int64_t width) {
  const int64_t batch = tokens.dim(0);
  CHECK_EQ(tokens.num_elements(), batch * channels * height * width);
  Tensor x =
      Tensor::Empty(tokens.device(), {batch, channels, height, width},
                    tokens.dtype(), MemoryCategory::kActivations, "pictures");
  Device& device = tokens.device();
  device.kernels().embedding.unpatchify(device.stream(),
                                        {.dtype = tokens.dtype(),
                                         .batch = batch,
                                         .channels = channels,
                                         .height = height,
                                         .width = width,
                                         .patch = patch},
                                        tokens.raw_data(), x.raw_data());
  return x;
}

}  // namespace trireme
