// Tensors of a checkpoint, of weights, of adapters, of caches.

#include "runtime/checkpoint/safetensors.h"
#include "runtime/device/cpu_device.h"
#include "tests/fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  static const ScratchFolder folder;
  const auto file = SafetensorsFile::Open(
      folder.Write("model.safetensors", TextOf(data, size)));
  if (!file.ok()) return 0;
  CpuDevice device(int64_t{1} << 30);
  for (const auto& [name, entry] : (*file)->tensors()) {
    (void)ReadTensor(**file, name, device);
  }
  return 0;
}
