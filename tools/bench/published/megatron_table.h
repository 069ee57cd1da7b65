// Megatron-LM's ten published GPT runs on A100s (Narayanan et al., "Efficient
// large-scale language model training on GPU clusters", SC 2021, table 1), as
// plans and costs, and how well estimators predict them.
//
// Each estimator has three constants, calibrated for it on the 1.7B, 18B and
// 145B rows only: the shares of the data sheet that matrix products, links
// inside a node and links between nodes reach. The other seven rows are
// predictions.

#ifndef TRIREME_TOOLS_BENCH_PUBLISHED_MEGATRON_TABLE_H_
#define TRIREME_TOOLS_BENCH_PUBLISHED_MEGATRON_TABLE_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme {

struct MegatronRun {
  const char* name;
  int64_t layers, hidden, heads;
  int64_t tp, pp, gpus;
  int64_t global_batch, microbatch;
  int64_t layers_per_chunk;  // 0: 1F1B, else interleaved
  // Whether gradients were reduced bucket by bucket behind the last backward
  // (torch's wrapper), else all at once after it (Megatron's own).
  bool reduces_in_buckets;
  double published_tflops;  // per GPU, recomputation counted
  bool calibration;
};

constexpr std::array<MegatronRun, 10> kMegatronRuns = {{
    {"1.7B", 24, 2304, 24, 1, 1, 32, 512, 16, 0, true, 137, true},
    {"3.6B", 30, 3072, 32, 2, 1, 64, 512, 16, 0, true, 138, false},
    {"7.5B", 36, 4096, 32, 4, 1, 128, 512, 16, 0, true, 142, false},
    {"18B", 40, 6144, 48, 8, 1, 256, 1024, 8, 0, true, 135, true},
    {"39B", 48, 8192, 64, 8, 2, 512, 1536, 4, 0, false, 138, false},
    {"76B", 60, 10240, 80, 8, 4, 1024, 1792, 2, 5, false, 140, false},
    {"145B", 80, 12288, 96, 8, 8, 1536, 2304, 2, 5, false, 148, true},
    {"310B", 96, 16384, 128, 8, 16, 1920, 2160, 1, 3, false, 155, false},
    {"530B", 105, 20480, 128, 8, 35, 2520, 2520, 1, 1, false, 163, false},
    {"1T", 128, 25600, 160, 8, 64, 3072, 3072, 1, 0, false, 163, false},
}};

struct Efficiencies {
  double gemm = 0.7;
  double link = 0.8;
  double network = 0.8;
};

// Of one run: TFLOP/s per GPU by the simulator and by the closed forms on the
// same stage, message and reduction times.
struct MegatronPrediction {
  double simulated = 0;
  double amp = 0;
  double pipette = 0;
};

absl::StatusOr<MegatronPrediction> PredictRun(const MegatronRun& run,
                                              const Efficiencies& constants);

// The constants for which an estimator's squared relative errors on the
// calibration rows are least: a pattern search from a fixed start,
// deterministic.
absl::StatusOr<Efficiencies> CalibrateOnMegatron(
    double MegatronPrediction::*estimator);

// One estimator's column.
struct MegatronColumn {
  Efficiencies constants;
  std::vector<double> tflops;  // in the order of kMegatronRuns
  // Mean absolute relative error over the rows not calibrated on.
  double error = 0;
};
absl::StatusOr<MegatronColumn> MakeMegatronColumn(
    double MegatronPrediction::*estimator);

struct MegatronTable {
  MegatronColumn simulated;
  MegatronColumn amp;
  MegatronColumn pipette;
};
absl::StatusOr<MegatronTable> MakeMegatronTable();
std::string ToText(const MegatronTable& table);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_PUBLISHED_MEGATRON_TABLE_H_
