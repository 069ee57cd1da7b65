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

// Terms of which the first-level cache holds a panel of b.
constexpr int64_t kLongestBlock = 512;
// Of b, packed.
constexpr int64_t kBlockBytes = int64_t{1} << 20;
// Panels of a that a thread packs at a time.
constexpr int64_t kGroupPanels = 8;
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

class RaggedAmxGemm final : public RaggedGemm {
 public:
  explicit RaggedAmxGemm(const CpuGemmSpec& spec)
      : spec_(spec),
        has_codes_(spec.b_codes.format != WeightFormat::kFull),
        finishes_(spec.out_dtype == DType::kBFloat16 || spec.bias),
        block_n_(
            EvenPart(spec.n, kBlockBytes / (2 * BlockOf(spec.k)), amx::kPanel)),
        block_m_(spec.m == 0
                     ? kBlockRows
                     : std::min(RoundUp(spec.m, amx::kPanel), kBlockRows)) {
    b_bytes_ = 2 * BlockOf(spec.k) * block_n_;
    a_bytes_ = 2 * BlockOf(spec.k) * amx::kPanel * kGroupPanels;
    // Only sums that no one pass ends are kept.
    if (finishes_ && (spec.k == 0 || spec.k > kLongestBlock)) {
      sums_bytes_ = block_m_ * block_n_ * int64_t{sizeof(float)};
    }
  }

  int64_t workspace_bytes() const override {
    return b_bytes_ + spec_.threads * a_bytes_ + sums_bytes_;
  }

  void Run(int64_t rows, int64_t terms, const void* a, const void* b,
           const void* bias, void* out, void* workspace) const override {
    RunOf(rows, terms, a, {.values = b}, bias, out, workspace);
  }

  void RunOfCodes(int64_t rows, int64_t terms, const void* a, const void* codes,
                  const void* scales, const void* bias, void* out,
                  void* workspace) const override {
    RunOf(rows, terms, a, {.codes = codes, .scales = scales}, bias, out,
          workspace);
  }

 private:
  struct RightOperand {
    const void* values = nullptr;
    const void* codes = nullptr;
    const void* scales = nullptr;
  };

  void RunOf(int64_t rows, int64_t terms, const void* a, const RightOperand& b,
             const void* bias, void* out, void* workspace) const {
    const CpuGemmSpec& s = spec_;
    const int64_t block_k = BlockOf(terms);
    auto* const packed_b = static_cast<char*>(workspace);
#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
    {
      const amx::ScopedTiles tiles;
      char* const packed_a =
          packed_b + b_bytes_ + omp_get_thread_num() * a_bytes_;
      auto* const sums =
          reinterpret_cast<float*>(packed_b + b_bytes_ + s.threads * a_bytes_);
      for (int64_t i = 0; i < s.batch; ++i) {
        const Operands operands = {
            static_cast<const BFloat16*>(a) + i * s.a.batch,
            static_cast<const BFloat16*>(b.values) + i * s.b.batch,
            static_cast<const uint8_t*>(b.codes),
            static_cast<const float*>(b.scales),
            s.bias ? static_cast<const BFloat16*>(bias) : nullptr,
            static_cast<char*>(out) + i * s.out.batch * DTypeSize(s.out_dtype),
            packed_b,
            packed_a,
            sums};
        for (int64_t m = 0; m < rows; m += block_m_) {
          for (int64_t n = 0; n < s.n; n += block_n_) {
            for (int64_t k = 0; k < terms; k += block_k) {
              RunBlock(operands,
                       {m, std::min(block_m_, rows - m), n,
                        std::min(block_n_, s.n - n), k,
                        std::min(block_k, terms - k), k + block_k >= terms});
            }
          }
        }
      }
    }
  }

  struct Operands {
    const BFloat16* a;
    const BFloat16* b;
    const uint8_t* codes;  // in place of b
    const float* scales;
    const BFloat16* bias;
    char* out;
    char* packed_b;
    char* packed_a;  // this thread's
    float* sums;
  };
  // Rows [m, m + rows), columns [n, n + columns), terms [k, k + terms).
  struct Block {
    int64_t m, rows, n, columns, k, terms;
    bool ends;  // the last of the terms
  };

