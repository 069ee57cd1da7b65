// The whole training step of DiT-S/2 on one rank: 32×32×4 latents in patches
// of 2 (256 tokens), batch 8, rectified flow, AdamW, clipping. The same that
// peer_dit.py does in PyTorch.

#ifndef TRIREME_TOOLS_BENCH_TRAINING_STEP_H_
#define TRIREME_TOOLS_BENCH_TRAINING_STEP_H_

#include "tools/bench/kernels.h"

namespace trireme {

// Under "dit_s2.<dtype>.threads<n>": s, samples_per_s, gflops (of the model's
// matrix products) and peak_bytes.
void RegisterTrainingStep(const BenchSetting& setting);

// gemm_fraction: the model's FLOP/s in the step over the ceiling of
// AddGemmCeiling.
void AddGemmFraction(const BenchSetting& setting, Figures* figures);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_TRAINING_STEP_H_
