// Runs kernels of the host on tensors of any device, for ops that no other
// device computes: what lies elsewhere is brought to the host and back.

#ifndef TRIREME_RUNTIME_OPS_HOST_KERNEL_H_
#define TRIREME_RUNTIME_OPS_HOST_KERNEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <utility>
#include <vector>

#include "runtime/device/tensor.h"

namespace trireme {

// One run of a kernel: name its operands, then run it once.
class HostKernel {
 public:
  explicit HostKernel(Device& device) : device_(device) {}

  // Where the kernel reads the tensor, of floating numbers, int32 or int64, and
  // where it writes all of one.
  const void* Reads(const Tensor& x);
  void* Writes(const Tensor& y);
  // The same where the kernel changes what is there.
  void* Updates(const Tensor& y);
  // A dry device counts `bytes` and computes nothing.
  void Run(int64_t bytes, const std::function<void()>& kernel);
  // The same of a kernel that returns a number, which is waited for; 0 on a dry
  // device.
  double Sum(int64_t bytes, const std::function<double()>& kernel);

 private:
  using Copy = std::vector<std::byte>;

  void BringBack() const;

  Device& device_;
  std::list<Copy> copies_;
  std::vector<std::pair<Tensor, const Copy*>> written_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_HOST_KERNEL_H_
