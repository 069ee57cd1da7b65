#include "moe/expert_slices.h"

#include "runtime/core/log.h"
#include "runtime/ops/pointwise.h"

namespace trireme {
namespace {

int64_t LargestPrimeFactor(int64_t n) {
  int64_t factor = 1;
  for (int64_t divisor = 2; n > 1; ++divisor) {
    for (; n % divisor == 0; n /= divisor) factor = divisor;
  }
  return factor;
}

// Of at least one, in order.
Tensor SumInOrder(int64_t n, const std::function<Tensor(int64_t)>& part) {
  if (n == 1) return part(0);
  const Tensor first = part(0);
  const Tensor sum = Add(first, part(1));
  for (int64_t i = 2; i < n; ++i) AddInPlace(part(i), sum);
  return sum;
}

Tensor SumOfBranch(int64_t begin, int64_t n,
                   const std::function<Tensor(int64_t)>& part) {
  if (n == 1) return part(begin);
  const int64_t branches = LargestPrimeFactor(n);
  const int64_t each = n / branches;
  return SumInOrder(branches, [&](int64_t i) {
    return SumOfBranch(begin + i * each, each, part);
  });
}

// The groups of rows, where they begin and end. A dry device is told of counts
// that are not those of its rows, which lie in one group then.
std::vector<int64_t> GroupsOf(const Tensor& rows,
                              std::span<const int64_t> counts, int64_t copies) {
  if (rows.device().dry()) return {rows.dim(0) / copies};
  return {counts.begin(), counts.end()};
}

}  // namespace

std::vector<int64_t> RoutesToSlices(const std::vector<int64_t>& table,
                                    int64_t ranks, const ExpertSlices& slices) {
  if (slices.slices == 1) return table;
  const int64_t experts = static_cast<int64_t>(table.size()) / ranks;
  std::vector<int64_t> to_slices(table.size() * slices.slices, 0);
  for (int64_t from = 0; from < ranks; ++from) {
    for (int64_t expert = 0; expert < experts; ++expert) {
      const int64_t first = (from * experts + expert) * slices.slices;
      for (int64_t copy = 0; copy < slices.copies; ++copy) {
        to_slices[first + copy * slices.gathered() +
                  slices.PlaceFor(from, ranks)] =
            table[from * experts + expert];
      }
    }
  }
  return to_slices;
}

Tensor CopyGroups(const Tensor& rows, std::span<const int64_t> counts,
                  int64_t copies) {
  if (copies == 1) return rows;
  const Tensor all =
      Tensor::Empty(rows.device(), {copies * rows.dim(0), rows.dim(1)},
                    rows.dtype(), MemoryCategory::kActivations, "copies");
  int64_t begin = 0;
  for (const int64_t count : GroupsOf(rows, counts, /*copies=*/1)) {
    if (count == 0) continue;
    const Tensor group = rows.Slice(begin, begin + count);
    for (int64_t copy = 0; copy < copies; ++copy) {
      const int64_t at = copies * begin + copy * count;
      all.Slice(at, at + count).CopyFrom(group);
    }
    begin += count;
  }
  return all;
}

Tensor SumCopies(const Tensor& rows, std::span<const int64_t> counts,
                 int64_t copies) {
  if (copies == 1) return rows;
  const auto sum = [&](int64_t begin, int64_t count) {
    return SumByTree(copies, [&](int64_t copy) {
      const int64_t at = copies * begin + copy * count;
      return rows.Slice(at, at + count);
    });
  };
  const std::vector<int64_t> groups = GroupsOf(rows, counts, copies);
  if (groups.size() == 1) return sum(0, groups.front());
  const Tensor sums =
      Tensor::Empty(rows.device(), {rows.dim(0) / copies, rows.dim(1)},
                    rows.dtype(), MemoryCategory::kActivations, "copies");
  int64_t begin = 0;
  for (const int64_t count : groups) {
    if (count == 0) continue;
    sums.Slice(begin, begin + count).CopyFrom(sum(begin, count));
    begin += count;
  }
  return sums;
}

std::vector<int64_t> CountsOfCopies(std::span<const int64_t> counts,
                                    int64_t copies) {
  std::vector<int64_t> repeated;
  for (const int64_t count : counts) {
    repeated.insert(repeated.end(), copies, count);
  }
  return repeated;
}

Tensor SumSlices(const Tensor& rows, int64_t slices) {
  const int64_t count[] = {rows.dim(0) / slices};
  return SumCopies(rows, count, slices);
}

Tensor SumByTree(int64_t n, const std::function<Tensor(int64_t)>& part) {
  return SumOfBranch(0, n, part);
}

Tensor SumByTree(int64_t n, int64_t run,
                 const std::function<Tensor(int64_t)>& part) {
  CHECK_EQ(n % run, 0);
  return SumByTree(n / run, [&](int64_t i) {
    return SumInOrder(run, [&](int64_t j) { return part(i * run + j); });
  });
}

}  // namespace trireme
