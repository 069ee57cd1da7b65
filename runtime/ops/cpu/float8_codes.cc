#include "runtime/ops/cpu/float8_codes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "runtime/ops/kernels/float8.h"

namespace trireme {
namespace {

constexpr int kBias = 7;
constexpr int kMantissaBits = 3;
// Of a float.
constexpr int kFloatBias = 127;
constexpr int kFloatMantissaBits = 23;
constexpr int kDroppedBits = kFloatMantissaBits - kMantissaBits;
// The least number with a hidden bit, and the step below it.
constexpr float kLeastNormal = 0x1p-6f;
constexpr float kSteps = 0x1p9f;

float ValueOf(uint8_t code) {
  const int exponent = (code >> kMantissaBits) & 0xf;
  const int mantissa = code & 0x7;
  if ((code & kFloat8Nan) == kFloat8Nan) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  const int significand = exponent == 0 ? mantissa : 8 + mantissa;
  const float magnitude =
      std::ldexp(static_cast<float>(significand),
                 std::max(exponent, 1) - kBias - kMantissaBits);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

std::array<float, 256> MakeValues() {
  std::array<float, 256> values;
  for (int code = 0; code < 256; ++code) {
    values[code] = ValueOf(static_cast<uint8_t>(code));
  }
  return values;
}

}  // namespace

uint8_t ToFloat8Code(float x) {
  if (std::isnan(x)) return kFloat8Nan;
  const float magnitude = std::min(std::abs(x), kFloat8Most);
  uint32_t code = 0;
  if (magnitude < kLeastNormal) {
    // A carry goes on into the exponent, here and below.
    code = static_cast<uint32_t>(std::nearbyint(magnitude * kSteps));
  } else {
    const auto bits = std::bit_cast<uint32_t>(magnitude);
    const uint32_t half_less_one = (uint32_t{1} << (kDroppedBits - 1)) - 1;
    const uint32_t odd = (bits >> kDroppedBits) & 1;
    code = ((bits + half_less_one + odd) >> kDroppedBits) -
           (uint32_t{kFloatBias - kBias} << kMantissaBits);
  }
  return static_cast<uint8_t>(code | (std::signbit(x) ? 0x80 : 0));
}

const std::array<float, 256>& Float8Values() {
  static const std::array<float, 256> values = MakeValues();
  return values;
}

}  // namespace trireme
