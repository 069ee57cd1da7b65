#include "runtime/ops/transfer.h"

#include "runtime/core/log.h"

namespace trireme {

void Transfer(const Tensor& source, const Tensor& target, Stream& stream) {
  CHECK(source.dtype() == target.dtype());
  CHECK_EQ(source.num_elements(), target.num_elements());
  if (source.device().dry() || target.device().dry()) return;
  stream.CopyBytes(target.raw_data(), source.raw_data(), source.bytes());
}

}  // namespace trireme
