// CPU kernels behind runtime/ops/window_attention.h. A task is a head of a
// group of windows, one window after the other; tasks depend on sizes alone.

#ifndef TRIREME_RUNTIME_OPS_CPU_WINDOW_ATTENTION_KERNELS_H_
#define TRIREME_RUNTIME_OPS_CPU_WINDOW_ATTENTION_KERNELS_H_

#include "runtime/ops/kernels/window_attention.h"

namespace trireme {

void WindowAttentionForwardKernel(const WindowAttentionArguments& arguments,
                                  void* out, void* scratch);
void WindowAttentionBackwardKernel(const WindowAttentionArguments& arguments,
                                   const WindowAttentionGradients& gradients,
                                   void* scratch, double* sums);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_WINDOW_ATTENTION_KERNELS_H_
