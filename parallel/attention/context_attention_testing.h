// What the tests of context-parallel attention share: problems as host arrays,
// and their solution on one rank and on many.

#ifndef TRIREME_PARALLEL_ATTENTION_CONTEXT_ATTENTION_TESTING_H_
#define TRIREME_PARALLEL_ATTENTION_CONTEXT_ATTENTION_TESTING_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/attention/context_attention.h"
#include "runtime/comm/communicator.h"
#include "runtime/device/tensor.h"

namespace trireme {

constexpr int64_t kHeadDim = 4;
constexpr int64_t kHeads = 4;  // of keys
constexpr int64_t kWidth = kHeads * kHeadDim;

struct ContextCase {
  int ulysses = 1;
  int ring = 1;
  int64_t batch = 1;
  int64_t chunk = 0;  // image tokens per rank
  int64_t valid = 0;  // of all image tokens
  int64_t text = 0;
  std::vector<int32_t> text_counts;  // empty: all
  DType dtype = DType::kFloat64;
  int64_t queries_per_key = 1;
  bool causal = false;
  std::vector<int64_t> sequences;  // offsets, empty: one sequence

  int ranks() const { return ulysses * ring; }
  int64_t tokens() const { return chunk * ranks(); }
  int64_t out_width() const { return queries_per_key * kWidth; }
  int64_t qkv_width() const { return out_width() + 2 * kWidth; }
};

// A host array [batch, tokens, width].
struct HostArray {
  int64_t tokens = 0;
  int64_t width = 0;
  std::vector<double> values;

  double& at(int64_t sample, int64_t token, int64_t column) {
    return values[(sample * tokens + token) * width + column];
  }
  double at(int64_t sample, int64_t token, int64_t column) const {
    return values[(sample * tokens + token) * width + column];
  }
  // Tokens [begin, end).
  HostArray Part(int64_t batch, int64_t begin, int64_t end) const {
    HostArray part{end - begin, width, {}};
    for (int64_t i = 0; i < batch; ++i) {
      part.values.insert(part.values.end(),
                         values.begin() + (i * tokens + begin) * width,
                         values.begin() + (i * tokens + end) * width);
    }
    return part;
  }
};

// Random values that the case's dtype holds exactly; no gradient flows into
// padding, and its q, k and v are large.
struct ContextProblem {
  explicit ContextProblem(const ContextCase& shape);

  HostArray image_qkv, text_qkv;
  // Gradients of the outputs.
  HostArray image_seed, text_seed;
};

struct ContextResults {
  HostArray image, text;
  HostArray image_grad, text_grad;
};

// Which outputs a gradient flows into.
struct ContextUses {
  bool image = true;
  bool text = true;
};

// Self-attention over all tokens on one rank, in fp64; the image's results are
// those of its real tokens.
ContextResults ReferenceResults(const ContextCase& shape,
                                const ContextProblem& problem,
                                const ContextUses& uses);

// The groups of the factory's world rank u + U·r.
struct ContextRankGroups {
  ContextRankGroups(CommunicatorFactory& factory, const ContextCase& shape);
  ContextGroups get() const { return {ulysses.get(), ring.get()}; }

  std::unique_ptr<Communicator> ulysses, ring;
};

// One rank's forward and backward pass; values are empty on a dry device.
ContextResults RunContextRank(Device& device, const ContextRankGroups& groups,
                              int rank, const ContextCase& shape,
                              const ContextProblem& problem,
                              const ContextUses& uses);

}  // namespace trireme

#endif  // TRIREME_PARALLEL_ATTENTION_CONTEXT_ATTENTION_TESTING_H_
