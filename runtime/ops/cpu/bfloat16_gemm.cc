#include "runtime/ops/cpu/bfloat16_gemm.h"

#include <omp.h>

// GCC 12 finds the intrinsics' own undefined vectors uninitialized.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "runtime/core/log.h"
#include "runtime/device/arena.h"
#include "runtime/ops/cpu/bfloat16_dot.h"

// All that follows is reached only where UsesBFloat16Dots(). Headers are
// included before, so that nothing of theirs is compiled for it.
#pragma GCC push_options
#pragma GCC target( \
    "avx512f,avx512bw,avx512vl,avx512bf16,prefer-vector-width=512")

#include "runtime/ops/cpu/bfloat16_dot-inl.h"

namespace trireme {
namespace {

// Rows that a thread takes at a time: their part of a stays in the cache for
// all panels of b. Of the last rows it takes fewer.
constexpr int64_t kGroupRows = 64;
constexpr int64_t kSmallGroupRows = 16;
// Of a sum that can go on in the fp32 result.
constexpr int64_t kLongestBlock = 1024;
// Of one that cannot, since the result is rounded.
constexpr int64_t kLongestRounded = 8192;
// Of b, packed.
constexpr int64_t kBlockBytes = int64_t{2} << 20;

int64_t RoundUp(int64_t x, int64_t granule) {
  return (x + granule - 1) / granule * granule;
}

class BFloat16Gemm final : public Gemm {
 public:
  explicit BFloat16Gemm(const CpuGemmSpec& spec)
      : spec_(spec),
        rounds_(spec.out_dtype == DType::kBFloat16),
        block_k_(rounds_ ? spec.k : std::min(spec.k, kLongestBlock)),
        block_n_(std::min(
            RoundUp(spec.n, dot::kLanes),
            std::max<int64_t>(1, kBlockBytes / (2 * block_k_) / dot::kPanel) *
                dot::kPanel)),
        packs_a_(spec.a.column != 1) {
    b_bytes_ = RoundUp(2 * block_k_ * block_n_, Arena::kAlignment);
    a_bytes_ =
        packs_a_ ? RoundUp(2 * block_k_ * kGroupRows, Arena::kAlignment) : 0;
  }

  int64_t workspace_bytes() const override {
    return b_bytes_ + spec_.threads * a_bytes_;
  }

  void Run(const void* a, const void* b, const void* bias, void* out,
           void* workspace) const override {
    const CpuGemmSpec& s = spec_;
#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
    {
      char* own = static_cast<char*>(workspace) + b_bytes_ +
                  omp_get_thread_num() * a_bytes_;
      for (int64_t i = 0; i < s.batch; ++i) {
        const Operands operands = {
            static_cast<const BFloat16*>(a) + i * s.a.batch,
            static_cast<const BFloat16*>(b) + i * s.b.batch,
            s.bias ? static_cast<const BFloat16*>(bias) : nullptr,
            static_cast<char*>(out) + i * s.out.batch * DTypeSize(s.out_dtype),
            static_cast<dot::Pair*>(workspace),
            reinterpret_cast<dot::Pair*>(own)};
        for (int64_t n = 0; n < s.n; n += block_n_) {
          for (int64_t k = 0; k < s.k; k += block_k_) {
            RunBlock(operands, n, std::min(block_n_, s.n - n), k,
                     std::min(block_k_, s.k - k));
          }
        }
      }
    }
  }

 private:
  struct Operands {
    const BFloat16* a;
    const BFloat16* b;
    const BFloat16* bias;
    char* out;
    dot::Pair* packed_b;
    dot::Pair* packed_a;  // this thread's
  };

