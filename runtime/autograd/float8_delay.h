// What a linear layer that multiplies in FP8 keeps from step to step where its
// scales are those of earlier steps (delayed scaling;
// parallel/parameters/delayed_scaling.h): one scale for each of its three
// operands.

#ifndef TRIREME_RUNTIME_AUTOGRAD_FLOAT8_DELAY_H_
#define TRIREME_RUNTIME_AUTOGRAD_FLOAT8_DELAY_H_

#include <array>

#include "runtime/device/tensor.h"

namespace trireme {

// What the layer's products multiply: two of its input, its weight and the
// gradient of its result.
enum class Float8Operand { kInput, kWeight, kGradient };
inline constexpr int kFloat8Operands = 3;

struct Float8Delay {
  // fp32 [kFloat8Operands]: what operands are divided by in this step, and the
  // least scales that would have reached all that came so far
  // (runtime/ops/float8.h). Undefined: scales are not those of earlier steps.
  Tensor scales;
  Tensor needed;
  // Whether an earlier step had any of the operand but zeros. An operand of
  // which nothing is known is rounded by scales of its own rows.
  std::array<bool, kFloat8Operands> known = {};

  bool active() const { return scales.defined(); }
  // Whether a product of these has scales of earlier steps.
  bool Knows(Float8Operand a, Float8Operand b) const {
    return active() && known[static_cast<int>(a)] && known[static_cast<int>(b)];
  }
  Tensor ScaleOf(Float8Operand operand) const { return Part(scales, operand); }
  Tensor NeededOf(Float8Operand operand) const { return Part(needed, operand); }

 private:
  static Tensor Part(const Tensor& of_all, Float8Operand operand) {
    const int at = static_cast<int>(operand);
    return of_all.Slice(at, at + 1);
  }
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_AUTOGRAD_FLOAT8_DELAY_H_
