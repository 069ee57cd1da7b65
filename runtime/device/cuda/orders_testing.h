// What tests ask of the GPU that they run on, an emulated or a real one.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_ORDERS_TESTING_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_ORDERS_TESTING_H_

namespace trireme {

// Nothing happens before somebody waits for it.
inline constexpr int kLazyOrder = -1;

// From now on an emulated GPU works in this order: lazily, or as the seed draws
// it. A real one has its own. Nothing is in flight.
void UseOrder(int order);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_ORDERS_TESTING_H_
