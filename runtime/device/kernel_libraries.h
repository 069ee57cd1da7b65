// Whose kernels compute on GPUs, where NVIDIA's cuDNN has any for a problem
// that give the same bits in every run; else our own.

#ifndef TRIREME_RUNTIME_DEVICE_KERNEL_LIBRARIES_H_
#define TRIREME_RUNTIME_DEVICE_KERNEL_LIBRARIES_H_

namespace trireme {

enum class KernelLibrary { kOwn, kCudnn };

struct KernelLibraries {
  // In bf16 and fp16: runtime/ops/cuda/cudnn_attention.h.
  KernelLibrary attention = KernelLibrary::kCudnn;
  // In all types but fp64: runtime/ops/cuda/cudnn_convolution.h.
  KernelLibrary convolution = KernelLibrary::kCudnn;
};

inline constexpr KernelLibraries kOwnKernels = {
    .attention = KernelLibrary::kOwn, .convolution = KernelLibrary::kOwn};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_KERNEL_LIBRARIES_H_
