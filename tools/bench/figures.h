// The figures of a benchmark run under flat keys, e.g.
// "gemm.bf16.threads1.qkv_forward.gflops".

#ifndef TRIREME_TOOLS_BENCH_FIGURES_H_
#define TRIREME_TOOLS_BENCH_FIGURES_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "benchmark/benchmark.h"

namespace trireme {

using Figures = std::map<std::string, double>;

std::optional<double> Find(const Figures& figures, const std::string& key);

// Prints like Google Benchmark's console and keeps the medians: counter c of
// benchmark b under "b.c", its seconds under "b.s".
class FigureReporter final : public benchmark::ConsoleReporter {
 public:
  explicit FigureReporter(Figures* figures);

  void ReportRuns(const std::vector<Run>& runs) override;

 private:
  Figures* const figures_;
};

// The same figures also without the thread count in their keys, from the
// largest count.
void AddKeysWithoutThreads(int threads, Figures* figures);

// Writes a JSON object beside `path`, then renames it.
absl::Status WriteJson(const Figures& figures, const std::string& path);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_FIGURES_H_
