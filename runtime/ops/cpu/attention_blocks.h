// What both passes of blocked attention share: block sizes, addresses and the
// products' specs.

#ifndef TRIREME_RUNTIME_OPS_CPU_ATTENTION_BLOCKS_H_
#define TRIREME_RUNTIME_OPS_CPU_ATTENTION_BLOCKS_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "runtime/device/arena.h"
#include "runtime/ops/cpu/attention.h"
#include "runtime/ops/cpu/attention_kernels.h"
#include "runtime/ops/cpu/gemm.h"

namespace trireme {

// Where samples or queries differ in the keys that they see, the columns of a
// block begin and end at multiples of this, so that there are few shapes of
// products; blocks of such queries are no longer, so that what lies outside
// their keys is skipped.
inline constexpr int64_t kMaskGranule = 64;

// Sizes of blocks of queries and keys. `bytes_per_score` is what one score
// takes in all the buffers of a pass.
struct AttentionBlocks {
  int64_t queries;
  int64_t keys;

  AttentionBlocks(const CpuAttentionProblem& problem, int64_t bytes_per_score) {
    constexpr int64_t kMaxKeys = 512;
    constexpr int64_t kGranule = 16;
    const int64_t scores =
        std::max(problem.block_bytes / bytes_per_score, kGranule * kGranule);
    keys = std::min({problem.keys, kMaxKeys, scores / kGranule});
    if (keys < problem.keys) keys = keys / kGranule * kGranule;
    queries = std::min(problem.queries, scores / ScorePitch(keys));
    if (problem.ranged()) queries = std::min(queries, kMaskGranule);
    if (queries < problem.queries) queries = queries / kGranule * kGranule;
  }
};

// What queries [begin, begin + rows) of a sample with `key_count` keys see.
KeyRange VisibleToBlock(const CpuAttentionProblem& problem, int64_t begin,
                        int64_t rows, int64_t key_count);

// The keys that are multiplied of the block that begins at `key`, for queries
// that see `visible`: empty, or all of `visible` there and a few more.
KeyRange MultipliedKeys(const CpuAttentionProblem& problem,
                        const AttentionBlocks& blocks, const KeyRange& visible,
                        int64_t key);

// ranges[row] = what query begin + row sees of `keys`, relative to their begin.
void SetRowRanges(const CpuAttentionProblem& problem, int64_t begin,
                  int64_t rows, int64_t key_count, const KeyRange& keys,
                  KeyRange* ranges);

// Every extent that a block of keys (of queries) may have.
std::vector<int64_t> KeyExtents(const CpuAttentionProblem& problem,
                                const AttentionBlocks& blocks);
std::vector<int64_t> QueryExtents(const CpuAttentionProblem& problem,
                                  const AttentionBlocks& blocks);

// The products of a pass, prepared before its threads start: they look them up
// without a lock.
class AttentionProducts {
 public:
  void Add(const CpuGemmSpec& spec) {
    const std::shared_ptr<const Gemm>& gemm =
        gemms_.try_emplace(spec, PreparedGemm(spec)).first->second;
    workspace_bytes_ = std::max(workspace_bytes_, gemm->workspace_bytes());
  }

  // Of a product that was added.
  const Gemm& Of(const CpuGemmSpec& spec) const { return *gemms_.at(spec); }

  // The most that one of them needs.
  int64_t workspace_bytes() const { return workspace_bytes_; }

 private:
  absl::flat_hash_map<CpuGemmSpec, std::shared_ptr<const Gemm>> gemms_;
  int64_t workspace_bytes_ = 0;
};

// The element of `head` of row `row` of a tensor of heads.
template <typename T>
T* HeadRow(const HeadsPointer& heads, int64_t row, int64_t head,
           int64_t head_dim) {
  return static_cast<T*>(heads.data) + row * heads.row_stride + head * head_dim;
}

// Divides a workspace into aligned buffers. Without a base it only counts.
class WorkspaceCutter {
 public:
  explicit WorkspaceCutter(void* base = nullptr)
      : base_(static_cast<char*>(base)) {}

  template <typename T>
  T* Cut(int64_t count) {
    char* at = base_ == nullptr ? nullptr : base_ + bytes_;
    const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
    bytes_ +=
        (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
    return reinterpret_cast<T*>(at);
  }

  int64_t bytes() const { return bytes_; }

 private:
  char* base_;
  int64_t bytes_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_OPS_CPU_ATTENTION_BLOCKS_H_
