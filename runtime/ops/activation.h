// The activation functions that ops know by name.

#ifndef TRIREME_RUNTIME_OPS_ACTIVATION_H_
#define TRIREME_RUNTIME_OPS_ACTIVATION_H_

namespace trireme {

// GELU by its tanh approximation.
enum class Activation { kNone, kGeluTanh, kSilu };

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_ACTIVATION_H_
