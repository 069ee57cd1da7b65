#include <cmath>

#include "runtime/ops/cuda/attention_flash.h"
#include "runtime/ops/cuda/attention_tiles.cuh"

namespace trireme {
namespace {

// Rows of the tiles that a block goes through: keys, or queries.
constexpr int kSteps = 32;

// At once on a multiprocessor: for more the compiler would spill registers.
constexpr int kTileBlocks = 2;

template <typename T, int kDim>
struct ForwardTiles {
  Tile<T, kTileRows, kDim> q;
  Tile<T, kSteps, kDim> k, v;
};

template <typename T, int kDim>
struct QueryGradientTiles {
  Tile<T, kTileRows, kDim> q, slope;
  Tile<T, kSteps, kDim> k, v;
};

template <typename T, int kDim>
struct KeyGradientTiles {
  Tile<T, kTileRows, kDim> k, v;
  Tile<T, kSteps, kDim> q, slope;
  // Of each query.
  KeyRange keys[kSteps];
  float log_sum_exp[kSteps], delta[kSteps];
};

// A thread has elements of two rows of its warp's sixteen; four threads share
// them.
constexpr int kRows = 2;

// The sum of the four threads' values, or the highest.
template <typename Combine>
__device__ float CombineRow(float value, Combine combine) {
  value = combine(value, __shfl_xor_sync(kWholeWarp, value, 1));
  return combine(value, __shfl_xor_sync(kWholeWarp, value, 2));
}

// A tile of a head, from row `row` on, of which there are `count` left.
template <int kTile, int kDim, typename T>
__device__ void LoadHead(const AttentionArguments& a, const HeadsPointer& heads,
                         int64_t row, int64_t head, int64_t count,
                         Tile<T, kTile, kDim>& tile) {
  LoadTile<kTile, kDim>(static_cast<const T*>(HeadRow<T>(a, heads, row, head)),
                        heads.row_stride, count, a.head_dim, tile);
}

// Of numbers below 2³²: a division of 64 bits is a call, around which registers
// would be spilled.
__device__ int64_t KeyHeadOf(const AttentionArguments& a, int64_t head) {
  return static_cast<uint32_t>(head) / static_cast<uint32_t>(a.queries_per_key);
}

// What the queries of a block's tile see: of the thread's two, and of all.
struct TileKeys {
  KeyRange of_rows[kRows];
  KeyRange all;

