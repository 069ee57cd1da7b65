#include "runtime/ops/cpu/grouped_gemm.h"

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

#include "runtime/device/arena.h"
#include "runtime/ops/cpu/amx_gemm.h"
#include "runtime/ops/cpu/gemm.h"

namespace trireme {
namespace {

// Rows that one thread multiplies at a time; the last ones of a group are
// padded. Kernels sum rows of their last tile in another order where it is not
// full, and other kernels are for other sizes: a row has the same bits in every
// place because all blocks are alike and tiles of 4, 6, 8, 16 and 24 rows fill
// them.
constexpr int64_t kBlock = 96;
// Rows of a sum's result that one thread computes at a time.
constexpr int64_t kSlab = 256;

// Rows [begin, begin + rows) of all, at most kBlock.
struct Block {
  int64_t group = 0;
  int64_t begin = 0;
  int64_t rows = 0;

  bool padded() const { return rows < kBlock; }
};

std::vector<Block> BlocksOf(std::span<const int64_t> counts) {
  std::vector<Block> blocks;
  int64_t begin = 0;
  for (size_t group = 0; group < counts.size(); ++group) {
    const int64_t end = begin + counts[group];
    while (begin < end) {
      const int64_t rows = std::min(end - begin, kBlock);
      blocks.push_back({static_cast<int64_t>(group), begin, rows});
      begin += rows;
    }
  }
  return blocks;
}

// Of one group's matrix, where they are codes.
QuantizedMatrix CodesOfGroup(const GroupedGemmSpec& spec) {
  QuantizedMatrix codes = spec.codes;
  codes.rows /= spec.groups;
  return codes;
}

// The product of `rows` rows, or, accumulating, what they add to `slab` rows of
// the result. Of the rows, 0 is any number.
CpuGemmSpec SpecOf(const GroupedGemmSpec& spec, int64_t rows, int64_t slab,
                   int threads) {
  CpuGemmSpec product;
  product.dtype = spec.dtype;
  product.threads = threads;
  if (spec.accumulate) {
    product.m = slab;
    product.n = spec.k;
    product.k = rows;
    product.a = {0, 1, spec.n};
    product.b = {0, spec.k, 1};
    product.out_dtype = ComputeDType(spec.dtype);
    product.accumulate = true;
    product.out = {0, spec.k, 1};
  } else {
    product.m = rows;
    product.n = spec.n;
    product.k = spec.k;
    product.a = {0, spec.k, 1};
    product.b = spec.transpose ? MatrixStrides{0, 1, spec.k}
                               : MatrixStrides{0, spec.n, 1};
    product.b_codes = CodesOfGroup(spec);
    product.out_dtype = spec.dtype;
    product.bias = spec.bias;
    product.out = {0, spec.n, 1};
  }
  return product;
}

// Of whole groups, one after the other on all threads; null where there is no
// kernel for any number of rows.
std::unique_ptr<RaggedGemm> ProductOfGroups(const GroupedGemmSpec& spec) {
  return MakeRaggedAmxGemm(SpecOf(spec, 0, spec.n, AvailableThreads()));
}

void RunGroups(std::span<const int64_t> counts, const GroupedGemmSpec& spec,
               const GroupedGemmOperands& o, const RaggedGemm& product) {
  const auto at = [](const void* from, DType dtype, int64_t elements) {
    return static_cast<const std::byte*>(from) + elements * DTypeSize(dtype);
  };
  const DType out_dtype =
      spec.accumulate ? ComputeDType(spec.dtype) : spec.dtype;
  int64_t begin = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const auto group = static_cast<int64_t>(i);
    const int64_t rows = counts[i];
    if (rows == 0) continue;
    const std::byte* const x = at(o.x, spec.dtype, begin * spec.k);
    std::byte* const out =
        static_cast<std::byte*>(o.out) +
        (spec.accumulate ? group * spec.n * spec.k : begin * spec.n) *
            DTypeSize(out_dtype);
    if (spec.accumulate) {
      product.Run(spec.n, rows, at(o.y, spec.dtype, begin * spec.n), x, nullptr,
                  out, o.workspace);
    } else {
      const void* const bias =
          spec.bias ? at(o.bias, spec.dtype, group * spec.n) : nullptr;
      if (spec.codes.format == WeightFormat::kFull) {
        product.Run(rows, spec.k, x,
                    at(o.weights, spec.dtype, group * spec.n * spec.k), bias,
                    out, o.workspace);
      } else {
        const int64_t row = group * CodesOfGroup(spec).rows;
        product.RunOfCodes(
            rows, spec.k, x,
            at(o.weights, DType::kUint8, row * spec.codes.code_bytes()),
            at(o.scales, DType::kFloat32, row * spec.codes.blocks()), bias, out,
            o.workspace);
      }
    }
    begin += rows;
  }
}

// The prepared products of a spec. All rows go through the same, so that their
// bits do not depend on where they lie.
class BlockProducts {
 public:
  explicit BlockProducts(const GroupedGemmSpec& spec)
      : slab_(spec.accumulate ? std::min(spec.n, kSlab) : spec.n),
        whole_(PreparedGemm(SpecOf(spec, kBlock, slab_, /*threads=*/1))) {
    if (spec.n % slab_ > 0) {
      rest_ = PreparedGemm(SpecOf(spec, kBlock, spec.n % slab_, 1));
    }
  }

