#include "runtime/ops/cpu/random_kernels.h"

#include <algorithm>
#include <array>
#include <vector>

namespace trireme {
namespace {

// Elements that a thread makes at a time: whole blocks of Philox, except at the
// ends of a run.
constexpr int64_t kPiece = 4096;

std::vector<ElementRun> Pieces(std::span<const ElementRun> runs) {
  std::vector<ElementRun> pieces;
  for (const ElementRun& run : runs) {
    for (int64_t at = 0; at < run.count; at += kPiece) {
      pieces.push_back(
          {run.from + at, run.to + at, std::min(kPiece, run.count - at)});
    }
  }
  return pieces;
}

}  // namespace

void FillRandomKernel(DType dtype, const RandomStream& stream,
                      Distribution distribution, double scale,
                      std::span<const ElementRun> runs, void* to) {
  const std::vector<ElementRun> pieces = Pieces(runs);
  const auto count = static_cast<int64_t>(pieces.size());
  DispatchFloating(dtype, [&]<typename T>(T) {
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < count; ++p) {
      const ElementRun& piece = pieces[p];
      std::array<double, kPiece> values;
      const std::span<double> made(values.data(), piece.count);
      if (distribution == Distribution::kNormal) {
        stream.FillNormal(piece.from, made);
      } else {
        stream.FillUniform(piece.from, made);
        for (double& value : made) value = 2.0 * value - 1.0;
      }
      T* const target = static_cast<T*>(to) + piece.to;
      for (int64_t i = 0; i < piece.count; ++i) {
        target[i] = static_cast<T>(static_cast<float>(scale * values[i]));
      }
    }
  });
}

void AddFlowNoiseKernel(std::span<const RandomStream> streams,
                        const FlowNoiseArguments& a) {
  const int64_t pieces = (a.elements + kPiece - 1) / kPiece;
  const auto samples = static_cast<int64_t>(streams.size());
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t sample = 0; sample < samples; ++sample) {
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t first = piece * kPiece;
      const int64_t count = std::min(kPiece, a.elements - first);
      const int64_t at = sample * a.elements + first;
      const float sigma = a.sigmas[sample];
      const float* clean = a.clean + at;
      float* noised = a.noised + at;
      // The noise is made where the target goes, then turned into both.
      float* noise = a.target + at;
      streams[sample].FillNormal(
          first, std::span<float>(noise, static_cast<size_t>(count)));
      for (int64_t i = 0; i < count; ++i) {
        noised[i] = (1.0f - sigma) * clean[i] + sigma * noise[i];
        noise[i] -= clean[i];
      }
    }
  }
}

}  // namespace trireme
