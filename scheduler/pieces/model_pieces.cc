#include "scheduler/pieces/model_pieces.h"

namespace trireme {

double ProductFlops(const std::vector<PieceKernel>& kernels) {
  double flops = 0;
  for (const PieceKernel& kernel : kernels) {
    flops += kernel.flops * kernel.count;
  }
  return flops;
}

double AttentionFlops(const std::vector<PieceKernel>& kernels) {
  double flops = 0;
  for (const PieceKernel& kernel : kernels) {
    if (kernel.kind != PieceKernel::Kind::kAttention) continue;
    flops += kernel.flops * kernel.count;
  }
  return flops;
}

}  // namespace trireme