  // Of that many rows of the result, where they are sums.
  const Gemm& OfSlab(int64_t size) const {
    return size == slab_ ? *whole_ : *rest_;
  }
  // Of one thread.
  int64_t workspace_bytes() const {
    return Arena::Aligned(
        std::max(whole_->workspace_bytes(),
                 rest_ == nullptr ? 0 : rest_->workspace_bytes()));
  }

 private:
  const int64_t slab_;
  const std::shared_ptr<const Gemm> whole_;
  std::shared_ptr<const Gemm> rest_;
};

// Where the workspace has the padded last block of each group.
struct Padding {
  int64_t x_bytes = 0;
  int64_t y_bytes = 0;  // of the result, or of the other operand

  explicit Padding(const GroupedGemmSpec& spec)
      : x_bytes(Arena::Aligned(kBlock * spec.k * DTypeSize(spec.dtype))),
        y_bytes(Arena::Aligned(kBlock * spec.n * DTypeSize(spec.dtype))) {}
  int64_t bytes() const { return x_bytes + y_bytes; }
};

// The block's rows of `from`, then zeros.
void Pad(const Block& block, int64_t row_bytes, const void* from,
         std::byte* to) {
  std::memcpy(to, static_cast<const std::byte*>(from) + block.begin * row_bytes,
              block.rows * row_bytes);
  std::memset(to + block.rows * row_bytes, 0,
              (kBlock - block.rows) * row_bytes);
}

struct Workspace {
  std::byte* padding;
  std::byte* products;
  int64_t of_thread;

  std::byte* OfThread() const {
    return products + omp_get_thread_num() * of_thread;
  }
};

void RunProducts(const GroupedGemmSpec& spec, const GroupedGemmOperands& o,
                 const std::vector<Block>& blocks,
                 const BlockProducts& products, const Workspace& workspace) {
  const Padding padding(spec);
  const int64_t size = DTypeSize(spec.dtype);
  const int64_t x_row = spec.k * size;
  const int64_t y_row = spec.n * size;
  for (const Block& block : blocks) {
    if (!block.padded()) continue;
    Pad(block, x_row, o.x, workspace.padding + block.group * padding.bytes());
  }
  const Gemm& product = products.OfSlab(spec.n);
  const auto num_blocks = static_cast<int64_t>(blocks.size());
  const int threads = AvailableThreads();
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t i = 0; i < num_blocks; ++i) {
    const Block& block = blocks[i];
    const std::byte* const weights = static_cast<const std::byte*>(o.weights) +
                                     block.group * spec.n * spec.k * size;
    const std::byte* const bias =
        spec.bias ? static_cast<const std::byte*>(o.bias) + block.group * y_row
                  : nullptr;
    auto* const out = static_cast<std::byte*>(o.out) + block.begin * y_row;
    if (!block.padded()) {
      product.Run(static_cast<const std::byte*>(o.x) + block.begin * x_row,
                  weights, bias, out, workspace.OfThread());
      continue;
    }
    std::byte* const x_padded =
        workspace.padding + block.group * padding.bytes();
    std::byte* const out_padded = x_padded + padding.x_bytes;
    product.Run(x_padded, weights, bias, out_padded, workspace.OfThread());
    std::memcpy(out, out_padded, block.rows * y_row);
  }
}

