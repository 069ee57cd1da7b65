#include "runtime/ops/cpu/grouped_gemm.h"

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

#include "runtime/core/log.h"
#include "runtime/device/arena.h"
#include "runtime/ops/cpu/gemm.h"

namespace trireme {
namespace {

// Rows that one thread multiplies at a time; the last ones of a group are
// padded. Kernels sum rows of their last tile in another order where it is not
// full, and other kernels are for other sizes: a row has the same bits in every
// place because all blocks are alike and tiles of 4, 6, 8, 16 and 24 rows fill
// them.
constexpr int64_t kBlock = 96;
// Of kernels that have weights packed, which are those of matrix units: more
// rows for each tile of weights that is loaded.
constexpr int64_t kPackedBlock = 192;
// Rows of a sum's result that one thread computes at a time, and columns of a
// product's whose weights it packs for all of a group's blocks.
constexpr int64_t kSlab = 256;
// Parts of the work for each thread, if there is so much.
constexpr int64_t kTasksOfThread = 4;

// Rows [begin, begin + rows) of all, at most `size`.
struct Block {
  int64_t group = 0;
  int64_t begin = 0;
  int64_t rows = 0;
  int64_t size = 0;

  bool padded() const { return rows < size; }
};

std::vector<Block> BlocksOf(std::span<const int64_t> counts, int64_t size) {
  std::vector<Block> blocks;
  int64_t begin = 0;
  for (size_t group = 0; group < counts.size(); ++group) {
    const int64_t end = begin + counts[group];
    while (begin < end) {
      const int64_t rows = std::min(end - begin, size);
      blocks.push_back({static_cast<int64_t>(group), begin, rows, size});
      begin += rows;
    }
  }
  return blocks;
}

// `slab` columns of the product of one block, or, accumulating, what it adds to
// as many rows of the result.
CpuGemmSpec BlockSpec(const GroupedGemmSpec& spec, int64_t rows, int64_t slab) {
  CpuGemmSpec block;
  block.dtype = spec.dtype;
  block.threads = 1;
  if (spec.accumulate) {
    block.m = slab;
    block.n = spec.k;
    block.k = rows;
    block.a = {0, 1, spec.n};
    block.b = {0, spec.k, 1};
    block.out_dtype = ComputeDType(spec.dtype);
    block.accumulate = true;
    block.out = {0, spec.k, 1};
  } else {
    block.m = rows;
    block.n = slab;
    block.k = spec.k;
    block.a = {0, spec.k, 1};
    block.b = spec.transpose ? MatrixStrides{0, 1, spec.k}
                             : MatrixStrides{0, spec.n, 1};
    block.out_dtype = spec.dtype;
    block.bias = spec.bias;
    block.out = {0, spec.n, 1};
  }
  return block;
}

CpuGemmSpec PackingApart(CpuGemmSpec spec) {
  spec.packs_apart = true;
  return spec;
}

// The prepared products of a spec. All rows go through the same, so that their
// bits do not depend on where they lie.
class BlockProducts {
 public:
  explicit BlockProducts(const GroupedGemmSpec& spec)
      : rows_(kPackedBlock), slab_(std::min(spec.n, kSlab)) {
    bool packs = PreparedGemm(PackingApart(BlockSpec(spec, rows_, slab_)))
                     ->packed_bytes() > 0;
    if (!packs) rows_ = kBlock;
    // Weights that are read as they lie are not read in slabs.
    if (!packs && !spec.accumulate) slab_ = spec.n;
    // What sums read is another for each block.
    packs = packs && !spec.accumulate;
    const auto prepared = [&](int64_t slab) {
      const CpuGemmSpec block = BlockSpec(spec, rows_, slab);
      return PreparedGemm(packs ? PackingApart(block) : block);
    };
    whole_ = prepared(slab_);
    if (spec.n % slab_ > 0) rest_ = prepared(spec.n % slab_);
  }

  // Of a block.
  int64_t rows() const { return rows_; }
  int64_t slab() const { return slab_; }
  bool packs() const { return whole_->packed_bytes() > 0; }
  // Of that many rows or columns.
  const Gemm& OfSlab(int64_t size) const {
    return size == slab_ ? *whole_ : *rest_;
  }
  // Of one thread: of a run, and behind it packed weights.
  int64_t run_bytes() const { return Most(&Gemm::workspace_bytes); }
  int64_t workspace_bytes() const {
    return run_bytes() + Most(&Gemm::packed_bytes);
  }

 private:
  int64_t Most(int64_t (Gemm::*bytes)() const) const {
    int64_t most = 0;
    for (const Gemm* gemm : {whole_.get(), rest_.get()}) {
      if (gemm != nullptr) most = std::max(most, (gemm->*bytes)());
    }
    return Arena::Aligned(most);
  }

  int64_t rows_;
  int64_t slab_;
  std::shared_ptr<const Gemm> whole_;
  std::shared_ptr<const Gemm> rest_;
};

// Where the workspace has the padded last block of each group.
struct Padding {
  int64_t x_bytes = 0;
  int64_t y_bytes = 0;  // of the result, or of the other operand

