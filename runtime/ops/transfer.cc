#include "runtime/ops/transfer.h"

#include "runtime/core/log.h"

namespace trireme {

void Transfer(const Tensor& source, const Tensor& target, Stream& stream) {
  CHECK(source.dtype() == target.dtype());
  TransferBytes(source, target, stream);
}

void TransferBytes(const Tensor& source, const Tensor& target, Stream& stream) {
  CHECK_EQ(source.bytes(), target.bytes());
  if (source.device().dry() || target.device().dry()) return;
  stream.CopyBytes(target.raw_data(), source.raw_data(), source.bytes());
}

}  // namespace trireme
