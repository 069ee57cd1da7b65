// The extents of a tensor's dims, outermost first (row-major). Negative dim
// indices count from the end.

#ifndef TRIREME_RUNTIME_CORE_SHAPE_H_
#define TRIREME_RUNTIME_CORE_SHAPE_H_

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <span>
#include <string>

namespace trireme {

class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);  // NOLINT: Shape{2, 3} reads well
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t dim(int index) const;
  void set_dim(int index, int64_t extent);
  void push_back(int64_t extent);
  // The product of all extents; 1 for a scalar.
  int64_t num_elements() const;
  // The product of the extents before (after) `index`.
  int64_t elements_before(int index) const;
  int64_t elements_after(int index) const;
  // `index` made non-negative; CHECKs that it is in range.
  int Normalize(int index) const;

  std::span<const int64_t> dims() const {
    return {dims_.data(), static_cast<size_t>(rank_)};
  }

  // "[2, 3]".
  std::string ToString() const;

  friend bool operator==(const Shape&, const Shape&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Shape& shape) {
    return out << shape.ToString();
  }

 private:
  int rank_ = 0;
  std::array<int64_t, kMaxRank> dims_{};  // zeros beyond rank_
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_SHAPE_H_