  // Terms of a block of so many, or of any number.
  static int64_t BlockOf(int64_t terms) {
    return terms == 0 ? kLongestBlock
                      : EvenPart(terms, kLongestBlock, amx::kStep);
  }

  // On all threads of the team.
  void RunBlock(const Operands& o, const Block& block) const {
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

  void PackB(const Operands& o, const Block& block) const {
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
  void PackStep(const Operands& o, const Block& block, int64_t term,
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
  void PackPanel(const Operands& o, const Block& block, int64_t n,
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

  amx::RowsOfCodes CodesOf(const Operands& o) const {
    return {spec_.b_codes, o.codes, o.scales};
  }

  // Rows [row, row + rows) and columns [first, end) of the block.
  void RunGroup(const Operands& o, const Block& block, int64_t row,
                int64_t rows, int64_t first, int64_t end) const {
    const MatrixStrides& s = spec_.a;
    const BFloat16* a = o.a + (block.m + row) * s.row + block.k * s.column;
    const int64_t steps = amx::StepsOf(block.terms);
    const int64_t panel_bytes = steps * amx::kStepBytes;
    const auto panel_at = [&](int64_t r) {
      return o.packed_a + r / amx::kPanel * panel_bytes;
    };
    for (int64_t r = 0; r < rows; r += amx::kPanel) {
      char* const to = panel_at(r);
      const int64_t count = std::min(amx::kPanel, rows - r);
      if (s.column == 1) {
        amx::PackRowsOfA(a + r * s.row, s.row, count, block.terms, to);
      } else {
        amx::PackColumnsOfA(a + r, s.column, count, block.terms, to);
      }
    }
    const int64_t out_size = DTypeSize(spec_.out_dtype);
    const bool goes_on = spec_.accumulate || block.k > 0;
    alignas(64) float one[amx::kPanel * amx::kPanel];
    // Of a block: where it comes to in the end, and where its sums are.
    const auto out_at = [&](int64_t n, int64_t r) {
      return o.out +
             ((block.m + row + r) * spec_.out.row + block.n + n) * out_size;
    };
    const auto sums_at = [&](int64_t n, int64_t r) {
      return o.sums + ((row + r) * block_n_ + n * amx::kPanel);
    };
    for (int64_t n = first; n < end; n += amx::kPanel) {
      const char* b = o.packed_b + n / amx::kPanel * panel_bytes;
      const int64_t columns = std::min(amx::kPanel, end - n);
      for (int64_t r = 0; r < rows; r += amx::kPanel) {
        const int64_t count = std::min(amx::kPanel, rows - r);
        char* const out = out_at(n, r);
        const int64_t coming = r + amx::kPanel;
        amx::NextBlock next;
        float* c = one;
        int64_t stride = amx::kPanel;
        if (finishes_ && sums_bytes_ > 0) {
          c = sums_at(n, r);
          if (coming + amx::kPanel <= rows) {
            next = {reinterpret_cast<const char*>(sums_at(n, coming)),
                    amx::kPanel * int64_t{sizeof(float)}};
          }
        } else {
          if (!finishes_) {
            c = reinterpret_cast<float*>(out);
            stride = spec_.out.row;
          }
          if (coming + amx::kPanel <= rows) {
            next = {out_at(n, coming), spec_.out.row * out_size};
          }
        }
        amx::MultiplyBlock(panel_at(r), b, steps, goes_on, count, columns, c,
                           stride, next);
        if (finishes_ && block.ends) {
          amx::FinishBlock(
              c, stride, count, columns,
              {out, spec_.out.row, spec_.out_dtype == DType::kBFloat16, false,
               o.bias == nullptr ? nullptr : o.bias + block.n + n});
        }
      }
    }
  }

  const CpuGemmSpec spec_;
  const bool has_codes_;
  // Sums come to the result by another pass, not into it.
  const bool finishes_;
  const int64_t block_n_, block_m_;
  int64_t b_bytes_ = 0;
  int64_t a_bytes_ = 0;
  int64_t sums_bytes_ = 0;
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
