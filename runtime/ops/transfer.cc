#include "runtime/ops/transfer.h"

#include <cstring>

#include "runtime/core/log.h"

namespace trireme {

void Transfer(const Tensor& source, const Tensor& target, Stream& stream) {
  CHECK(source.dtype() == target.dtype());
  CHECK_EQ(source.num_elements(), target.num_elements());
  if (source.device().dry() || target.device().dry()) return;
  stream.Launch([from = source.raw_data(), to = target.raw_data(),
                 bytes = source.bytes()] { std::memcpy(to, from, bytes); });
}

}  // namespace trireme
