// The memory of the emulated GPU, and what of the host's it may reach. Blocks
// hold NaN (all ones) until they are written; they end where the next touch
// ends the process, addresses are not used twice, and the host's code cannot
// touch them.

#ifndef TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_MEMORY_H_
#define TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>

namespace trireme::cuda_emulation {

// Not thread-safe.
class Memory {
 public:
  static constexpr size_t kTotalBytes = size_t{4} << 30;

  Memory();

  // Null where there is not enough.
  void* AllocateOnDevice(size_t bytes);
  void* AllocatePinned(size_t bytes);
  // Pins memory that others hold, until Unregister; false where some of it is
  // pinned already.
  bool Register(void* begin, size_t bytes);
  void Unregister(void* begin);
  // Refuses what is no such block.
  void FreeOnDevice(void* block);
  void FreePinned(void* block);
  size_t free_bytes() const { return kTotalBytes - device_bytes_; }

  // Whether the bytes lie in one block.
  bool OnDevice(const void* begin, size_t bytes) const {
    return Within(device_, begin, bytes);
  }
  bool Pinned(const void* begin, size_t bytes) const {
    return Within(pinned_, begin, bytes) || Within(registered_, begin, bytes);
  }

  // Lets the device touch its blocks; takes them out of the host's reach again.
  void Open();
  void Close();

 private:
  using Blocks = std::map<const char*, size_t>;
  // Takes all blocks out of the host's reach, or puts them there.
  void Protect(bool protect);
  static bool Within(const Blocks& blocks, const void* begin, size_t bytes);

  char* range_;
  size_t range_used_ = 0;
  size_t device_bytes_ = 0;
  bool open_ = false;
  Blocks device_;
  Blocks pinned_;
  Blocks registered_;
};

}  // namespace trireme::cuda_emulation

#endif  // TRIREME_RUNTIME_DEVICE_CUDA_EMULATION_MEMORY_H_
