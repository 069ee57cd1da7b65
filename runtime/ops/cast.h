// A tensor's values in another tensor's dtype.

#ifndef TRIREME_RUNTIME_OPS_CAST_H_
#define TRIREME_RUNTIME_OPS_CAST_H_

#include "runtime/device/tensor.h"

namespace trireme {

// y = x, rounded to y's dtype, without memory of its own. Both of one device
// and with as many elements.
void CastInto(const Tensor& x, const Tensor& y);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CAST_H_
