#include <algorithm>
#include <numbers>

#include "Random123/philox.h"
#include "runtime/ops/cuda/elements.cuh"
#include "runtime/ops/cuda/families.h"

namespace trireme {
namespace {

constexpr int kThreads = 256;

using Generator = r123::Philox4x32;

// RandomStream::Block in a kernel.
struct StreamKey {
  uint32_t key[2];
  uint32_t counter[3];

  StreamKey() = default;
  explicit StreamKey(const RandomStream& stream) {
    std::copy_n(stream.key().begin(), 2, key);
    std::copy_n(stream.counter().begin(), 3, counter);
  }

  __device__ Generator::ctr_type Block(uint64_t block) const {
    const Generator generator;
    const auto high = static_cast<uint32_t>(block >> 32);
    Generator::key_type of_block = {{key[0], key[1]}};
    if (high != 0) {
      const Generator::ctr_type mixed =
          generator(Generator::ctr_type{{high, 0, 0x626c6f63u, 0}}, of_block);
      of_block = {{mixed[0], mixed[1]}};
    }
    return generator(Generator::ctr_type{{static_cast<uint32_t>(block),
                                          counter[0], counter[1], counter[2]}},
                     of_block);
  }
};

struct Values {
  double values[4];
};

// As on the host: Box-Muller in fp64, by the device's logarithm, sine and
// cosine, which are within one unit of the last place of fp64.
__device__ Values NormalsOf(const Generator::ctr_type& words) {
  Values values;
  UNROLL
  for (int pair = 0; pair < 4; pair += 2) {
    const double open = (words[pair] + 1.0) * 0x1p-32;
    const double radius = sqrt(-2.0 * log(open));
    const double angle = 2.0 * std::numbers::pi * (words[pair + 1] * 0x1p-32);
    values.values[pair] = radius * cos(angle);
    values.values[pair + 1] = radius * sin(angle);
  }
  return values;
}

__device__ Values SignedUniformsOf(const Generator::ctr_type& words) {
  Values values;
  UNROLL
  for (int i = 0; i < 4; ++i) {
    values.values[i] = 2.0 * (words[i] * 0x1p-32) - 1.0;
  }
  return values;
}

// The runs of one launch, small enough to be its parameter.
constexpr int kLaunchRuns = 128;
struct Runs {
  ElementRun runs[kLaunchRuns];
};

// A row of blocks for each run; each thread makes a block of Philox.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    FillKernel(const StreamKey stream, Distribution distribution, double scale,
               const __grid_constant__ Runs runs, T* to) {
  const ElementRun& run = runs.runs[blockIdx.y];
  const int64_t block = run.from / 4 + GridThread();
  const int64_t begin = 4 * block - run.from;
  if (begin >= run.count) return;
  const Generator::ctr_type words = stream.Block(block);
  const Values values = distribution == Distribution::kNormal
                            ? NormalsOf(words)
                            : SignedUniformsOf(words);
  UNROLL
  for (int i = 0; i < 4; ++i) {
    const int64_t at = begin + i;
    if (at < 0 || at >= run.count) continue;
    Narrow(static_cast<ComputeType<T>>(
               static_cast<float>(scale * values.values[i])),
           to[run.to + at]);
  }
}

void Fill(Stream& stream, DType dtype, const RandomStream& random,
          Distribution distribution, double scale,
          std::span<const ElementRun> all, void* to) {
  while (!all.empty()) {
    const auto some = all.first(std::min<size_t>(all.size(), kLaunchRuns));
    all = all.subspan(some.size());
    Runs runs = {};
    std::copy(some.begin(), some.end(), runs.runs);
    int64_t blocks = 0;
    for (const ElementRun& run : some) {
      blocks = std::max(blocks, (run.from + run.count + 3) / 4 - run.from / 4);
    }
    if (blocks == 0) continue;
    dim3 grid = GridFor(blocks, kThreads);
    grid.y = static_cast<unsigned>(some.size());
    DispatchElement(dtype, [&]<typename T>(T) {
      Launch({grid, kThreads, 0, Handle(stream)}, FillKernel<T>,
             StreamKey(random), distribution, scale, runs, static_cast<T*>(to));
    });
  }
}

struct StreamKeys {
  StreamKey streams[kLaunchRuns];
};

// A row of blocks for each sample from `first` on.
__global__ void __launch_bounds__(kThreads)
    AddFlowNoiseKernel(const __grid_constant__ StreamKeys keys, int64_t first,
                       const FlowNoiseArguments a) {
  const int64_t sample = first + blockIdx.y;
  const int64_t begin = 4 * GridThread();
  if (begin >= a.elements) return;
  const Values noise = NormalsOf(keys.streams[blockIdx.y].Block(begin / 4));
  const float sigma = a.sigmas[sample];
  UNROLL
  for (int i = 0; i < 4; ++i) {
    if (begin + i >= a.elements) continue;
    const int64_t at = sample * a.elements + begin + i;
    const float value = static_cast<float>(noise.values[i]);
    const float clean = a.clean[at];
    a.noised[at] = MultiplyAdd(1.0f - sigma, clean, sigma * value);
    a.target[at] = value - clean;
  }
}

void AddFlowNoise(Stream& stream, std::span<const RandomStream> streams,
                  const FlowNoiseArguments& a) {
  if (a.elements == 0) return;
  for (size_t first = 0; first < streams.size(); first += kLaunchRuns) {
    const size_t count = std::min<size_t>(streams.size() - first, kLaunchRuns);
    StreamKeys keys = {};
    for (size_t i = 0; i < count; ++i) {
      keys.streams[i] = StreamKey(streams[first + i]);
    }
    dim3 grid = GridFor((a.elements + 3) / 4, kThreads);
    grid.y = static_cast<unsigned>(count);
    Launch({grid, kThreads, 0, Handle(stream)}, AddFlowNoiseKernel, keys,
           static_cast<int64_t>(first), a);
  }
}

}  // namespace

RandomKernels CudaRandom() {
  return {.fill = Fill, .add_flow_noise = AddFlowNoise};
}

}  // namespace trireme
