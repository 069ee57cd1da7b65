// The activation functions that ops know by name.

#ifndef TRIREME_RUNTIME_OPS_ACTIVATION_H_
#define TRIREME_RUNTIME_OPS_ACTIVATION_H_

namespace trireme {

// GELU by its tanh approximation, and as it is defined: x·Φ(x).
enum class Activation { kNone, kGeluTanh, kSilu, kGelu, kRelu };

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_ACTIVATION_H_
