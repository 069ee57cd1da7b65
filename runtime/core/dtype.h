// Element types of tensors, and the 16-bit storage types.
//
// Compute types: kernels read kBFloat16, kFloat16 and kFloat32 as float and
// kFloat64 as double; sums are kept in that compute type.

#ifndef TRIREME_RUNTIME_CORE_DTYPE_H_
#define TRIREME_RUNTIME_CORE_DTYPE_H_

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "runtime/core/log.h"

namespace trireme {

enum class DType : uint8_t {
  kFloat32,
  kBFloat16,
  kFloat64,
  kInt32,
  kInt64,
  kBool,
  kUint8,
  kFloat16,
};

// Bytes of one element.
int64_t DTypeSize(DType dtype);

// "fp32", "bf16", "fp64", "int32", "int64", "bool", "uint8", "fp16".
std::string_view DTypeName(DType dtype);

// The inverse of DTypeName; nothing for an unknown name.
std::optional<DType> DTypeFromName(std::string_view name);

bool IsFloating(DType dtype);
// bf16 and fp16.
bool IsHalf(DType dtype);

std::ostream& operator<<(std::ostream& out, DType dtype);

// The upper half of an IEEE float. Conversion rounds to nearest even; NaN
// stays NaN.
struct BFloat16 {
  uint16_t bits = 0;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const uint32_t wide = std::bit_cast<uint32_t>(value);
    if ((wide & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<uint16_t>((wide >> 16) | 0x40u);
    } else {
      bits =
          static_cast<uint16_t>((wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16);
    }
  }
  explicit operator float() const {
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
  explicit operator double() const { return static_cast<float>(*this); }
};

// IEEE half precision. Conversion rounds to nearest even; what is too large
// becomes infinite; NaN stays NaN.
struct Float16 {
  uint16_t bits = 0;

  Float16() = default;
  explicit Float16(float value);
  explicit operator float() const;
  explicit operator double() const { return static_cast<float>(*this); }
};

// DTypeOf<T>() maps a C++ element type to its DType.
template <typename T>
constexpr DType DTypeOf();
template <>
constexpr DType DTypeOf<float>() {
  return DType::kFloat32;
}
template <>
constexpr DType DTypeOf<BFloat16>() {
  return DType::kBFloat16;
}
template <>
constexpr DType DTypeOf<Float16>() {
  return DType::kFloat16;
}
template <>
constexpr DType DTypeOf<double>() {
  return DType::kFloat64;
}
template <>
constexpr DType DTypeOf<int32_t>() {
  return DType::kInt32;
}
template <>
constexpr DType DTypeOf<int64_t>() {
  return DType::kInt64;
}
template <>
constexpr DType DTypeOf<bool>() {
  return DType::kBool;
}
template <>
constexpr DType DTypeOf<uint8_t>() {
  return DType::kUint8;
}

// The type that sums of T are kept in.
template <typename T>
struct ComputeTypeOf {
  using type = float;
};
template <>
struct ComputeTypeOf<double> {
  using type = double;
};
template <typename T>
using ComputeType = typename ComputeTypeOf<T>::type;

// The same of a floating dtype: fp64 for fp64, else fp32. Sums, statistics,
// gradients, master weights and moments are kept in it.
constexpr DType ComputeDType(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

// Calls f(T{}) with the C++ type of a floating dtype.
template <typename F>
auto DispatchFloating(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kBFloat16:
      return std::forward<F>(f)(BFloat16{});
    case DType::kFloat16:
      return std::forward<F>(f)(Float16{});
    case DType::kFloat64:
      return std::forward<F>(f)(double{});
    default:
      CHECK(dtype == DType::kFloat32) << "not a floating type: " << dtype;
      return std::forward<F>(f)(float{});
  }
}

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_DTYPE_H_
