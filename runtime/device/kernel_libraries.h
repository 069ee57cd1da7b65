// How GPUs compute: by whose kernels, where NVIDIA's cuDNN has any for a
// problem that give the same bits in every run, else our own; and products of
// fp32.

#ifndef TRIREME_RUNTIME_DEVICE_KERNEL_LIBRARIES_H_
#define TRIREME_RUNTIME_DEVICE_KERNEL_LIBRARIES_H_

namespace trireme {

enum class KernelLibrary { kOwn, kCudnn };

struct KernelLibraries {
  // In bf16 and fp16: runtime/ops/cuda/cudnn_attention.h.
  KernelLibrary attention = KernelLibrary::kCudnn;
  // In all types but fp64: runtime/ops/cuda/cudnn_convolution.h.
  KernelLibrary convolution = KernelLibrary::kCudnn;
  // Matrix products of fp32 operands round these to TF32, 10 bits of mantissa,
  // and sum in fp32.
  bool tf32 = false;

  // All there are, by number.
  static constexpr int kChoices = 8;
  static constexpr KernelLibraries OfChoice(int choice) {
    const auto library = [](bool cudnn) {
      return cudnn ? KernelLibrary::kCudnn : KernelLibrary::kOwn;
    };
    return {.attention = library((choice & 1) != 0),
            .convolution = library((choice & 2) != 0),
            .tf32 = (choice & 4) != 0};
  }
  constexpr int choice() const {
    return (attention == KernelLibrary::kCudnn ? 1 : 0) +
           (convolution == KernelLibrary::kCudnn ? 2 : 0) + (tf32 ? 4 : 0);
  }
};

inline constexpr KernelLibraries kOwnKernels = {
    .attention = KernelLibrary::kOwn, .convolution = KernelLibrary::kOwn};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_KERNEL_LIBRARIES_H_