  // Columns [n, n + columns), terms [k, k + terms): on all threads of the team.
  void RunBlock(const Operands& o, int64_t n, int64_t columns, int64_t k,
                int64_t terms) const {
    const int64_t pairs = terms / 2;
    const BFloat16* b = o.b + k * spec_.b.row + n * spec_.b.column;
    if (spec_.b.column == 1) {
      constexpr int64_t kPairs = 16;  // that a thread packs at a time
#pragma omp for schedule(static)
      for (int64_t first = 0; first < pairs; first += kPairs) {
        dot::PackRows(b + 2 * first * spec_.b.row, spec_.b.row, first,
                      2 * std::min(kPairs, pairs - first), columns, pairs,
                      o.packed_b);
      }
    } else {
#pragma omp for schedule(static)
      for (int64_t first = 0; first < columns; first += dot::kPanel) {
        dot::PackColumns(b + first * spec_.b.column, spec_.b.column, pairs,
                         std::min<int64_t>(dot::kPanel, columns - first),
                         o.packed_b + first * pairs);
      }
    }
    // The last rows in small groups: no thread waits long for one that took its
    // last group later.
    const int64_t last = spec_.threads == 1 ? 0 : spec_.threads;
    const int64_t large = std::max<int64_t>(0, spec_.m / kGroupRows - last);
    const int64_t first_small = large * kGroupRows;
    const int64_t groups =
        large + (spec_.m - first_small + kSmallGroupRows - 1) / kSmallGroupRows;
#pragma omp for schedule(dynamic)
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t m = group < large
                            ? group * kGroupRows
                            : first_small + (group - large) * kSmallGroupRows;
      const int64_t rows = group < large ? kGroupRows : kSmallGroupRows;
      RunGroup(o, m, std::min(rows, spec_.m - m), n, columns, k, pairs);
    }
  }

  void RunGroup(const Operands& o, int64_t m, int64_t rows, int64_t n,
                int64_t columns, int64_t k, int64_t pairs) const {
    const BFloat16* a = o.a + m * spec_.a.row + k * spec_.a.column;
    if (packs_a_) {
      dot::PackTransposed(a, spec_.a.column, rows, 2 * pairs, o.packed_a);
    }
    // Of the rows that this thread probably takes next.
    const int64_t coming = m + omp_get_num_threads() * kGroupRows;
    const bool prefetches = rows == kGroupRows && coming + rows <= spec_.m;
    const int64_t tiles = (columns + dot::kPanel - 1) / dot::kPanel *
                          (kGroupRows / dot::kTileRows);
    int64_t tile = 0;
    dot::Multiply(packs_a_ ? dot::TiledA::Packed(o.packed_a, pairs)
                           : dot::TiledA::Rows(a, spec_.a.row),
                  rows, o.packed_b, columns, pairs,
                  {o.out + (m * spec_.out.row + n) * DTypeSize(spec_.out_dtype),
                   spec_.out.row, rounds_, spec_.accumulate || k > 0,
                   o.bias == nullptr ? nullptr : o.bias + n},
                  [&] {
                    return prefetches ? Share(a + (coming - m) * spec_.a.row,
                                              2 * pairs, tile++, tiles)
                                      : dot::TilePrefetch{};
                  });
  }

  // What one of the tiles brings of the `terms` of a group's rows of a.
  dot::TilePrefetch Share(const BFloat16* rows, int64_t terms, int64_t tile,
                          int64_t tiles) const {
    constexpr int64_t kStep = 128;
    if (packs_a_) {  // each term has the group's rows side by side
      static_assert(kGroupRows * sizeof(BFloat16) == kStep);
      const int64_t share = (terms + tiles - 1) / tiles;
      const int64_t first = std::min(terms, tile * share);
      const int64_t stride = spec_.a.column;
      return {reinterpret_cast<const char*>(rows + first * stride),
              static_cast<int64_t>(stride * sizeof(BFloat16)),
              std::min(share, terms - first)};
    }
    const int64_t pieces = tiles / kGroupRows;  // of a row
    if (pieces == 0 || tile >= pieces * kGroupRows) return {};
    const int64_t bytes = terms * sizeof(BFloat16);
    const int64_t share = RoundUp((bytes + pieces - 1) / pieces, kStep);
    const int64_t first = tile % pieces * share;
    return {
        reinterpret_cast<const char*>(rows + tile / pieces * spec_.a.row) +
            first,
        kStep,
        std::max<int64_t>(
            0, (std::min(bytes, first + share) - first + kStep - 1) / kStep)};
  }

  const CpuGemmSpec spec_;
  const bool rounds_;
  const int64_t block_k_;
  const int64_t block_n_;
  const bool packs_a_;
  int64_t b_bytes_ = 0;
  int64_t a_bytes_ = 0;
};

}  // namespace
}  // namespace trireme

#pragma GCC pop_options

namespace trireme {

std::unique_ptr<Gemm> MakeBFloat16Gemm(const CpuGemmSpec& spec) {
  const bool made_for =
      spec.dtype == DType::kBFloat16 && spec.k % 2 == 0 &&
      spec.activation == Activation::kNone &&
      (spec.out_dtype == DType::kFloat32 || spec.k <= kLongestRounded);
  if (!made_for || !UsesBFloat16Dots()) return nullptr;
  return std::make_unique<BFloat16Gemm>(spec);
}

}  // namespace trireme
