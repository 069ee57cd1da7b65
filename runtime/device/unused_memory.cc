#include "runtime/device/unused_memory.h"

namespace trireme {
namespace {

// Null where nobody notices.
UnusedMemoryGuard* GuardOf(const Tensor& tensor) {
  if (!tensor.defined() || tensor.raw_data() == nullptr) return nullptr;
  return dynamic_cast<UnusedMemoryGuard*>(&tensor.device());
}

}  // namespace

void EndUse(const Tensor& tensor, Stream& stream) {
  if (UnusedMemoryGuard* const guard = GuardOf(tensor)) {
    guard->Close(tensor.raw_data(), tensor.bytes(), stream);
  }
}

void BeginUse(const Tensor& tensor, Stream& stream) {
  if (UnusedMemoryGuard* const guard = GuardOf(tensor)) {
    guard->Open(tensor.raw_data(), tensor.bytes(), stream);
  }
}

}  // namespace trireme
