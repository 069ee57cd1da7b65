#include "runtime/ops/cpu/amx_gemm.h"

#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

// GCC 12 finds the intrinsics' own undefined vectors uninitialized.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <algorithm>
#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <utility>

#include "runtime/core/dtype.h"

// All that follows is reached only where UsesAmx(). Headers are included
// before, so that nothing of theirs is compiled for it.
#pragma GCC push_options
#pragma GCC target( \
    "amx-tile,amx-bf16,avx512f,avx512bw,avx512vl,avx512bf16,prfchw,prefer-vector-width=512")

#include "runtime/ops/cpu/amx_tiles-inl.h"
// It needs what that has.
#include "runtime/ops/cpu/amx_codes-inl.h"

namespace trireme {
namespace {

// Terms of which the first-level cache holds a panel of a.
constexpr int64_t kLongestStep = 512;
// Of b, packed.
constexpr int64_t kBlockBytes = int64_t{1} << 20;
// Panels of a that a thread takes at a time.
constexpr int64_t kGroupPanels = 8;
// Rows that are as many elements apart, or a multiple, share few places of the
// first-level cache (4 KiB), so that no panel of them stays there.
constexpr int64_t kAliasedRow = 2048;
// Packed elements in whose time one of a result is transposed (measured:
// docs/benchmarks/2026-12-01-few-rows.md).
constexpr int64_t kTransposed = 3;
// Rows for which unfinished sums are kept.
constexpr int64_t kBlockRows = 2048;

int64_t RoundUp(int64_t x, int64_t granule) {
  return (x + granule - 1) / granule * granule;
}

// x in equal parts of at most `most`, in whole granules.
int64_t EvenPart(int64_t x, int64_t most, int64_t granule) {
  const int64_t parts = (x + most - 1) / most;
  return RoundUp((x + parts - 1) / parts, granule);
}

// outᵀ = bᵀ·aᵀ, with out's strides as they are.
CpuGemmSpec Transposed(CpuGemmSpec spec) {
  std::swap(spec.m, spec.n);
  std::swap(spec.a, spec.b);
  std::swap(spec.a.row, spec.a.column);
  std::swap(spec.b.row, spec.b.column);
  return spec;
}

struct Operands {
  const BFloat16* a = nullptr;
  const BFloat16* b = nullptr;
  const uint8_t* codes = nullptr;  // in place of b
  const float* scales = nullptr;
  const BFloat16* bias = nullptr;
  char* out = nullptr;
};

// Of the spec's m, n and k, 0 is any.
class TiledProduct {
 public:
  // Transposed, the product of Transposed(spec) comes to where the spec's does:
  // its bias is of rows, and it has neither codes nor what it adds to.
  TiledProduct(const CpuGemmSpec& spec, bool transposed)
      : spec_(transposed ? Transposed(spec) : spec),
        transposed_(transposed),
        has_codes_(spec.b_codes.format != WeightFormat::kFull),
        is_tiled_a_(spec_.a.column == 1 && spec_.a.row % kAliasedRow != 0),
        finishes_(transposed || spec.out_dtype == DType::kBFloat16 ||
                  spec.bias),
        block_n_(BlockOfColumns()),
        block_m_(spec_.m == 0
                     ? kBlockRows
                     : std::min(RoundUp(spec_.m, amx::kPanel), kBlockRows)) {
    const bool any = spec_.n == 0 || spec_.k == 0;
    const int64_t step = StepOf(spec_.k);
    b_bytes_ = any ? std::max(kBlockBytes, 2 * step * block_n_)
                   : 2 * BlockOf(spec_.k, spec_.n) * block_n_;
    a_bytes_ = 2 * step * amx::kPanel;
    // Only sums that no one step, or block, ends are kept.
    if (finishes_ && (spec_.k == 0 || step < spec_.k)) {
      own_sums_bytes_ = amx::kPanel * block_n_ * int64_t{sizeof(float)};
      if (any || BlockOf(spec_.k, spec_.n) < spec_.k) {
        sums_bytes_ = block_m_ * block_n_ * int64_t{sizeof(float)};
      }
    }
  }

  int64_t workspace_bytes() const {
    return b_bytes_ + spec_.threads * of_thread_bytes() + sums_bytes_;
  }

