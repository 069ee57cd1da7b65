#include "runtime/checkpoint/tensor_bytes.h"

#include <cstring>

#include "runtime/core/log.h"

namespace trireme {

std::span<const std::byte> BytesForFile(const Tensor& tensor) {
  CHECK(tensor.device().on_host());
  return {static_cast<const std::byte*>(tensor.raw_data()),
          static_cast<size_t>(tensor.bytes())};
}

void SetBytesFromFile(const Tensor& tensor, int64_t offset,
                      std::span<const std::byte> bytes) {
  CHECK(tensor.device().on_host());
  const auto size = static_cast<int64_t>(bytes.size());
  CHECK_GE(offset, 0);
  CHECK_LE(offset + size, tensor.bytes());
  if (size == 0) return;
  std::memcpy(static_cast<std::byte*>(tensor.raw_data()) + offset, bytes.data(),
              bytes.size());
}

}  // namespace trireme
