#include <algorithm>
#include <cmath>

#include "runtime/device/arena.h"
#include "runtime/ops/cuda/families.h"
#include "runtime/ops/cuda/sparse_attention.cuh"
#include "runtime/ops/cuda/sparse_attention_backward.h"

namespace trireme {
namespace {

// What lies where in a workspace.
struct Workspace {
  int64_t scaled = 0;         // [batch, queries, heads, head_dim]: gate·dout
  int64_t deltas = 0;         // compute type [branches, batch, heads, queries]
  int64_t query_sums = 0;     // compute type, as scaled
  int64_t compressed_k = 0;   // compute type [batch, most_small, key_heads, ..]
  int64_t compressed_v = 0;   // likewise
  int64_t queries_begin = 0;  // int32 [batch, key_heads, most_large + 1]
  int64_t queries = 0;        // int32 [batch, key_heads, queries·top_k]
  int64_t attention = 0;
  int64_t bytes = 0;

  Workspace(const SparseAttentionProblem& p,
            const SparseAttentionOperands& operands) {
    const int64_t wide = DTypeSize(ComputeDType(p.dtype));
    const int64_t rows = p.batch * p.queries * p.heads;
    const int64_t key_heads = p.batch * p.key_heads;
    const int64_t compressed = key_heads * p.most_small * p.head_dim * wide;
    const auto cut = [this](int64_t size) {
      const int64_t at = bytes;
      bytes += Arena::Aligned(size);
      return at;
    };
    scaled = cut(rows * p.head_dim * DTypeSize(p.dtype));
    deltas = cut(kSparseBranches * rows * wide);
    query_sums = cut(rows * p.head_dim * wide);
    compressed_k = cut(compressed);
    compressed_v = cut(compressed);
    queries_begin =
        cut(key_heads * (operands.large.most + 1) * DTypeSize(DType::kInt32));
    queries = cut(key_heads * p.queries * p.top_k * DTypeSize(DType::kInt32));
    attention = cut(CudaAttention().backward_workspace(
        Compressed(p), CompressedOperands(p, operands),
        GradientsOf(p, nullptr, nullptr, nullptr, nullptr)));
  }

  // The compressed branch, whose gradients are added to or rounded later.
  static AttentionProblem Compressed(const SparseAttentionProblem& p) {
    AttentionProblem problem = CompressedProblem(p);
    problem.unrounded = true;
    return problem;
  }
  AttentionGradients Gradients(const SparseAttentionProblem& p,
                               std::byte* workspace) const {
    return GradientsOf(p, workspace + scaled, workspace + query_sums,
                       workspace + compressed_k, workspace + compressed_v);
  }

 private:
  static AttentionGradients GradientsOf(const SparseAttentionProblem& p,
                                        void* out, void* q, void* k, void* v) {
    const int64_t width = p.heads * p.head_dim;
    const int64_t key_width = p.key_heads * p.head_dim;
    return {{out, width}, {q, width}, {k, key_width}, {v, key_width}};
  }
};

// The kernels' view of it.
struct BackwardArguments : SparseArguments {
  SparseAttentionGradients gradients;
  void* scaled;
  void* deltas;
  void* query_sums;
  int32_t* queries_begin;
  int32_t* queries;

  BackwardArguments(const SparseAttentionProblem& problem,
                    const SparseAttentionOperands& of,
                    const SparseAttentionGradients& to, const Workspace& places,
                    std::byte* workspace)
      : SparseArguments(problem, of),
        gradients(to),
        scaled(workspace + places.scaled),
        deltas(workspace + places.deltas),
        query_sums(workspace + places.query_sums),
        queries_begin(
            reinterpret_cast<int32_t*>(workspace + places.queries_begin)),
        queries(reinterpret_cast<int32_t*>(workspace + places.queries)) {}

