// Whole training steps on one rank, with rectified flow, AdamW and clipping: of
// DiT-S/2 (32×32×4 latents in patches of 2: 256 tokens; batch 8), and of an
// MMDiT as FLUX.1 is one (hidden 512, 4 dual and 8 single blocks, 256 tokens of
// 2×2 patches of 16 channels and 64 of text; batch 4). The same that
// peer_step.py does in PyTorch.

#ifndef TRIREME_TOOLS_BENCH_TRAINING_STEP_H_
#define TRIREME_TOOLS_BENCH_TRAINING_STEP_H_

#include <string_view>
#include <vector>

#include "tools/bench/kernels.h"

namespace trireme {

// The models' names: "dit_s2", "mmdit_h512".
std::vector<std::string_view> TrainedModels();

// Under "<model>.<dtype>.threads<n>": s, samples_per_s, gflops (of the model's
// matrix products) and peak_bytes.
void RegisterTrainingSteps(const BenchSetting& setting);

// gemm_fraction of DiT-S/2: the model's FLOP/s in the step over the ceiling of
// AddGemmCeiling.
void AddGemmFraction(const BenchSetting& setting, Figures* figures);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_TRAINING_STEP_H_
