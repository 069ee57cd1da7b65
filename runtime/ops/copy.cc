#include "runtime/ops/copy.h"

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {
namespace {

void CheckInside(const StridedCopy& copy, const RunPlaces& places,
                 const Tensor& tensor) {
  const int64_t last = places.offset + (copy.outer - 1) * places.outer +
                       (copy.inner - 1) * places.inner;
  CHECK(places.offset >= 0 && places.outer >= 0 && places.inner >= 0 &&
        last + copy.run <= tensor.num_elements())
      << "runs of " << copy.run << " up to element " << last << " of "
      << tensor.shape();
}

bool Empty(const StridedCopy& copy) {
  return copy.outer == 0 || copy.inner == 0 || copy.run == 0;
}

// Slice [begin, begin + count) of `dim` in a tensor of that shape: one run for
// each index of the dims before it.
RunPlaces SlicePlaces(const Shape& shape, int dim, int64_t begin) {
  const int64_t after = shape.elements_after(dim);
  return {.offset = begin * after, .outer = shape.dim(dim) * after};
}

StridedCopy SliceCopy(const Shape& whole, int dim, int64_t count) {
  return {.outer = whole.elements_before(whole.Normalize(dim)),
          .run = count * whole.elements_after(dim)};
}

void CheckSlice(const Tensor& x, int dim, int64_t begin, int64_t end) {
  CHECK(0 <= begin && begin <= end && end <= x.dim(dim))
      << "[" << begin << ", " << end << ") of dim " << dim << " of "
      << x.shape();
}

}  // namespace

void CopyStrided(const StridedCopy& copy, const Tensor& source,
                 const Tensor& target) {
  CHECK_EQ(source.dtype(), target.dtype());
  if (Empty(copy)) return;
  CheckInside(copy, copy.from, source);
  CheckInside(copy, copy.to, target);
  Device& device = target.device();
  device.kernels().copy.strided(device.stream(), target.dtype(), copy,
                                source.raw_data(), target.raw_data());
}

void CopyRuns(std::span<const ElementRun> runs, const Tensor& source,
              const Tensor& target) {
  CHECK_EQ(source.dtype(), target.dtype());
  for (const ElementRun& run : runs) {
    CHECK(run.count >= 0 && run.from >= 0 && run.to >= 0 &&
          run.from + run.count <= source.num_elements() &&
          run.to + run.count <= target.num_elements())
        << run.count << " elements from " << run.from << " of "
        << source.shape() << " to " << run.to << " of " << target.shape();
  }
  // Copies between a dry tensor and a real one are those of a run that is
  // ending for want of memory.
  Device& device = source.device().dry() ? source.device() : target.device();
  source.device().stream().Record().Wait(target.device().stream());
  device.kernels().copy.runs(device.stream(), target.dtype(), runs,
                             source.raw_data(), target.raw_data());
  target.device().stream().Record().Wait(source.device().stream());
}

Tensor CopySlice(const Tensor& x, int dim, int64_t begin, int64_t end,
                 std::string_view label) {
  CheckSlice(x, dim, begin, end);
  Shape shape = x.shape();
  shape.set_dim(dim, end - begin);
  const Tensor y = Tensor::Empty(x.device(), shape, x.dtype(),
                                 MemoryCategory::kActivations, label);
  StridedCopy copy = SliceCopy(x.shape(), dim, end - begin);
  copy.from = SlicePlaces(x.shape(), dim, begin);
  copy.to = SlicePlaces(shape, dim, 0);
  CopyStrided(copy, x, y);
  return y;
}

void WriteSlice(const Tensor& source, int dim, int64_t begin,
                const Tensor& target) {
  const int64_t count = source.dim(dim);
  CheckSlice(target, dim, begin, begin + count);
  StridedCopy copy = SliceCopy(target.shape(), dim, count);
  CHECK_EQ(copy.outer * copy.run, source.num_elements())
      << source.shape() << " into " << target.shape();
  copy.from = SlicePlaces(source.shape(), dim, 0);
  copy.to = SlicePlaces(target.shape(), dim, begin);
  CopyStrided(copy, source, target);
}

void ZeroSlice(const Tensor& target, int dim, int64_t begin, int64_t end) {
  CheckSlice(target, dim, begin, end);
  StridedCopy copy = SliceCopy(target.shape(), dim, end - begin);
  copy.to = SlicePlaces(target.shape(), dim, begin);
  if (Empty(copy)) return;
  Device& device = target.device();
  device.kernels().copy.strided(device.stream(), target.dtype(), copy, nullptr,
                                target.raw_data());
}

void SwapRowsAndColumns(const Tensor& x, int64_t rows, int64_t columns,
                        const Tensor& target) {
  CHECK_EQ(x.num_elements(), target.num_elements());
  CHECK_EQ(x.num_elements() % (rows * columns), 0);
  const int64_t run = x.num_elements() / (rows * columns);
  CopyStrided({.outer = columns,
               .inner = rows,
               .run = run,
               .from = {.outer = run, .inner = columns * run},
               .to = {.outer = rows * run, .inner = run}},
              x, target);
}

Tensor RepeatOverTokens(const Tensor& x, int64_t tokens,
                        std::string_view label) {
  CHECK_EQ(x.rank(), 2);
  const int64_t width = x.dim(1);
  const Tensor y =
      Tensor::Empty(x.device(), {x.dim(0), tokens, width}, x.dtype(),
                    MemoryCategory::kActivations, label);
  CopyStrided({.outer = x.dim(0),
               .inner = tokens,
               .run = width,
               .from = {.outer = width},
               .to = {.outer = tokens * width, .inner = width}},
              x, y);
  return y;
}

void Fill(const Tensor& target, double value) {
  Device& device = target.device();
  device.kernels().copy.fill(device.stream(), target.dtype(),
                             target.num_elements(), value, target.raw_data());
}

Tensor Full(Device& device, const Shape& shape, DType dtype, double value,
            MemoryCategory category, std::string_view label) {
  const Tensor tensor = Tensor::Empty(device, shape, dtype, category, label);
  Fill(tensor, value);
  return tensor;
}

Tensor AddOffset(const Tensor& x, int32_t offset, std::string_view label) {
  CHECK_EQ(x.dtype(), DType::kInt32);
  const Tensor y = Tensor::EmptyLike(x, label);
  Device& device = x.device();
  device.kernels().copy.add_offset(device.stream(), x.num_elements(), offset,
                                   static_cast<const int32_t*>(x.raw_data()),
                                   static_cast<int32_t*>(y.raw_data()));
  return y;
}

Tensor MaskedFill(const Tensor& x, const Tensor& mask, int32_t value,
                  std::string_view label) {
  CHECK_EQ(x.dtype(), DType::kInt32);
  CHECK_EQ(mask.dtype(), DType::kUint8);
  CHECK_EQ(mask.num_elements(), x.num_elements());
  const Tensor y = Tensor::EmptyLike(x, label);
  Device& device = x.device();
  device.kernels().copy.masked_fill(
      device.stream(), x.num_elements(), value,
      static_cast<const int32_t*>(x.raw_data()),
      static_cast<const uint8_t*>(mask.raw_data()),
      static_cast<int32_t*>(y.raw_data()));
  return y;
}

}  // namespace trireme
