#include "runtime/core/shape.h"

#include "fmt/format.h"
#include "fmt/ranges.h"
#include "runtime/core/log.h"

namespace trireme {

Shape::Shape(std::initializer_list<int64_t> dims)
    : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const int64_t> dims) {
  for (int64_t extent : dims) push_back(extent);
}

void Shape::push_back(int64_t extent) {
  CHECK_LT(rank_, kMaxRank);
  CHECK_GE(extent, 0);
  dims_[rank_++] = extent;
}

int Shape::Normalize(int index) const {
  const int normal = index < 0 ? index + rank() : index;
  CHECK(normal >= 0 && normal < rank())
      << "dim " << index << " of shape " << ToString();
  return normal;
}

int64_t Shape::dim(int index) const { return dims_[Normalize(index)]; }

void Shape::set_dim(int index, int64_t extent) {
  CHECK_GE(extent, 0);
  dims_[Normalize(index)] = extent;
}

int64_t Shape::num_elements() const { return elements_before(rank()); }

int64_t Shape::elements_before(int index) const {
  int64_t product = 1;
  for (int i = 0; i < index; ++i) product *= dims_[i];
  return product;
}

int64_t Shape::elements_after(int index) const {
  int64_t product = 1;
  for (int i = Normalize(index) + 1; i < rank(); ++i) product *= dims_[i];
  return product;
}

std::string Shape::ToString() const {
  return fmt::format("[{}]", fmt::join(dims(), ", "));
}

}  // namespace trireme