  template <typename T>
  __device__ const T* OutGradient(int64_t row, int64_t head) const {
    return static_cast<const T*>(gradients.out) +
           (row * p.heads + head) * p.head_dim;
  }
  template <typename C>
  __device__ C* Deltas(SparseBranch branch) const {
    return static_cast<C*>(deltas) + branch * p.batch * p.heads * p.queries;
  }
  // Of one head of keys of a sample.
  __device__ int32_t* QueriesBegin(int64_t sample, int64_t key_head) const {
    return queries_begin +
           (sample * p.key_heads + key_head) * (operands.large.most + 1);
  }
  __device__ int32_t* Queries(int64_t sample, int64_t key_head) const {
    return queries + (sample * p.key_heads + key_head) * p.queries * p.top_k;
  }

  // By one lane: of a query and a key, before the query's gate.
  template <typename T>
  __device__ ScoreGradient<ComputeType<T>> GradientOf(SparseBranch branch,
                                                      const WarpRow& query,
                                                      const T* k,
                                                      const T* v) const {
    using C = ComputeType<T>;
    const int64_t at =
        (query.sample * p.heads + query.head) * p.queries + query.token;
    const C gate = Gate<T>(query.row, branch);
    ScoreGradient<C> gradient =
        ScoreGradientOf(static_cast<const T*>(HeadRow<T>(
                            operands.q, query.row, query.head, p.head_dim)),
                        OutGradient<T>(query.row, query.head), k, v, p.head_dim,
                        static_cast<C>(p.scale), LogSumExps<C>(branch)[at],
                        Deltas<C>(branch)[at]);
    gradient.probability *= gate;
    gradient.slope *= gate;
    return gradient;
  }
};

// A warp for each query: the output's gradient times the compressed branch's
// gate, its products with the branches' outputs, and the gates' gradients; all
// 0 of padding.
template <typename T>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    GatesKernel(const __grid_constant__ BackwardArguments a) {
  using C = ComputeType<T>;
  const int64_t row = GridWarp();
  if (row >= a.p.batch * a.p.queries) return;
  const int64_t sample = Quotient(row, a.p.queries);
  const int64_t query = row - sample * a.p.queries;
  const bool real = a.IsReal(sample, query);
  const int64_t width = a.p.heads * a.p.head_dim;
  const T* const slope = a.OutGradient<T>(row, 0);
  T* const scaled = static_cast<T*>(a.scaled) + row * width;
  const C compressed = real ? a.Gate<T>(row, kCompressedBranch) : C(0);
  for (int64_t c = WarpLane(); c < width; c += kWarpThreads) {
    Narrow(real ? compressed * Widen(slope[c]) : C(0), scaled[c]);
  }
  for (int i = 0; i < kSparseBranches; ++i) {
    const auto branch = static_cast<SparseBranch>(i);
    C total = 0;
    for (int64_t head = 0; head < a.p.heads; ++head) {
      const T* const part = a.PartRow<T>(branch, row, head);
      C sum = 0;
      if (real) {
        for (int64_t c = WarpLane(); c < a.p.head_dim; c += kWarpThreads) {
          sum = MultiplyAdd(Widen(slope[head * a.p.head_dim + c]),
                            Widen(part[c]), sum);
        }
      }
      sum = WarpSum(sum);
      total += sum;
      if (WarpLane() == 0) {
        a.Deltas<C>(branch)[(sample * a.p.heads + head) * a.p.queries + query] =
            sum;
      }
    }
    if (WarpLane() != 0) continue;
    const C gate = a.Gate<T>(row, i);
    Narrow(gate * (1 - gate) * total,
           static_cast<T*>(a.gradients.gates)[row * kSparseBranches + i]);
  }
}

// A warp for each query of each head: to what the compressed branch has left
// come the other two.
template <typename T, int kChannels>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks)
    QueryGradientKernel(const __grid_constant__ BackwardArguments a) {
  using C = ComputeType<T>;
  KERNEL_SHARED(slopes, C[kRowWarps][kWarpThreads]);
  if (GridWarp() >= a.p.batch * a.p.heads * a.p.queries) return;
  const WarpRow at(GridWarp(), a.p.heads, a.p.queries);
  const int64_t key_head = Quotient(at.head, a.queries_per_key);
  const int64_t d = a.p.head_dim;
  const int64_t first_key = at.sample * a.p.keys;
  C* const of_warp = slopes[WarpIndex()];
  ChannelSums<C, kChannels> sums;
  sums.Add(
      C(1),
      static_cast<const C*>(a.query_sums) + (at.row * a.p.heads + at.head) * d,
      d);
  const bool real = a.IsReal(at.sample, at.token);
  for (int i = kSelectedBranch; real && i < kSparseBranches; ++i) {
    const auto branch = static_cast<SparseBranch>(i);
    const BlockList list = a.ListOf(branch, at.sample, key_head, at.token);
    for (int64_t n = 0; n < list.length && list.blocks[n] >= 0; ++n) {
      const int32_t block = list.blocks[n];
      const int32_t end = list.offsets[block + 1];
      for (int32_t first = list.offsets[block]; first < end;
           first += kWarpThreads) {
        C slope = 0;
        if (first + WarpLane() < end) {
          const int64_t row = first_key + list.order[first + WarpLane()];
          slope = a.GradientOf<T>(branch, at,
                                  HeadRow<T>(a.operands.k, row, key_head, d),
                                  HeadRow<T>(a.operands.v, row, key_head, d))
                      .slope;
        }
        of_warp[WarpLane()] = slope;
        __syncwarp();
        for (int j = 0; j < kWarpThreads && first + j < end; ++j) {
          sums.Add(of_warp[j],
                   HeadRow<T>(a.operands.k, first_key + list.order[first + j],
                              key_head, d),
                   d);
        }
        __syncwarp();
      }
    }
  }
  sums.Store(HeadRow<T>(a.gradients.q, at.row, at.head, d), d);
}

// Calls visit(query, votes of the lanes whose query has chosen the block), by a
// warp, for all queries of a head of keys in their order. Padding has none.
template <typename F>
__device__ void ForChoosers(const BackwardArguments& a, int64_t sample,
                            int64_t key_head, int32_t block, F&& visit) {
  for (int64_t first = 0; first < a.p.queries; first += kWarpThreads) {
    const int64_t query = first + WarpLane();
    bool chosen = false;
    if (query < a.p.queries) {
      const BlockList list = a.ListOf(kSelectedBranch, sample, key_head, query);
      for (int64_t n = 0; n < list.length && !chosen; ++n) {
        chosen = list.blocks[n] == block;
      }
    }
    visit(query, __ballot_sync(kWholeWarp, chosen));
  }
}

// A warp for each large block of each head of keys: how many queries chose it,
// in the place behind the block's.
__global__ void __launch_bounds__(kRowThreads)
    CountChoosersKernel(const __grid_constant__ BackwardArguments a) {
  if (GridWarp() >= a.p.batch * a.p.key_heads * a.operands.large.most) return;
  const WarpRow at(GridWarp(), a.p.key_heads, a.operands.large.most);
  int32_t count = 0;
  if (at.token < a.operands.large.counts[at.sample]) {
    ForChoosers(a, at.sample, at.head, static_cast<int32_t>(at.token),
                [&](int64_t, unsigned votes) { count += __popc(votes); });
  }
  if (WarpLane() == 0) {
    a.QueriesBegin(at.sample, at.head)[at.token + 1] = count;
  }
}

// A warp for each head of keys of each sample: where each block's begin.
__global__ void __launch_bounds__(kRowThreads)
    PlaceChoosersKernel(const __grid_constant__ BackwardArguments a) {
  if (GridWarp() >= a.p.batch * a.p.key_heads) return;
  const int64_t sample = Quotient(GridWarp(), a.p.key_heads);
  int32_t* const begins =
      a.QueriesBegin(sample, GridWarp() - sample * a.p.key_heads);
  int32_t before = 0;
  for (int64_t first = 1; first <= a.operands.large.most;
       first += kWarpThreads) {
    const int64_t i = first + WarpLane();
    int32_t sum = i <= a.operands.large.most ? begins[i] : 0;
    UNROLL
    for (int distance = 1; distance < kWarpThreads; distance *= 2) {
      const int32_t lower = __shfl_up_sync(kWholeWarp, sum, distance);
      if (WarpLane() >= distance) sum += lower;
    }
    sum += before;
    if (i <= a.operands.large.most) begins[i] = sum;
    before = __shfl_sync(kWholeWarp, sum, kWarpThreads - 1);
  }
  if (WarpLane() == 0) begins[0] = 0;
}

__global__ void __launch_bounds__(kRowThreads)
    ListChoosersKernel(const __grid_constant__ BackwardArguments a) {
  if (GridWarp() >= a.p.batch * a.p.key_heads * a.operands.large.most) return;
  const WarpRow at(GridWarp(), a.p.key_heads, a.operands.large.most);
  if (at.token >= a.operands.large.counts[at.sample]) return;
  int32_t* next = a.Queries(at.sample, at.head) +
                  a.QueriesBegin(at.sample, at.head)[at.token];
  ForChoosers(a, at.sample, at.head, static_cast<int32_t>(at.token),
              [&](int64_t query, unsigned votes) {
                const unsigned own = 1u << WarpLane();
                if (votes & own) {
                  next[__popc(votes & (own - 1))] = static_cast<int32_t>(query);
                }
                next += __popc(votes);
              });
}

// What a warp finds of its key.
template <typename T, int kChannels>
struct KeyGradient {
  using C = ComputeType<T>;

