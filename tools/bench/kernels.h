// Benchmarks of single ops at the shapes of DiT-S/2 (hidden 384, 6 heads, 8
// samples of 256 tokens), and of layers with experts.

#ifndef TRIREME_TOOLS_BENCH_KERNELS_H_
#define TRIREME_TOOLS_BENCH_KERNELS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "runtime/core/dtype.h"
#include "runtime/device/device.h"
#include "tools/bench/figures.h"

namespace trireme {

// One setting of a benchmark; its keys start with Prefix("name").
struct BenchSetting {
  Device* device;
  DType dtype;
  int threads;

  // "name.bf16.threads1".
  std::string Prefix(const std::string& name) const;
};

// The matrix products of a block, forward and backward, and attention. The
// products give the ceiling.
void RegisterGemmBenchmarks(const BenchSetting& setting);

// FLOP/s over all the products of a block, each as often as a step runs it, as
// "gemm.<dtype>.threads<n>.gflops". Nothing if a product was not measured.
void AddGemmCeiling(const BenchSetting& setting, Figures* figures);

// What is not a matrix product, in bytes read and written a second: each op
// ("fused.<dtype>.threads<n>.<op>.gb_per_s") beside a memcpy of as many bytes
// ("...<op>.memcpy.gb_per_s"), and the memcpy of one activation
// ("...memcpy.gb_per_s").
void RegisterFusedBenchmarks(const BenchSetting& setting);

// Each fused op's rate as a fraction of its memcpy's ("...<op>.of_memcpy").
void AddFractionsOfMemcpy(const BenchSetting& setting, Figures* figures);

// A copy that reads and writes so many bytes together, by all threads.
std::function<void()> MemcpyOf(Device& device, int64_t bytes);

// A mixture of experts at the widths of known models, alone on its grid: its
// phases, and the whole forward and step ("moe.<dtype>.threads<n>.<shape>.even
// .step.s"), with even routing, an untrained router's and Zipf's.
void RegisterMoeBenchmarks(const BenchSetting& setting);

// Each as a fraction of its floor ("...of_floor"): the dense products of as
// many rows and what rows are read and written at least. Rows' copies of a
// memcpy. What the sums of a token's rows in a fixed order take more than in
// any order, of a step ("...fixed_order.of_step").
void AddFractionsOfFloor(const BenchSetting& setting, Figures* figures);

}  // namespace trireme

#endif  // TRIREME_TOOLS_BENCH_KERNELS_H_