  Padding(const GroupedGemmSpec& spec, int64_t rows)
      : x_bytes(Arena::Aligned(rows * spec.k * DTypeSize(spec.dtype))),
        y_bytes(Arena::Aligned(rows * spec.n * DTypeSize(spec.dtype))) {}
  int64_t bytes() const { return x_bytes + y_bytes; }
};

// The block's rows of `from`, then zeros.
void Pad(const Block& block, int64_t row_bytes, const void* from,
         std::byte* to) {
  std::memcpy(to, static_cast<const std::byte*>(from) + block.begin * row_bytes,
              block.rows * row_bytes);
  std::memset(to + block.rows * row_bytes, 0,
              (block.size - block.rows) * row_bytes);
}

struct Workspace {
  std::byte* padding;
  std::byte* products;
  int64_t of_thread;

  std::byte* OfThread() const {
    return products + omp_get_thread_num() * of_thread;
  }
};

// Columns [begin, begin + columns) of the blocks [first, end), of one group.
struct ProductTask {
  size_t first = 0;
  size_t end = 0;
  int64_t begin = 0;
  int64_t columns = 0;
};

// A task is a block where nothing is packed for it, else as many of a group as
// leave enough tasks for all threads.
std::vector<ProductTask> TasksOf(const GroupedGemmSpec& spec,
                                 const std::vector<Block>& blocks,
                                 const BlockProducts& products, int threads) {
  const int64_t slabs = (spec.n + products.slab() - 1) / products.slab();
  const int64_t most =
      products.packs()
          ? std::max<int64_t>(1, static_cast<int64_t>(blocks.size()) * slabs /
                                     (kTasksOfThread * threads))
          : 1;
  std::vector<ProductTask> tasks;
  for (size_t first = 0, end = 0; first < blocks.size(); first = end) {
    while (end < blocks.size() && blocks[end].group == blocks[first].group &&
           static_cast<int64_t>(end - first) < most) {
      ++end;
    }
    for (int64_t begin = 0; begin < spec.n; begin += products.slab()) {
      tasks.push_back(
          {first, end, begin, std::min(products.slab(), spec.n - begin)});
    }
  }
  return tasks;
}

void RunProducts(const GroupedGemmSpec& spec, const GroupedGemmOperands& o,
                 const std::vector<Block>& blocks,
                 const BlockProducts& products, const Workspace& workspace) {
  const Padding padding(spec, products.rows());
  const int64_t size = DTypeSize(spec.dtype);
  const int64_t x_row = spec.k * size;
  const int64_t y_row = spec.n * size;
  for (const Block& block : blocks) {
    if (!block.padded()) continue;
    Pad(block, x_row, o.x, workspace.padding + block.group * padding.bytes());
  }
  const int threads = AvailableThreads();
  const std::vector<ProductTask> tasks =
      TasksOf(spec, blocks, products, threads);
  const auto num_tasks = static_cast<int64_t>(tasks.size());
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t i = 0; i < num_tasks; ++i) {
    const ProductTask& task = tasks[i];
    const int64_t group = blocks[task.first].group;
    const Gemm& product = products.OfSlab(task.columns);
    const int64_t of_column = spec.transpose ? x_row : size;
    const std::byte* weights = static_cast<const std::byte*>(o.weights) +
                               group * spec.n * spec.k * size +
                               task.begin * of_column;
    std::byte* const run = workspace.OfThread();
    // A last column alone may lie as the kernel reads it.
    if (product.packed_bytes() > 0) {
      std::byte* const packed = run + products.run_bytes();
      product.Pack(weights, packed, run);
      weights = packed;
    }
    const int64_t at = task.begin * size;
    const std::byte* const bias =
        spec.bias ? static_cast<const std::byte*>(o.bias) + group * y_row + at
                  : nullptr;
    std::byte* const x_padded = workspace.padding + group * padding.bytes();
    std::byte* const out_padded = x_padded + padding.x_bytes + at;
    for (size_t j = task.first; j < task.end; ++j) {
      const Block& block = blocks[j];
      const auto* x = static_cast<const std::byte*>(o.x) + block.begin * x_row;
      auto* out = static_cast<std::byte*>(o.out) + block.begin * y_row + at;
      if (!block.padded()) {
        product.Run(x, weights, bias, out, run);
        continue;
      }
      product.Run(x_padded, weights, bias, out_padded, run);
      for (int64_t row = 0; row < block.rows; ++row) {
        std::memcpy(out + row * y_row, out_padded + row * y_row,
                    task.columns * size);
      }
    }
  }
}

void RunSums(std::span<const int64_t> counts, const GroupedGemmSpec& spec,
             const GroupedGemmOperands& o, const std::vector<Block>& blocks,
             const BlockProducts& products, const Workspace& workspace) {
  const Padding padding(spec, products.rows());
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
  const BlockProducts products(spec);
  return Padding(spec, products.rows()).bytes() * spec.groups +
         products.workspace_bytes() * AvailableThreads();
}

void RunGroupedGemm(std::span<const int64_t> counts,
                    const GroupedGemmSpec& spec,
                    const GroupedGemmOperands& operands) {
  const BlockProducts products(spec);
  const std::vector<Block> blocks = BlocksOf(counts, products.rows());
  if (blocks.empty()) return;
  auto* const begin = static_cast<std::byte*>(operands.workspace);
  const Workspace workspace = {
      .padding = begin,
      .products = begin + Padding(spec, products.rows()).bytes() * spec.groups,
      .of_thread = products.workspace_bytes()};
  if (spec.accumulate) {
    RunSums(counts, spec, operands, blocks, products, workspace);
  } else {
    RunProducts(spec, operands, blocks, products, workspace);
  }
}

}  // namespace trireme