  // What such a product takes beside multiplications, in packed elements.
  int64_t Overhead(int64_t rows, int64_t columns, int64_t terms) const {
    const auto blocks = [](int64_t x, int64_t block) {
      return (x + block - 1) / block;
    };
    const int64_t of_a = is_tiled_a_ ? 0 : rows * blocks(columns, block_n_);
    return terms * (of_a + columns * blocks(rows, block_m_)) +
           (transposed_ ? kTransposed * rows * columns : 0);
  }

  void Run(int64_t rows, int64_t columns, int64_t terms,
           const Operands& operands, void* workspace) const {
    const CpuGemmSpec& s = spec_;
    const int64_t block_k = BlockOf(terms, columns);
    auto* const packed_b = static_cast<char*>(workspace);
#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
    {
      const amx::ScopedTiles tiles;
      char* const own =
          packed_b + b_bytes_ + omp_get_thread_num() * of_thread_bytes();
      auto* const own_sums = reinterpret_cast<float*>(own + a_bytes_);
      auto* const sums = reinterpret_cast<float*>(
          packed_b + b_bytes_ + s.threads * of_thread_bytes());
      for (int64_t i = 0; i < s.batch; ++i) {
        Operands of = operands;
        of.a += i * s.a.batch;
        if (!has_codes_) of.b += i * s.b.batch;
        of.out += i * s.out.batch * DTypeSize(s.out_dtype);
        const Places at = {of, packed_b, own, own_sums, sums};
        for (int64_t m = 0; m < rows; m += block_m_) {
          for (int64_t n = 0; n < columns; n += block_n_) {
            for (int64_t k = 0; k < terms; k += block_k) {
              RunBlock(at, {m, std::min(block_m_, rows - m), n,
                            std::min(block_n_, columns - n), k,
                            std::min(block_k, terms - k), StepOf(terms),
                            k + block_k >= terms});
            }
          }
        }
      }
    }
  }

 private:
  struct Places : Operands {
    char* packed_b;
    char* packed_a;   // this thread's
    float* own_sums;  // of a panel's rows
    float* sums;
  };
  // Rows [m, m + rows), columns [n, n + columns), terms [k, k + terms).
  struct Block {
    int64_t m, rows, n, columns, k, terms;
    int64_t step;  // terms that are multiplied at a time
    bool ends;     // the last of the terms
  };

  // Terms at a time, of so many or of any number.
  static int64_t StepOf(int64_t terms) {
    return terms == 0 ? kLongestStep
                      : EvenPart(terms, kLongestStep, amx::kStep);
  }

  // Terms of a block of b: in whole steps, as many as it has room for.
  int64_t BlockOf(int64_t terms, int64_t columns) const {
    const int64_t step = StepOf(terms);
    const int64_t wide = RoundUp(std::min(block_n_, columns), amx::kPanel);
    const int64_t steps = std::max<int64_t>(1, kBlockBytes / (2 * step * wide));
    return std::min(RoundUp(terms, step), steps * step);
  }

  int64_t BlockOfColumns() const {
    const int64_t most = kBlockBytes / (2 * StepOf(spec_.k));
    return spec_.n == 0 ? RoundUp(most, amx::kPanel)
                        : EvenPart(spec_.n, most, amx::kPanel);
  }

  int64_t of_thread_bytes() const { return a_bytes_ + own_sums_bytes_; }

  // On all threads of the team.
  void RunBlock(const Places& o, const Block& block) const {
    PackB(o, block);
    const int64_t panels = (block.rows + amx::kPanel - 1) / amx::kPanel;
    const int64_t team = spec_.threads;
    // Some parts for each thread, of rows if there are enough.
    const int64_t of_group = std::clamp<int64_t>(
        panels / (team == 1 ? 1 : 4 * team), 1, kGroupPanels);
    const int64_t groups = (panels + of_group - 1) / of_group;
    const int64_t parts = groups >= team ? 1 : (2 * team + groups - 1) / groups;
    const int64_t of_part = EvenPart(
        block.columns, (block.columns + parts - 1) / parts, amx::kPanel);
#pragma omp for schedule(dynamic) collapse(2)
    for (int64_t group = 0; group < groups; ++group) {
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t first = std::min(block.columns, part * of_part);
        const int64_t end = std::min(block.columns, first + of_part);
        const int64_t row = group * of_group * amx::kPanel;
        if (first == end) continue;
        RunGroup(o, block, row,
                 std::min(of_group * amx::kPanel, block.rows - row), first,
                 end);
      }
    }
  }

