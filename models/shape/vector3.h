// Points and directions in space. Three numbers without padding: an array of
// n of them is a [n, 3] array of T.

#ifndef TRIREME_MODELS_SHAPE_VECTOR3_H_
#define TRIREME_MODELS_SHAPE_VECTOR3_H_

#include <cmath>

namespace trireme {

template <typename T>
struct Vector3 {
  T x = 0;
  T y = 0;
  T z = 0;

  bool operator==(const Vector3&) const = default;

  T operator[](int axis) const { return axis == 0 ? x : axis == 1 ? y : z; }

  template <typename U>
  Vector3<U> As() const {
    return {static_cast<U>(x), static_cast<U>(y), static_cast<U>(z)};
  }
};

using Vector3f = Vector3<float>;
using Vector3d = Vector3<double>;
static_assert(sizeof(Vector3f) == 3 * sizeof(float));

template <typename T>
Vector3<T> operator+(const Vector3<T>& a, const Vector3<T>& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z};
}

template <typename T>
Vector3<T> operator-(const Vector3<T>& a, const Vector3<T>& b) {
  return {a.x - b.x, a.y - b.y, a.z - b.z};
}

template <typename T>
Vector3<T> operator*(const Vector3<T>& a, T s) {
  return {a.x * s, a.y * s, a.z * s};
}

template <typename T>
T Dot(const Vector3<T>& a, const Vector3<T>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}

template <typename T>
Vector3<T> Cross(const Vector3<T>& a, const Vector3<T>& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

template <typename T>
T Length(const Vector3<T>& a) {
  return std::sqrt(Dot(a, a));
}

// Of length 1; the null vector stays.
template <typename T>
Vector3<T> Normalized(const Vector3<T>& a) {
  const T length = Length(a);
  return length > 0 ? a * (1 / length) : a;
}

template <typename T>
bool IsFinite(const Vector3<T>& a) {
  return std::isfinite(a.x) && std::isfinite(a.y) && std::isfinite(a.z);
}

}  // namespace trireme

#endif  // TRIREME_MODELS_SHAPE_VECTOR3_H_
