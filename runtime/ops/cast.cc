#include "runtime/ops/cast.h"

#include "runtime/core/log.h"
#include "runtime/ops/kernels.h"

namespace trireme {

void CastInto(const Tensor& x, const Tensor& y) {
  Device& device = x.device();
  CHECK(&device == &y.device());
  CHECK_EQ(x.num_elements(), y.num_elements());
  device.kernels().pointwise.cast(device.stream(), x.dtype(), y.dtype(),
                                  x.num_elements(), x.raw_data(), y.raw_data());
}

}  // namespace trireme