  void PackB(const Places& o, const Block& block) const {
    const int64_t panel_bytes = amx::StepsOf(block.terms) * amx::kStepBytes;
    if (has_codes_ ? !spec_.transposes_codes() : spec_.b.column == 1) {
#pragma omp for schedule(static)
      for (int64_t term = 0; term < block.terms; term += amx::kStep) {
        PackStep(o, block, term, panel_bytes,
                 o.packed_b + term / amx::kStep * amx::kStepBytes);
      }
    } else {
#pragma omp for schedule(static)
      for (int64_t n = 0; n < block.columns; n += amx::kPanel) {
        PackPanel(o, block, n, o.packed_b + n / amx::kPanel * panel_bytes);
      }
    }
  }

  // 32 of the block's terms.
  void PackStep(const Places& o, const Block& block, int64_t term,
                int64_t panel_bytes, char* to) const {
    const int64_t terms = std::min(amx::kStep, block.terms - term);
    const auto pack = [&](const auto& rows) {
      amx::PackRowsOfB(rows, block.k + term, terms, block.n, block.columns,
                       panel_bytes, to);
    };
    if (has_codes_) {
      pack(CodesOf(o));
    } else {
      pack(amx::RowsOfB{o.b, spec_.b.row});
    }
  }

  // 32 of the block's columns.
  void PackPanel(const Places& o, const Block& block, int64_t n,
                 char* to) const {
    const MatrixStrides& s = spec_.b;
    const int64_t columns = std::min(amx::kPanel, block.columns - n);
    if (has_codes_) {
      amx::PackRowsAsColumnsOfB(CodesOf(o), block.n + n, columns, block.k,
                                block.terms, to);
    } else {
      amx::PackColumnsOfB(o.b + block.k * s.row + (block.n + n) * s.column,
                          s.column, columns, block.terms, to);
    }
  }

  amx::RowsOfCodes CodesOf(const Places& o) const {
    return {spec_.b_codes, o.codes, o.scales};
  }

  // Rows [row, row + rows) and columns [first, end) of the block.
  void RunGroup(const Places& o, const Block& block, int64_t row, int64_t rows,
                int64_t first, int64_t end) const {
    const int64_t panels = (end - first + amx::kPanel - 1) / amx::kPanel;
    for (int64_t r = row; r < row + rows; r += amx::kPanel) {
      const int64_t count = std::min(amx::kPanel, row + rows - r);
      for (int64_t k = 0; k < block.terms; k += block.step) {
        const int64_t terms = std::min(block.step, block.terms - k);
        const amx::PanelOfA a = PanelAt(o, block, r, count, k, terms);
        const bool goes_down = k + terms == block.terms;
        amx::Prefetch later =
            Later(o, block, goes_down ? AfterPanel(r, row, rows) : r,
                  goes_down ? 0 : k + terms, panels * amx::StepsOf(terms));
        RunPanel(o, block, a, {r, count, first, end, k, terms}, &later);
      }
    }
  }

  // The panel that this thread probably takes after that at r of its group.
  int64_t AfterPanel(int64_t r, int64_t row, int64_t rows) const {
    return r + amx::kPanel < row + rows ? r + amx::kPanel
                                        : row + spec_.threads * rows;
  }

  // Of a block: rows [row, row + rows) by columns [first, end), of terms
  // [k, k + terms).
  struct Part {
    int64_t row, rows, first, end, k, terms;
  };

