#include "models/batch.h"

#include <algorithm>
#include <array>
#include <functional>
#include <iterator>
#include <numeric>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/voxel_order.h"
#include "runtime/device/host.h"

namespace trireme {
namespace {

Batch MakeBatch(std::span<const FieldSpec> fields, int64_t samples,
                const std::function<Tensor(const FieldSpec&, int64_t)>& make) {
  Batch batch;
  batch.step = 1;
  batch.samples.assign(samples, 0);
  for (const FieldSpec& spec : fields) {
    Field field;
    for (int64_t i = 0; spec.max_rows > 0 && i <= samples; ++i) {
      field.offsets.push_back(i * spec.max_rows);
    }
    field.values =
        make(spec, spec.max_rows > 0 ? samples * spec.max_rows : samples);
    batch.fields.emplace(spec.name, std::move(field));
  }
  return batch;
}

template <typename T>
Tensor Filled(Device& device, const Shape& shape, double value) {
  const std::vector<T> values(shape.num_elements(), static_cast<T>(value));
  return Tensor::FromValues<T>(device, shape, values,
                               MemoryCategory::kActivations, "batch");
}

// [rows, tokens, 3].
Tensor VoxelsOnPlanes(Device& device, const FieldSpec& spec, int64_t rows) {
  const int64_t side = spec.places;
  const int64_t count = std::min(spec.shape.dim(0), side * side * side);
  std::vector<std::array<int32_t, 3>> places;
  for (int64_t i = 0; std::ssize(places) < count; ++i) {
    // Planes 0, 8, .., then 1, 9, ..
    const int64_t in_block = i / side, z = i % side;
    if (z % kVoxelBlock != in_block) continue;
    for (int64_t at = 0; at < side * side && std::ssize(places) < count; ++at) {
      places.push_back({static_cast<int32_t>(at % side),
                        static_cast<int32_t>(at / side),
                        static_cast<int32_t>(z)});
    }
  }
  std::sort(places.begin(), places.end(), [side](const auto& a, const auto& b) {
    return VoxelRank(a[0], a[1], a[2], side) <
           VoxelRank(b[0], b[1], b[2], side);
  });
  places.resize(spec.shape.dim(0), {-1, -1, -1});
  std::vector<int32_t> values;
  for (int64_t row = 0; row < rows; ++row) {
    for (const auto& place : places) {
      values.insert(values.end(), place.begin(), place.end());
    }
  }
  return Tensor::FromValues<int32_t>(device, spec.ShapeOf(rows), values,
                                     MemoryCategory::kActivations, "batch");
}

}  // namespace

std::string TextLayerField(int64_t layer) {
  return "text_layer." + std::to_string(layer);
}

Shape FieldSpec::ShapeOf(int64_t rows) const {
  Shape all;
  all.push_back(rows);
  for (const int64_t extent : shape.dims()) all.push_back(extent);
  return all;
}

const Tensor& Batch::operator[](std::string_view field) const {
  const auto found = fields.find(field);
  CHECK(found != fields.end()) << "the batch has no field " << field;
  return found->second.values;
}

Batch Batch::Slice(int64_t begin, int64_t end) const {
  CHECK(0 <= begin && begin <= end && end <= size()) << begin << " " << end;
  Batch part;
  part.step = step;
  part.counted = counted;
  part.bucket = bucket;
  part.samples.assign(samples.begin() + begin, samples.begin() + end);
  for (const auto& [name, field] : fields) {
    Field& slice = part.fields[name];
    if (field.offsets.empty()) {
      slice.values = field.values.Slice(begin, end);
      continue;
    }
    const int64_t first_row = field.offsets[begin];
    slice.values = field.values.Slice(first_row, field.offsets[end]);
    for (int64_t i = begin; i <= end; ++i) {
      slice.offsets.push_back(field.offsets[i] - first_row);
    }
  }
  return part;
}

double SumOf(const Batch& batch, std::string_view field) {
  if (!batch.Has(field)) return 0;
  const std::vector<int32_t> values = Download<int32_t>(batch[field]);
  return std::accumulate(values.begin(), values.end(), 0.0);
}

Batch EmptyBatch(Device& device, std::span<const FieldSpec> fields,
                 int64_t samples) {
  return MakeBatch(fields, samples, [&](const FieldSpec& spec, int64_t rows) {
    return Tensor::Empty(device, spec.ShapeOf(rows), spec.dtype,
                         MemoryCategory::kActivations, "batch");
  });
}

Batch TypicalBatch(Device& device, std::span<const FieldSpec> fields,
                   int64_t samples) {
  return MakeBatch(fields, samples, [&](const FieldSpec& spec, int64_t rows) {
    if (spec.places > 0) return VoxelsOnPlanes(device, spec, rows);
    const Shape shape = spec.ShapeOf(rows);
    return spec.dtype == DType::kInt32
               ? Filled<int32_t>(device, shape, spec.typical)
               : Filled<float>(device, shape, spec.typical);
  });
}

}  // namespace trireme