void RunSums(std::span<const int64_t> counts, const GroupedGemmSpec& spec,
             const GroupedGemmOperands& o, const std::vector<Block>& blocks,
             const BlockProducts& products, const Workspace& workspace) {
  const Padding padding(spec);
  const int64_t size = DTypeSize(spec.dtype);
  const int64_t x_row = spec.k * size;
  const int64_t y_row = spec.n * size;
  for (const Block& block : blocks) {
    if (!block.padded()) continue;
    std::byte* const at = workspace.padding + block.group * padding.bytes();
    Pad(block, x_row, o.x, at);
    Pad(block, y_row, o.y, at + padding.x_bytes);
  }
  // The first block of each group; the last entry is the end.
  std::vector<size_t> first(static_cast<size_t>(spec.groups) + 1,
                            blocks.size());
  for (size_t i = blocks.size(); i-- > 0;) first[blocks[i].group] = i;
  for (size_t group = static_cast<size_t>(spec.groups); group-- > 0;) {
    if (counts[group] == 0) first[group] = first[group + 1];
  }
  const int64_t slabs = (spec.n + kSlab - 1) / kSlab;
  const auto tasks = spec.groups * slabs;
  const int threads = AvailableThreads();
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t group = task / slabs;
    const int64_t begin = task % slabs * kSlab;
    const int64_t rows = std::min(kSlab, spec.n - begin);
    auto* out =
        static_cast<std::byte*>(o.out) +
        (group * spec.n + begin) * spec.k * DTypeSize(ComputeDType(spec.dtype));
    for (size_t i = first[group]; i < first[group + 1]; ++i) {
      const Block& block = blocks[i];
      const std::byte* x =
          static_cast<const std::byte*>(o.x) + block.begin * x_row;
      const std::byte* y =
          static_cast<const std::byte*>(o.y) + block.begin * y_row;
      if (block.padded()) {
        x = workspace.padding + group * padding.bytes();
        y = x + padding.x_bytes;
      }
      products.OfSlab(rows).Run(y + begin * size, x, nullptr, out,
                                workspace.OfThread());
    }
  }
}

}  // namespace

int64_t GroupedGemmWorkspace(const GroupedGemmSpec& spec) {
  const std::unique_ptr<RaggedGemm> of_groups = ProductOfGroups(spec);
  if (of_groups != nullptr) return of_groups->workspace_bytes();
  return Padding(spec).bytes() * spec.groups +
         BlockProducts(spec).workspace_bytes() * AvailableThreads();
}

void RunGroupedGemm(std::span<const int64_t> counts,
                    const GroupedGemmSpec& spec,
                    const GroupedGemmOperands& operands) {
  const std::unique_ptr<RaggedGemm> of_groups = ProductOfGroups(spec);
  if (of_groups != nullptr) {
    RunGroups(counts, spec, operands, *of_groups);
    return;
  }
  const std::vector<Block> blocks = BlocksOf(counts);
  if (blocks.empty()) return;
  const BlockProducts products(spec);
  auto* const begin = static_cast<std::byte*>(operands.workspace);
  const Workspace workspace = {
      .padding = begin,
      .products = begin + Padding(spec).bytes() * spec.groups,
      .of_thread = products.workspace_bytes()};
  if (spec.accumulate) {
    RunSums(counts, spec, operands, blocks, products, workspace);
  } else {
    RunProducts(spec, operands, blocks, products, workspace);
  }
}

bool MultipliesGroupsOfCodes(const GroupedGemmSpec& spec) {
  return ProductOfGroups(spec) != nullptr;
}

}  // namespace trireme
