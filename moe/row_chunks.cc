#include "moe/row_chunks.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/device/host.h"
#include "runtime/ops/routing.h"

namespace trireme {
namespace {

// Of n rows, the i-th is in chunk i·chunks/n.
int64_t ChunkBegin(int64_t n, int64_t chunk, int64_t chunks) {
  return (chunk * n + chunks - 1) / chunks;
}

struct Table {
  const std::vector<int64_t>& counts;  // [ranks, experts]
  int64_t ranks;
  int64_t experts;
  int64_t chunks;

  int64_t local() const { return experts / ranks; }
  int64_t operator()(int64_t from, int64_t expert) const {
    return counts[from * experts + expert];
  }
  int64_t InChunk(int64_t chunk, int64_t from, int64_t expert) const {
    const int64_t n = (*this)(from, expert);
    return ChunkBegin(n, chunk + 1, chunks) - ChunkBegin(n, chunk, chunks);
  }
};

// Of each route chunk·experts + expert, or chunks·experts + i to the i-th
// shadowed expert.
Tensor ChunksOfRoutes(const Tensor& experts, const Table& table, int64_t rank,
                      const ExpertSlices& slices,
                      const ShadowedExperts& shadowed) {
  const int64_t whole = table.experts / slices.slices;
  std::vector<int64_t> seen(whole, 0);
  std::vector<int64_t> shadow(whole, -1);
  for (size_t i = 0; i < shadowed.experts.size(); ++i) {
    shadow[shadowed.experts[i]] = static_cast<int64_t>(i);
  }
  std::vector<int32_t> groups = Download<int32_t>(experts);
  for (int32_t& group : groups) {
    if (group < 0) continue;
    if (shadow[group] >= 0) {
      group = static_cast<int32_t>(table.chunks * whole + shadow[group]);
      continue;
    }
    const int64_t first =
        group * slices.slices + slices.PlaceFor(rank, table.ranks);
    const int64_t chunk = seen[group]++ * table.chunks / table(rank, first);
    group += static_cast<int32_t>(chunk * whole);
  }
  groups.resize(experts.num_elements(), 0);  // of a dry device
  return Upload<int32_t>(experts.device(), experts.shape(), groups);
}

Tensor Indices(Device& device, std::vector<int32_t> values, int64_t room) {
  values.resize(room, 0);
  return Upload<int32_t>(device, {room}, values, MemoryCategory::kActivations,
                         "rows in chunks");
}

// Where each rank's rows of each of the own experts begin, expert by expert:
// [local, ranks].
std::vector<int64_t> BeginsOfAll(const Table& table, int64_t rank) {
  std::vector<int64_t> begins;
  int64_t at = 0;
  for (int64_t e = 0; e < table.local(); ++e) {
    for (int64_t from = 0; from < table.ranks; ++from) {
      begins.push_back(at);
      at += table(from, rank * table.local() + e);
    }
  }
  return begins;
}

RowCounts CountsOf(const Table& table, int64_t chunk) {
  std::vector<int64_t> counts(table.ranks * table.ranks, 0);
  for (int64_t from = 0; from < table.ranks; ++from) {
    for (int64_t expert = 0; expert < table.experts; ++expert) {
      counts[from * table.ranks + expert / table.local()] +=
          table.InChunk(chunk, from, expert);
    }
  }
  return RowCounts(table.ranks, std::move(counts));
}

}  // namespace

int64_t RowChunks::going() const {
  int64_t sum = 0;
  for (const Chunk& chunk : chunks) sum += chunk.sent;
  return sum;
}

RowChunks MakeRowChunks(const Tensor& experts,
                        const std::vector<int64_t>& counts, int64_t ranks,
                        int64_t rank, const ExpertSlices& slices,
                        int64_t chunks, int64_t capacity,
                        ShadowedExperts shadowed) {
  Device& device = experts.device();
  const Table table = {counts, ranks,
                       static_cast<int64_t>(counts.size()) / ranks, chunks};
  const int64_t local = table.local();
  const std::vector<int64_t> begins = BeginsOfAll(table, rank);
  RowChunks made;
  made.shadowed = std::move(shadowed);
  made.slices = slices;
  const int64_t gathered = slices.gathered();
  std::vector<int32_t> together(gathered * capacity, 0);
  int64_t begin = 0;
  for (int64_t c = 0; c < chunks; ++c) {
    RowChunks::Chunk chunk{.counts = CountsOf(table, c)};
    chunk.sent = chunk.counts.SentBy(rank);
    // Received rows lie by rank, then by expert.
    std::vector<int64_t> next(local, 0);
    for (int64_t e = 0; e < local; ++e) {
      int64_t rows = 0;
      for (int64_t from = 0; from < ranks; ++from) {
        rows += table.InChunk(c, from, rank * local + e);
      }
      chunk.of_experts.push_back(rows);
    }
    std::partial_sum(chunk.of_experts.begin(), chunk.of_experts.end() - 1,
                     next.begin() + 1);
    const int64_t received = chunk.counts.ReceivedBy(rank);
    std::vector<int32_t> by_expert(received), by_rank(received);
    int64_t at = 0;
    for (int64_t from = 0; from < ranks; ++from) {
      for (int64_t e = 0; e < local; ++e) {
        const int64_t first =
            begins[e * ranks + from] +
            ChunkBegin(table(from, rank * local + e), c, chunks);
        const int64_t rows = table.InChunk(c, from, rank * local + e);
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t slice = 0; slice < gathered; ++slice) {
            together[slice * capacity + first + i] =
                static_cast<int32_t>(begin + slice * received + next[e]);
          }
          by_rank[at] = static_cast<int32_t>(next[e]);
          by_expert[next[e]++] = static_cast<int32_t>(at++);
        }
      }
    }
    // Of the rows from each rank to each expert a chunk has at most its share
    // rounded up.
    chunk.capacity = device.dry()
                         ? std::max(received, capacity / chunks + local * ranks)
                         : received;
    begin += gathered * chunk.capacity;
    std::vector<int32_t> of_slices;
    for (int64_t slice = 0; slice < gathered; ++slice) {
      of_slices.insert(of_slices.end(), by_expert.begin(), by_expert.end());
    }
    chunk.of_experts = CountsOfCopies(chunk.of_experts, gathered);
    chunk.by_expert =
        Indices(device, std::move(of_slices), gathered * chunk.capacity);
    chunk.by_rank = Indices(device, std::move(by_rank), chunk.capacity);
    made.chunks.push_back(std::move(chunk));
  }
  made.together = Indices(device, std::move(together), gathered * capacity);
  SortedRoutes sorted =
      SortRoutes(ChunksOfRoutes(experts, table, rank, slices, made.shadowed),
                 chunks * table.experts / slices.slices +
                     static_cast<int64_t>(made.shadowed.experts.size()));
  const int64_t routes = made.all() / slices.copies;
  const auto rows = [&](const Tensor& all) {
    return device.dry() ? Indices(device, {}, routes) : all.Slice(0, routes);
  };
  made.counts = std::move(sorted.counts);
  made.routes = rows(sorted.routes);
  made.tokens = rows(sorted.tokens);
  made.places = sorted.places;
  return made;
}

}  // namespace trireme