  __device__ TileKeys(const AttentionArguments& a, const TilePlace& place) {
    UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int64_t row = WarpFirstRow() + FragmentRow() + 8 * r;
      of_rows[r] = row < place.count
                       ? a.VisibleKeys(place.sample, place.first + row)
                       : KeyRange{0, 0};
    }
    const int64_t last =
        place.first + (place.count < kTileRows ? place.count : kTileRows) - 1;
    // Neither end falls from one query to the next.
    all = {a.VisibleKeys(place.sample, place.first).begin,
           a.VisibleKeys(place.sample, last).end};
  }
  __device__ bool Sees(int row, int64_t key) const {
    return key >= of_rows[row].begin && key < of_rows[row].end;
  }
};

template <typename T, int kDim>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    ForwardKernel(const __grid_constant__ AttentionArguments a) {
  auto& tiles = *DynamicShared<ForwardTiles<T, kDim>>();
  const TilePlace place(a.queries);
  const int64_t key_head = KeyHeadOf(a, place.head);
  const TileKeys keys(a, place);
  const auto scale = static_cast<float>(a.scale);
  LoadHead<kTileRows, kDim>(a, a.operands.q,
                            place.sample * a.queries + place.first, place.head,
                            place.count, tiles.q);
  FragmentSums<kDim> sums;
  float highest[kRows] = {-INFINITY, -INFINITY};
  float total[kRows] = {};
  for (int64_t first = keys.all.begin; first < keys.all.end; first += kSteps) {
    const int64_t row = place.sample * a.keys + first;
    LoadHead<kSteps, kDim>(a, a.operands.k, row, key_head, a.keys - first,
                           tiles.k);
    LoadHead<kSteps, kDim>(a, a.operands.v, row, key_head, a.keys - first,
                           tiles.v);
    __syncthreads();
    FragmentSums<kSteps> scores;
    MultiplyTransposed<kDim>(tiles.q, tiles.k, scores);
    float before[kRows] = {highest[0], highest[1]};
    UNROLL
    for (int n = 0; n < kSteps / 8; ++n) {
      UNROLL
      for (int i = 0; i < 4; ++i) {
        float& score = scores.values[n][i];
        score = keys.Sees(i / 2, first + scores.Column(n, i)) ? score * scale
                                                              : -INFINITY;
        highest[i / 2] = Higher()(highest[i / 2], score);
      }
    }
    float rescale[kRows];
    UNROLL
    for (int r = 0; r < kRows; ++r) {
      highest[r] = CombineRow(highest[r], Higher());
      // A row that has seen no key yet has weights of 0.
      const float from = highest[r] == -INFINITY ? 0.0f : highest[r];
      rescale[r] = Exp(before[r] - from);
      total[r] *= rescale[r];
    }
    UNROLL
    for (int n = 0; n < kSteps / 8; ++n) {
      UNROLL
      for (int i = 0; i < 4; ++i) {
        const float from = highest[i / 2] == -INFINITY ? 0.0f : highest[i / 2];
        scores.values[n][i] = Exp(scores.values[n][i] - from);
        total[i / 2] += scores.values[n][i];
      }
    }
    sums.ScaleRows(rescale);
    MultiplyRounded<T>(scores, tiles.v, sums);
    // Nobody loads the next keys before all are through with these.
    __syncthreads();
  }
  float inverse[kRows];
  UNROLL
  for (int r = 0; r < kRows; ++r) {
    total[r] = CombineRow(total[r], Plus());
    // A query that saw no key has the sum 0 of values.
    const bool empty = highest[r] == -INFINITY;
    inverse[r] = empty ? 0.0f : 1.0f / total[r];
    const int64_t row = WarpFirstRow() + FragmentRow() + 8 * r;
    if (FragmentColumn() == 0 && row < place.count) {
      static_cast<float*>(
          a.operands.log_sum_exp)[place.At(a.heads, a.queries) + row] =
          empty ? -INFINITY : highest[r] + Log(total[r]);
    }
  }
  sums.ScaleRows(inverse);
  sums.template Store<T>(
      a, a.operands.out,
      place.sample * a.queries + place.first + WarpFirstRow(),
      place.count - WarpFirstRow(), place.head);
}

// The probability of a score, and the gradient of what the scale multiplies
// times it, in the places of the score and of the probability's gradient.
__device__ void ToGradients(float scale, float log_sum_exp, float delta,
                            bool seen, float& score, float& slope) {
  score = seen ? Exp(MultiplyAdd(scale, score, -log_sum_exp)) : 0.0f;
  slope = seen ? scale * score * (slope - delta) : 0.0f;
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    QueryGradientKernel(const __grid_constant__ AttentionArguments a) {
  auto& tiles = *DynamicShared<QueryGradientTiles<T, kDim>>();
  const TilePlace place(a.queries);
  const int64_t key_head = KeyHeadOf(a, place.head);
  const TileKeys keys(a, place);
  const int64_t query = place.sample * a.queries + place.first;
  LoadHead<kTileRows, kDim>(a, a.operands.q, query, place.head, place.count,
                            tiles.q);
  LoadHead<kTileRows, kDim>(a, a.gradients.out, query, place.head, place.count,
                            tiles.slope);
  float log_sum_exp[kRows] = {}, delta[kRows] = {};
  UNROLL
  for (int r = 0; r < kRows; ++r) {
    const int64_t row = WarpFirstRow() + FragmentRow() + 8 * r;
    if (row >= place.count) continue;
    const int64_t at = place.At(a.heads, a.queries) + row;
    log_sum_exp[r] = static_cast<const float*>(a.operands.log_sum_exp)[at];
    delta[r] = static_cast<const float*>(a.delta)[at];
  }
  FragmentSums<kDim> sums;
  for (int64_t first = keys.all.begin; first < keys.all.end; first += kSteps) {
    const int64_t row = place.sample * a.keys + first;
    LoadHead<kSteps, kDim>(a, a.operands.k, row, key_head, a.keys - first,
                           tiles.k);
    LoadHead<kSteps, kDim>(a, a.operands.v, row, key_head, a.keys - first,
                           tiles.v);
    __syncthreads();
    FragmentSums<kSteps> scores, slopes;
    MultiplyTransposed<kDim>(tiles.q, tiles.k, scores);
    MultiplyTransposed<kDim>(tiles.slope, tiles.v, slopes);
    UNROLL
    for (int n = 0; n < kSteps / 8; ++n) {
      UNROLL
      for (int i = 0; i < 4; ++i) {
        ToGradients(static_cast<float>(a.scale), log_sum_exp[i / 2],
                    delta[i / 2], keys.Sees(i / 2, first + scores.Column(n, i)),
                    scores.values[n][i], slopes.values[n][i]);
      }
    }
    MultiplyRounded<T>(slopes, tiles.k, sums);
    // Nobody loads the next keys before all are through with these.
    __syncthreads();
  }
  sums.template Store<T>(a, a.gradients.q, query + WarpFirstRow(),
                         place.count - WarpFirstRow(), place.head);
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks)
    KeyGradientKernel(const __grid_constant__ AttentionArguments a) {
  auto& tiles = *DynamicShared<KeyGradientTiles<T, kDim>>();
  const TilePlace place(a.keys);
  const int64_t key = place.sample * a.keys + place.first;
  LoadHead<kTileRows, kDim>(a, a.operands.k, key, place.head, place.count,
                            tiles.k);
  LoadHead<kTileRows, kDim>(a, a.operands.v, key, place.head, place.count,
                            tiles.v);
  // Queries that see any of the keys: neither end falls from one to the next.
  const int64_t last =
      place.first + (place.count < kTileRows ? place.count : kTileRows) - 1;
  const KeyRange queries = {a.SeeingQueries(place.first).begin,
                            a.SeeingQueries(last).end};
  FragmentSums<kDim> of_key, of_value;
  for (int64_t member = 0; member < a.queries_per_key; ++member) {
    const int64_t head = place.head * a.queries_per_key + member;
    const int64_t of_head = (place.sample * a.heads + head) * a.queries;
    for (int64_t first = queries.begin; first < queries.end; first += kSteps) {
      const int64_t row = place.sample * a.queries + first;
      LoadHead<kSteps, kDim>(a, a.operands.q, row, head, a.queries - first,
                             tiles.q);
      LoadHead<kSteps, kDim>(a, a.gradients.out, row, head, a.queries - first,
                             tiles.slope);
      if (threadIdx.x < kSteps) {
        const int64_t query = first + threadIdx.x;
        const bool there = query < a.queries;
        const int64_t at = of_head + query;
        tiles.keys[threadIdx.x] =
            there ? a.VisibleKeys(place.sample, query) : KeyRange{0, 0};
        tiles.log_sum_exp[threadIdx.x] =
            there ? static_cast<const float*>(a.operands.log_sum_exp)[at]
                  : 0.0f;
        tiles.delta[threadIdx.x] =
            there ? static_cast<const float*>(a.delta)[at] : 0.0f;
      }
      __syncthreads();
      FragmentSums<kSteps> scores, slopes;
      MultiplyTransposed<kDim>(tiles.k, tiles.q, scores);
      MultiplyTransposed<kDim>(tiles.v, tiles.slope, slopes);
      UNROLL
      for (int n = 0; n < kSteps / 8; ++n) {
        UNROLL
        for (int i = 0; i < 4; ++i) {
          const int column = scores.Column(n, i);
          const int64_t own = place.first + WarpFirstRow() + scores.Row(i);
          const KeyRange seen = tiles.keys[column];
          ToGradients(static_cast<float>(a.scale), tiles.log_sum_exp[column],
                      tiles.delta[column], own >= seen.begin && own < seen.end,
                      scores.values[n][i], slopes.values[n][i]);
        }
      }
      MultiplyRounded<T>(scores, tiles.slope, of_value);
      MultiplyRounded<T>(slopes, tiles.q, of_key);
      // Nobody loads the next queries before all are through with these.
      __syncthreads();
    }
  }
  of_key.template Store<T>(a, a.gradients.k, key + WarpFirstRow(),
                           place.count - WarpFirstRow(), place.head);
  of_value.template Store<T>(a, a.gradients.v, key + WarpFirstRow(),
                             place.count - WarpFirstRow(), place.head);
}

// Calls f(T, kDim): what holds a head's channels.
template <typename F>
void DispatchTiles(DType dtype, int64_t head_dim, F&& f) {
  CHECK_LE(head_dim, kMaxFlashHeadDim);
  const auto dispatch = [&](auto element) {
    if (head_dim <= 64) {
      f(element, std::integral_constant<int, 64>());
    } else if (head_dim <= 80) {
      f(element, std::integral_constant<int, 80>());
    } else {
      f(element, std::integral_constant<int, kMaxFlashHeadDim>());
    }
  };
  if (dtype == DType::kBFloat16) {
    dispatch(__nv_bfloat16{});
  } else {
    CHECK(dtype == DType::kFloat16) << dtype;
    dispatch(__half{});
  }
}

// A block for each tile of rows of each head.
LaunchConfig ForTiles(Stream& stream, int64_t batch, int64_t heads,
                      int64_t tokens, size_t shared_bytes) {
  return {dim3(static_cast<unsigned>((tokens + kTileRows - 1) / kTileRows),
               static_cast<unsigned>(heads), static_cast<unsigned>(batch)),
          kTileThreads, shared_bytes, Handle(stream)};
}

}  // namespace

void FlashAttentionForward(Stream& stream, DType dtype,
                           const AttentionArguments& a) {
  DispatchTiles(dtype, a.head_dim, [&]<typename T, typename Dim>(T, Dim) {
    Launch(ForTiles(stream, a.batch, a.heads, a.queries,
                    sizeof(ForwardTiles<T, Dim::value>)),
           ForwardKernel<T, Dim::value>, a);
  });
}

void FlashAttentionBackward(Stream& stream, DType dtype,
                            const AttentionArguments& a) {
  DispatchTiles(dtype, a.head_dim, [&]<typename T, typename Dim>(T, Dim) {
    Launch(ForTiles(stream, a.batch, a.heads, a.queries,
                    sizeof(QueryGradientTiles<T, Dim::value>)),
           QueryGradientKernel<T, Dim::value>, a);
    Launch(ForTiles(stream, a.batch, a.key_heads, a.keys,
                    sizeof(KeyGradientTiles<T, Dim::value>)),
           KeyGradientKernel<T, Dim::value>, a);
  });
}

}  // namespace trireme
