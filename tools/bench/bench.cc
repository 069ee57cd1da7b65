// Measures Trireme's kernels and training steps; see docs/benchmarks/.
//
//   bench [--json FILE] [--threads 1,2] [--dtypes bf16,fp32] [--peer]
//         [--benchmark_filter=REGEX and other flags of Google Benchmark]

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "benchmark/benchmark.h"
#include "fmt/format.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "tools/bench/figures.h"
#include "tools/bench/kernels.h"
#include "tools/bench/peer.h"
#include "tools/bench/training_step.h"

ABSL_FLAG(std::string, json, "", "write the figures to this file");
ABSL_FLAG(std::vector<std::string>, threads,
          (std::vector<std::string>{"1", "2"}), "thread counts, ascending");
ABSL_FLAG(std::vector<std::string>, dtypes,
          (std::vector<std::string>{"bf16", "fp32"}), "bf16, fp32");
ABSL_FLAG(bool, peer, false,
          "also measure PyTorch's training steps and print the ratios");
ABSL_FLAG(std::string, bench_dir, "tools/bench",
          "the folder of peer_setup.sh and peer_step.py");

namespace trireme {
namespace {

absl::StatusOr<std::vector<int>> ThreadCounts() {
  std::vector<int> counts;
  for (const std::string& text : absl::GetFlag(FLAGS_threads)) {
    const int count = std::atoi(text.c_str());
    if (count < 1 || count > 1024) {
      return InvalidArgument(
          "--threads: expected counts of 1 to 1024, found "
          "'{}'",
          text);
    }
    counts.push_back(count);
  }
  return counts;
}

absl::StatusOr<std::vector<DType>> DTypes() {
  std::vector<DType> dtypes;
  for (const std::string& text : absl::GetFlag(FLAGS_dtypes)) {
    const std::optional<DType> dtype = DTypeFromName(text);
    if (dtype != DType::kBFloat16 && dtype != DType::kFloat32) {
      return InvalidArgument("--dtypes: expected bf16 or fp32, found '{}'",
                             text);
    }
    dtypes.push_back(*dtype);
  }
  return dtypes;
}

absl::Status Main() {
  ASSIGN_OR_RETURN(const std::vector<int> threads, ThreadCounts());
  ASSIGN_OR_RETURN(const std::vector<DType> dtypes, DTypes());
  CpuDevice device(int64_t{16} << 30);
  std::vector<BenchSetting> settings;
  for (DType dtype : dtypes) {
    for (int count : threads) settings.push_back({&device, dtype, count});
  }
  for (const BenchSetting& setting : settings) {
    RegisterGemmBenchmarks(setting);
    RegisterFusedBenchmarks(setting);
    RegisterMoeBenchmarks(setting);
    RegisterTrainingSteps(setting);
  }
  Figures figures;
  FigureReporter reporter(&figures);
  benchmark::RunSpecifiedBenchmarks(&reporter);
  const Figures measured = figures;
  for (const BenchSetting& setting : settings) {
    AddGemmCeiling(setting, &figures);
    AddFractionsOfMemcpy(setting, &figures);
    AddFractionsOfFloor(setting, &figures);
    AddGemmFraction(setting, &figures);
  }
  // What was measured here is reported whether or not there is a peer.
  absl::Status peer;
  if (absl::GetFlag(FLAGS_peer)) {
    peer = AddPeer(absl::GetFlag(FLAGS_bench_dir), TrainedModels(), settings,
                   &figures);
  }
  // What follows from the measurements, which are already printed.
  for (const auto& [key, value] : figures) {
    if (!measured.contains(key)) fmt::print("{:<60} {:.4g}\n", key, value);
  }
  AddKeysWithoutThreads(threads.back(), &figures);
  const std::string json = absl::GetFlag(FLAGS_json);
  if (!json.empty()) RETURN_IF_ERROR(WriteJson(figures, json));
  return peer;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  // The medians of a few short runs: noise on a shared machine is larger than
  // what longer runs would settle. Flags of the command line come later.
  std::vector<std::string> arguments = {
      argv[0], "--benchmark_repetitions=5", "--benchmark_min_time=0.05",
      "--benchmark_report_aggregates_only=true"};
  arguments.insert(arguments.end(), argv + 1, argv + argc);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  int count = static_cast<int>(pointers.size());
  benchmark::Initialize(&count, pointers.data());
  absl::SetProgramUsageMessage(
      "measures Trireme's kernels and training steps\n\n  bench [--json FILE] "
      "[--threads 1,2] [--peer] [--benchmark_filter=REGEX]");
  absl::ParseCommandLine(count, pointers.data());
  if (const absl::Status status = trireme::Main(); !status.ok()) {
    fmt::print(stderr, "{}\n", std::string(status.message()));
    return 1;
  }
  return 0;
}