  void RunPanel(const Places& o, const Block& block, const amx::PanelOfA& a,
                const Part& part, amx::Prefetch* later) const {
    const int64_t steps = amx::StepsOf(part.terms);
    const int64_t panel_bytes = amx::StepsOf(block.terms) * amx::kStepBytes;
    const char* const b = o.packed_b + part.k / amx::kStep * amx::kStepBytes;
    const int64_t out_size = DTypeSize(spec_.out_dtype);
    const bool goes_on = spec_.accumulate || block.k + part.k > 0;
    const bool ends = block.ends && part.k + part.terms == block.terms;
    alignas(64) float one[amx::kPanel * amx::kPanel];
    constexpr int64_t kSums = amx::kPanel * amx::kPanel;
    // Of whole sums a block apart.
    float* const kept =
        block.k == 0 && block.ends
            ? o.own_sums
            : o.sums + part.row * RoundUp(block.columns, amx::kPanel);
    for (int64_t n = part.first; n < part.end; n += amx::kPanel) {
      const int64_t columns = std::min(amx::kPanel, part.end - n);
      char* const out =
          o.out + OutAt(block.m + part.row, block.n + n) * out_size;
      amx::Coming coming = {.later = later};
      float* c = one;
      int64_t stride = amx::kPanel;
      if (!finishes_) {
        c = reinterpret_cast<float*>(out);
        stride = spec_.out.row;
      } else if (goes_on || !ends) {
        c = kept + n / amx::kPanel * kSums;
      }
      if (finishes_ && (goes_on || !ends)) {
        if (n + amx::kPanel < part.end) {
          coming.data = reinterpret_cast<const char*>(c + kSums);
          coming.row_step = amx::kPanel * int64_t{sizeof(float)};
        }
      } else if (!transposed_ && part.rows == amx::kPanel &&
                 n + 2 * amx::kPanel <= part.end) {
        coming.data = out + amx::kPanel * out_size;
        coming.row_step = spec_.out.row * out_size;
      }
      amx::MultiplyBlock(a, b + n / amx::kPanel * panel_bytes, steps, goes_on,
                         part.rows, columns, c, stride, coming);
      if (finishes_ && ends) {
        Finish(o, block.m + part.row, block.n + n, part.rows, columns, c, out);
      }
    }
  }

  int64_t OutAt(int64_t row, int64_t column) const {
    return transposed_ ? column * spec_.out.row + row
                       : row * spec_.out.row + column;
  }

  // A block of sums, which has no gaps, becomes what is asked for.
  void Finish(const Places& o, int64_t row, int64_t column, int64_t rows,
              int64_t columns, const float* c, char* out) const {
    const auto finish = [&](const float* sums, int64_t first, int64_t m,
                            int64_t n) {
      amx::FinishBlock(sums, amx::kPanel, m, n,
                       {out, spec_.out.row, spec_.out_dtype == DType::kBFloat16,
                        false, o.bias == nullptr ? nullptr : o.bias + first});
    };
    if (!transposed_) {
      finish(c, column, rows, columns);
      return;
    }
    alignas(64) float by_columns[amx::kPanel * amx::kPanel];
    amx::TransposeBlock(c, amx::kPanel, by_columns);
    finish(by_columns, row, columns, rows);
  }

  const BFloat16* At(const Places& o, const Block& block, int64_t row,
                     int64_t k) const {
    return o.a + (block.m + row) * spec_.a.row + (block.k + k) * spec_.a.column;
  }

  // Rows [row, row + rows), terms [k, k + terms) of the block's a.
  amx::PanelOfA PanelAt(const Places& o, const Block& block, int64_t row,
                        int64_t rows, int64_t k, int64_t terms) const {
    const MatrixStrides& s = spec_.a;
    const BFloat16* const a = At(o, block, row, k);
    if (s.column != 1) {
      amx::PackColumnsOfA(a, s.column, rows, terms, o.packed_a);
      return {.data = o.packed_a};
    }
    if (is_tiled_a_ && rows == amx::kPanel && terms % amx::kStep == 0) {
      return amx::PanelOfA::Rows(a, s.row);
    }
    amx::PackRowsOfA(a, s.row, rows, terms, o.packed_a);
    return {.data = o.packed_a};
  }

  // What PanelAt reads, in so many steps.
  amx::Prefetch Later(const Places& o, const Block& block, int64_t row,
                      int64_t k, int64_t steps) const {
    const MatrixStrides& s = spec_.a;
    if (row + amx::kPanel > block.rows) return {};
    const BFloat16* const a = At(o, block, row, k);
    const int64_t terms = std::min(block.step, block.terms - k);
    constexpr int64_t kSize = sizeof(BFloat16);
    return s.column == 1 ? amx::Prefetch(a, s.row * kSize, amx::kPanel,
                                         terms * kSize, steps)
                         : amx::Prefetch(a, s.column * kSize, terms,
                                         amx::kPanel * kSize, steps);
  }

