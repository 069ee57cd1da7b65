// Kernels of runtime/ops/window_attention.h. Shapes are checked by the caller;
// C is the compute type of the dtype (float, or double for fp64).

#ifndef TRIREME_RUNTIME_OPS_KERNELS_WINDOW_ATTENTION_H_
#define TRIREME_RUNTIME_OPS_KERNELS_WINDOW_ATTENTION_H_

#include <algorithm>
#include <cstdint>

#include "runtime/core/dtype.h"
#include "runtime/device/stream.h"

namespace trireme {

struct WindowAttentionArguments {
  DType dtype = DType::kFloat32;
  int64_t batch = 0;
  int64_t height = 0;
  int64_t width = 0;
  int64_t window = 0;
  int64_t shift = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  const void* qkv = nullptr;  // [batch, height·width, 3·heads·head_dim]
  const void* log_scales = nullptr;  // [heads]
  const void* biases = nullptr;      // [(2·window − 1)², heads]

  // Tokens of a window.
  int64_t places() const { return window * window; }
  // Rows of the table of biases: differences between two places.
  int64_t differences() const { return (2 * window - 1) * (2 * window - 1); }
  // Of all samples.
  int64_t windows() const {
    return batch * (height / window) * (width / window);
  }
  // Windows are divided into so many groups, which the sizes alone decide: what
  // is summed over windows is summed over a group's in order, then over groups.
  int64_t groups() const {
    constexpr int64_t kTasks = 256;  // groups of all heads
    return std::clamp<int64_t>(kTasks / std::max<int64_t>(heads, 1), 1,
                               std::max<int64_t>(windows(), 1));
  }
  int64_t tasks() const { return groups() * heads; }
  int64_t FirstWindowOf(int64_t group) const {
    return windows() * group / groups();
  }
  // Elements of C that a task has to itself: probabilities and the gradients of
  // scores, a window's vectors, and biases.
  int64_t forward_scratch() const {
    return places() * (3 * head_dim + 1) + head_dim + differences();
  }
  int64_t backward_scratch() const {
    return 2 * places() * places() + places() * (4 * head_dim + 2) + head_dim +
           differences();
  }
};

// `out`: the output's gradient, as the output. The others are written.
struct WindowAttentionGradients {
  const void* out = nullptr;
  void* qkv = nullptr;         // as qkv
  void* log_scales = nullptr;  // C [heads]
  void* biases = nullptr;      // as biases
};

// `scratch`: C [tasks, forward_scratch or backward_scratch]; `sums`: of the
// biases' and then the scale's gradient, [tasks, differences + 1].
struct WindowAttentionKernels {
  // out: [batch, height·width, heads·head_dim].
  void (*forward)(Stream&, const WindowAttentionArguments&, void* out,
                  void* scratch);
  void (*backward)(Stream&, const WindowAttentionArguments&,
                   const WindowAttentionGradients&, void* scratch,
                   double* sums);
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_KERNELS_WINDOW_ATTENTION_H_
