// Codes of FP8 E4M3 (Micikevicius et al., "FP8 formats for deep learning"): a
// sign, four bits of an exponent with bias 7, three of a mantissa. The lowest
// exponent has no hidden bit, there are no infinities, all ones is NaN.

#ifndef TRIREME_RUNTIME_OPS_CPU_FLOAT8_CODES_H_
#define TRIREME_RUNTIME_OPS_CPU_FLOAT8_CODES_H_

#include <array>
#include <cstdint>

namespace trireme {

inline constexpr uint8_t kFloat8Nan = 0x7f;

// To nearest even; what is beyond 448 becomes 448.
uint8_t ToFloat8Code(float x);

// What each code stands for.
const std::array<float, 256>& Float8Values();

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_FLOAT8_CODES_H_