  const CpuGemmSpec spec_;
  const bool transposed_;
  const bool has_codes_;
  // Whole panels of a are tiles as they lie.
  const bool is_tiled_a_;
  // Sums come to the result by another pass, not into it.
  const bool finishes_;
  const int64_t block_n_, block_m_;
  int64_t b_bytes_ = 0;
  int64_t a_bytes_ = 0;
  int64_t own_sums_bytes_ = 0;
  int64_t sums_bytes_ = 0;
};

// In the form that packs less: where the columns of b are contiguous, they are
// tiles of a left operand as they lie, and few rows are packed in their place.
// Each sum has the same order in both forms.
class RaggedAmxGemm final : public RaggedGemm {
 public:
  explicit RaggedAmxGemm(const CpuGemmSpec& spec)
      : spec_(spec), product_(spec, /*transposed=*/false) {
    const bool has_codes = spec.b_codes.format != WeightFormat::kFull;
    if (!spec.accumulate && !has_codes && spec.b.row == 1) {
      transposed_.emplace(spec, /*transposed=*/true);
    }
  }

  int64_t workspace_bytes() const override {
    return std::max(product_.workspace_bytes(),
                    transposed_ ? transposed_->workspace_bytes() : 0);
  }

  void Run(int64_t rows, int64_t terms, const void* a, const void* b,
           const void* bias, void* out, void* workspace) const override {
    Run(rows, terms,
        {.a = static_cast<const BFloat16*>(a),
         .b = static_cast<const BFloat16*>(b),
         .bias = static_cast<const BFloat16*>(bias),
         .out = static_cast<char*>(out)},
        workspace);
  }

  void RunOfCodes(int64_t rows, int64_t terms, const void* a, const void* codes,
                  const void* scales, const void* bias, void* out,
                  void* workspace) const override {
    Run(rows, terms,
        {.a = static_cast<const BFloat16*>(a),
         .codes = static_cast<const uint8_t*>(codes),
         .scales = static_cast<const float*>(scales),
         .bias = static_cast<const BFloat16*>(bias),
         .out = static_cast<char*>(out)},
        workspace);
  }

 private:
  void Run(int64_t rows, int64_t terms, Operands operands,
           void* workspace) const {
    const int64_t columns = spec_.n;
    if (!spec_.bias) operands.bias = nullptr;
    if (transposed_ && transposed_->Overhead(columns, rows, terms) <
                           product_.Overhead(rows, columns, terms)) {
      std::swap(operands.a, operands.b);
      transposed_->Run(columns, rows, terms, operands, workspace);
    } else {
      product_.Run(rows, columns, terms, operands, workspace);
    }
  }

  const CpuGemmSpec spec_;
  const TiledProduct product_;
  std::optional<const TiledProduct> transposed_;
};

class AmxGemm final : public Gemm {
 public:
  explicit AmxGemm(const CpuGemmSpec& spec)
      : m_(spec.m), k_(spec.k), ragged_(spec) {}

  int64_t workspace_bytes() const override { return ragged_.workspace_bytes(); }

  void Run(const void* a, const void* b, const void* bias, void* out,
           void* workspace) const override {
    ragged_.Run(m_, k_, a, b, bias, out, workspace);
  }

 private:
  const int64_t m_, k_;
  const RaggedAmxGemm ragged_;
};

}  // namespace
}  // namespace trireme

#pragma GCC pop_options

namespace trireme {

// What oneDNN may use, so that its environment variable counts here as well.
// Linux gives a process the tiles' state when it asks for it.
bool UsesAmx() {
  static const bool uses = [] {
    constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
    return dnnl::get_effective_cpu_isa() == dnnl::cpu_isa::avx512_core_amx &&
           __builtin_cpu_supports("avx512bf16") &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return uses;
}

namespace {

bool MadeFor(const CpuGemmSpec& spec) {
  return spec.dtype == DType::kBFloat16 &&
         spec.activation == Activation::kNone && UsesAmx();
}

}  // namespace

std::unique_ptr<RaggedGemm> MakeRaggedAmxGemm(const CpuGemmSpec& spec) {
  return MadeFor(spec) ? std::make_unique<RaggedAmxGemm>(spec) : nullptr;
}

std::unique_ptr<Gemm> MakeAmxGemm(const CpuGemmSpec& spec) {
  return MadeFor(spec) ? std::make_unique<AmxGemm>(spec) : nullptr;
}

// Measured (docs/benchmarks/2026-11-30-amx-products.md).
bool IsFasterByAmx(const CpuGemmSpec& spec) {
  return spec.a.column != 1 || (spec.n >= 128 && spec.m >= 16);
}

}  // namespace trireme
