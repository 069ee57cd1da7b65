// Megatron-Core's published GPT runs on H100s (release 0.8), as far as their
// configurations are known, predicted from data sheets with the constants that
// megatron_table.h calibrates on A100 runs. Nothing is calibrated on H100s.
//
// Known: 177B (GPT-3 with a vocabulary of 131,072), 4096 tokens, tp 8, pp 6;
// batch 1152 from 96 to 4608 GPUs, the published strong scaling. The run with
// 48 replicas is from the table of model sizes, whose batch is not known: it is
// taken to be the same. Of the other sizes the layers and widths are not known.
//
// Assumed: microbatches of one sample; the interleaved schedule with 1, 2 or 4
// layers a chunk, a column for each; sequence parallelism; optimizer state
// sharded over dp, gradients reduced behind backward; no recomputation; fused
// attention; messages between stages behind compute; 400 Gb/s InfiniBand for
// each GPU. Collectives of tp are not overlapped in the prediction, the
// published runs overlap them in part.

#ifndef TRIREME_TOOLS_BENCH_PUBLISHED_MEGATRON_H100_TABLE_H_
#define TRIREME_TOOLS_BENCH_PUBLISHED_MEGATRON_H100_TABLE_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/bench/published/megatron_table.h"

namespace trireme {

struct H100Run {
  int64_t gpus;
  double published_mfu;
  bool batch_assumed;
};

constexpr std::array<H100Run, 3> kH100Runs = {{
    {96, 0.47, false},
    {2304, 0.44, true},
    {4608, 0.42, false},
}};

constexpr std::array<int64_t, 3> kH100LayersPerChunk = {1, 2, 4};

// Model FLOPs over time and peak, as the simulator has it.
absl::StatusOr<double> PredictH100Mfu(const H100Run& run,
                                      int64_t layers_per_chunk,
                                      const Efficiencies& constants);

struct H100Table {
  // mfu[run][assumption], in the order of the arrays above.
  std::vector<std::vector<double>> mfu;
  // [assumption]: mean absolute relative error.
  std::vector<double> error;
};
absl::StatusOr<H100Table> MakeH100Table(const Efficiencies& constants);
std::string ToText(const H100Table& table);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_PUBLISHED_MEGATRON_H100_TABLE_H_
