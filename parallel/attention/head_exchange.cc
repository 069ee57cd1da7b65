#include "parallel/attention/head_exchange.h"

#include "parallel/grid/dim_collectives.h"
#include "runtime/core/log.h"
#include "runtime/ops/copy.h"

namespace trireme {
namespace {

enum class Order { kByPart, kByRank };

Tensor Reordered(const Tensor& qkv, int64_t queries_per_key, int64_t ranks,
                 Order to) {
  if (ranks == 1) return qkv;
  const int64_t row = qkv.dim(-1);
  CHECK_EQ(row % ((queries_per_key + 2) * ranks), 0) << qkv.shape();
  const int64_t key_run = row / ((queries_per_key + 2) * ranks);
  const Tensor result = Tensor::EmptyLike(qkv, "q, k, v by rank");
  int64_t begin = 0;  // of the part in a rank's columns
  for (const int64_t run : {queries_per_key * key_run, key_run, key_run}) {
    const RunPlaces by_part{
        .offset = begin * ranks, .outer = row, .inner = run};
    const RunPlaces by_rank{
        .offset = begin, .outer = row, .inner = row / ranks};
    CopyStrided({.outer = qkv.num_elements() / row,
                 .inner = ranks,
                 .run = run,
                 .from = to == Order::kByRank ? by_part : by_rank,
                 .to = to == Order::kByRank ? by_rank : by_part},
                qkv, result);
    begin += run;
  }
  return result;
}

}  // namespace

Tensor OrderedByRank(const Tensor& qkv, int64_t queries_per_key,
                     int64_t ranks) {
  return Reordered(qkv, queries_per_key, ranks, Order::kByRank);
}

Tensor OrderedByPart(const Tensor& qkv, int64_t queries_per_key,
                     int64_t ranks) {
  return Reordered(qkv, queries_per_key, ranks, Order::kByPart);
}

Tensor ExchangeHeadsForTokens(Communicator& group, const Tensor& x, int parts,
                              std::string_view name) {
  const int64_t ranks = group.size();
  if (ranks == 1) return x;
  CHECK_EQ(x.dim(2) % (parts * ranks), 0) << x.shape();
  return ExchangeSlices(group, x.Reshape({x.dim(0), x.dim(1), parts, -1}),
                        /*from_dim=*/1, /*to_dim=*/3, name)
      .Reshape({x.dim(0), ranks * x.dim(1), x.dim(2) / ranks});
}

Tensor ExchangeTokensForHeads(Communicator& group, const Tensor& x, int parts,
                              std::string_view name) {
  const int64_t ranks = group.size();
  if (ranks == 1) return x;
  return ExchangeSlices(group, x.Reshape({x.dim(0), x.dim(1), parts, -1}),
                        /*from_dim=*/3, /*to_dim=*/1, name)
      .Reshape({x.dim(0), x.dim(1) / ranks, ranks * x.dim(2)});
}

Tensor TakeHeads(const Communicator& group, const Tensor& x, int parts) {
  if (group.size() == 1) return x;
  return SliceDim(x.Reshape({x.dim(0) * x.dim(1) * parts, -1}), 1, group.size(),
                  group.rank())
      .Reshape({x.dim(0), x.dim(1), -1});
}

Tensor SpreadHeads(const Communicator& group, const Tensor& x, int parts) {
  if (group.size() == 1) return x;
  return PlaceInDim(x.Reshape({x.dim(0) * x.dim(1) * parts, -1}), 1,
                    group.size(), group.rank())
      .Reshape({x.dim(0), x.dim(1), -1});
}

Tensor GatherHeads(Communicator& group, const Tensor& x,
                   std::string_view name) {
  if (group.size() == 1) return x;
  return StartGather(group, x, 2, name).Wait();
}

}  // namespace trireme
