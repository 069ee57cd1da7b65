// Whose kernels compute attention in bf16 and fp16 on GPUs.

#ifndef TRIREME_RUNTIME_DEVICE_ATTENTION_LIBRARY_H_
#define TRIREME_RUNTIME_DEVICE_ATTENTION_LIBRARY_H_

namespace trireme {

enum class AttentionLibrary {
  kOwn,
  // NVIDIA's, where it has any for a problem that give the same bits in every
  // run (runtime/ops/cuda/cudnn_attention.h); else our own.
  kCudnn,
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_DEVICE_ATTENTION_LIBRARY_H_