  const BackwardArguments& a;
  const WarpRow& key;
  const T* k;
  const T* v;
  ScoreGradient<C>* of_warp;
  ChannelSums<C, kChannels> of_key, of_value;

  // Of `count` queries of each head that shares the key's; query_of(i) is one,
  // or below 0 where another rank has it.
  template <typename F>
  __device__ void Add(SparseBranch branch, int64_t count, F&& query_of) {
    const int64_t d = a.p.head_dim;
    for (int64_t member = 0; member < a.queries_per_key; ++member) {
      WarpRow query = key;
      query.head = key.head * a.queries_per_key + member;
      const auto row_of = [&](int64_t i) {
        query.token = query_of(i);
        query.row = query.sample * a.p.queries + query.token;
        return query.token >= 0;
      };
      for (int64_t first = 0; first < count; first += kWarpThreads) {
        const int64_t own = first + WarpLane();
        of_warp[WarpLane()] = {0, 0};
        if (own < count && row_of(own)) {
          of_warp[WarpLane()] = a.GradientOf<T>(branch, query, k, v);
        }
        __syncwarp();
        for (int j = 0; j < kWarpThreads && first + j < count; ++j) {
          if (!row_of(first + j)) continue;
          of_key.Add(of_warp[j].slope,
                     HeadRow<T>(a.operands.q, query.row, query.head, d), d);
          of_value.Add(of_warp[j].probability,
                       a.OutGradient<T>(query.row, query.head), d);
        }
        __syncwarp();
      }
    }
  }
};

// At once on a multiprocessor: a key has two rows of sums.
constexpr int kKeyBlocks = 3;

// A warp for each key.
template <typename T, int kChannels>
__global__ void __launch_bounds__(kRowThreads, kKeyBlocks)
    KeyGradientKernel(const __grid_constant__ BackwardArguments a) {
  using C = ComputeType<T>;
  KERNEL_SHARED(gradients, ScoreGradient<C>[kRowWarps][kWarpThreads]);
  if (GridWarp() >= a.p.batch * a.p.key_heads * a.p.keys) return;
  const WarpRow at(GridWarp(), a.p.key_heads, a.p.keys);
  const int64_t d = a.p.head_dim;
  KeyGradient<T, kChannels> sums = {
      a, at, HeadRow<T>(a.operands.k, at.row, at.head, d),
      HeadRow<T>(a.operands.v, at.row, at.head, d), gradients[WarpIndex()]};
  const int32_t large = a.LargeBlockOf(at.sample, at.token);
  if (large >= 0) {
    const int64_t first = at.sample * a.p.block_tokens;
    const int32_t* const begins = a.QueriesBegin(at.sample, at.head) + large;
    const int32_t* const choosers = a.Queries(at.sample, at.head) + begins[0];
    sums.Add(kSelectedBranch, begins[1] - begins[0],
             [&](int64_t i) { return static_cast<int64_t>(choosers[i]); });
    const TokenBlocksPointer& windows = a.operands.windows;
    const int32_t* const offsets = windows.offsets +
                                   at.sample * (windows.most + 1) +
                                   windows.of_token[first + at.token];
    const int32_t* const tokens = windows.order + first + offsets[0];
    sums.Add(kWindowBranch, offsets[1] - offsets[0], [&](int64_t i) {
      const int64_t query = tokens[i] - a.p.first_query;
      return query < a.p.queries ? query : -1;
    });
  }
  sums.of_key.Store(HeadRow<T>(a.gradients.k, at.row, at.head, d), d);
  sums.of_value.Store(HeadRow<T>(a.gradients.v, at.row, at.head, d), d);
}

// A warp for each row of a gradient that is rounded.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    RoundKernel(int64_t rows, int64_t width, const ComputeType<T>* from,
                HeadsPointer to) {
  const int64_t row = GridWarp();
  if (row >= rows) return;
  T* const out = HeadRow<T>(to, row, 0, 0);
  for (int64_t c = WarpLane(); c < width; c += kWarpThreads) {
    Narrow(from[row * width + c], out[c]);
  }
}

}  // namespace

