#include "runtime/core/dtype.h"

#include <array>

namespace trireme {
namespace {

struct DTypeInfo {
  std::string_view name;
  int64_t size;
  bool floating;
};

// In the order of the enumeration.
constexpr std::array<DTypeInfo, 8> kInfos = {{
    {"fp32", 4, true},
    {"bf16", 2, true},
    {"fp64", 8, true},
    {"int32", 4, false},
    {"int64", 8, false},
    {"bool", 1, false},
    {"uint8", 1, false},
    {"fp16", 2, true},
}};

const DTypeInfo& InfoOf(DType dtype) {
  return kInfos[static_cast<size_t>(dtype)];
}

}  // namespace

int64_t DTypeSize(DType dtype) { return InfoOf(dtype).size; }

std::string_view DTypeName(DType dtype) { return InfoOf(dtype).name; }

std::optional<DType> DTypeFromName(std::string_view name) {
  for (size_t i = 0; i < kInfos.size(); ++i) {
    if (kInfos[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

bool IsFloating(DType dtype) { return InfoOf(dtype).floating; }

bool IsHalf(DType dtype) {
  return dtype == DType::kBFloat16 || dtype == DType::kFloat16;
}

Float16::Float16(float value) {
  const uint32_t wide = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(wide >> 16 & 0x8000u);
  const uint32_t magnitude = wide & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {  // NaN
    bits = static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
  } else if (magnitude >= 0x477ff000u) {  // rounds to 2^16 or more
    bits = sign | 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Below the smallest normal number, 2^-14: adding 1/2 leaves the bits of
    // the subnormal one, rounded, at the end of the sum.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    bits = static_cast<uint16_t>(sign |
                                 (std::bit_cast<uint32_t>(sum) - 0x3f000000u));
  } else {
    const uint32_t odd = magnitude >> 13 & 1u;
    const uint32_t rounded = magnitude - 0x38000000u + 0xfffu + odd;
    bits = static_cast<uint16_t>(sign | rounded >> 13);
  }
}

Float16::operator float() const {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {
    return std::bit_cast<float>(sign | 0x7f800000u |
                                (magnitude & 0x3ffu) << 13);
  }
  // The exponent's bias differs by 112; the product also makes subnormal
  // numbers normal.
  const float scaled =
      std::bit_cast<float>(magnitude << 13) * std::bit_cast<float>(0x77800000u);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

std::ostream& operator<<(std::ostream& out, DType dtype) {
  return out << DTypeName(dtype);
}

}  // namespace trireme
