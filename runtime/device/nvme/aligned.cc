#include "runtime/device/nvme/aligned.h"

#include "runtime/device/nvme/extents.h"

namespace trireme {

Tensor EmptyAligned(Device& host, int64_t elements, DType dtype,
                    MemoryCategory category, std::string_view label) {
  constexpr int64_t kAlignment = Extents::kAlignment;
  const int64_t size = DTypeSize(dtype);
  const Tensor memory = Tensor::Empty(host, {elements + kAlignment / size},
                                      dtype, category, label);
  const auto beyond = static_cast<int64_t>(
      reinterpret_cast<uintptr_t>(memory.raw_data()) % kAlignment);
  const int64_t begin = beyond == 0 ? 0 : (kAlignment - beyond) / size;
  return memory.Slice(begin, begin + elements);
}

}  // namespace trireme