int64_t SparseAttentionBackwardBytes(const SparseAttentionProblem& problem,
                                     const SparseAttentionOperands& operands,
                                     const SparseAttentionGradients&) {
  return Workspace(problem, operands).bytes;
}

void SparseAttentionBackwardPass(Stream& stream,
                                 const SparseAttentionProblem& p,
                                 const SparseAttentionOperands& operands,
                                 const SparseAttentionGradients& gradients,
                                 void* workspace) {
  const Workspace places(p, operands);
  auto* const bytes = static_cast<std::byte*>(workspace);
  const BackwardArguments a(p, operands, gradients, places, bytes);
  const int64_t blocks_of_heads = p.batch * p.key_heads * operands.large.most;
  DispatchChannels(
      p.dtype, p.head_dim,
      [&]<typename T, typename Channels>(T, Channels, int64_t blocks) {
        using C = ComputeType<T>;
        Launch(ForRows(stream, p.batch * p.queries), GatesKernel<T>, a);
        CudaAttention().backward(
            stream, Workspace::Compressed(p), CompressedOperands(p, operands),
            places.Gradients(p, bytes), bytes + places.attention);
        for (const auto& [from, to] :
             {std::pair(places.compressed_k, gradients.compressed_k),
              std::pair(places.compressed_v, gradients.compressed_v)}) {
          Launch(ForRows(stream, p.batch * p.most_small), RoundKernel<T>,
                 p.batch * p.most_small, p.key_heads * p.head_dim,
                 reinterpret_cast<const C*>(bytes + from), to);
        }
        Launch(ForRows(stream, p.batch * p.heads * p.queries, blocks),
               QueryGradientKernel<T, Channels::value>, a);
        Launch(ForRows(stream, blocks_of_heads), CountChoosersKernel, a);
        Launch(ForRows(stream, p.batch * p.key_heads), PlaceChoosersKernel, a);
        Launch(ForRows(stream, blocks_of_heads), ListChoosersKernel, a);
        Launch(ForRows(stream, p.batch * p.key_heads * p.keys, blocks),
               KeyGradientKernel<T, Channels::value>, a);
      });
}

}  // namespace trireme
