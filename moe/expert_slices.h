// Experts that several ranks share, each with a slice of their hidden channels
// (Hwang et al., "Tutel: adaptive mixture-of-experts at scale", section 3.2).
//
// Ranks of an expert group own `slices` slices of each expert, next to each
// other, whatever a call does. A row goes to `copies` of an expert's ranks
// (Tutel's r), one in each of as many runs of neighbours; a run's ranks gather
// each other's slices and share the rows by the ranks that these come from, so
// that each computes slices/copies slices of its part of the rows: as much
// arithmetic whatever `copies` is, fewer rows on their way and more weights.
//
// What the slices return is summed by a tree, as are the gradients of their
// weights over the ranks that rows come from. Neighbours are summed first, and
// so, where the slices are a power of a prime, sums have the same bits for any
// number of copies.

#ifndef TRIREME_MOE_EXPERT_SLICES_H_
#define TRIREME_MOE_EXPERT_SLICES_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/device/tensor.h"

namespace trireme {

struct ExpertSlices {
  int64_t slices = 1;
  int64_t copies = 1;  // divides slices

  // Slices of one rank's products.
  int64_t gathered() const { return slices / copies; }
  // In a group of so many ranks, the place in its run of the rank that gets the
  // rows of rank `from`.
  int64_t PlaceFor(int64_t from, int64_t ranks) const {
    return from * gathered() / ranks;
  }
};

// [ranks, experts], of each rank's routes those to each expert → [ranks,
// experts·slices], those to each slice's rank.
std::vector<int64_t> RoutesToSlices(const std::vector<int64_t>& table,
                                    int64_t ranks, const ExpertSlices& slices);

// rows[r, h], of groups that have so many each → [copies·r, h], each group so
// often; and its conjugate, which sums by a tree. On a dry device counts need
// not be those of the rows.
Tensor CopyGroups(const Tensor& rows, std::span<const int64_t> counts,
                  int64_t copies);
Tensor SumCopies(const Tensor& rows, std::span<const int64_t> counts,
                 int64_t copies);

// The counts of rows that CopyGroups makes.
std::vector<int64_t> CountsOfCopies(std::span<const int64_t> counts,
                                    int64_t copies);
// Of rows of several slices, those of one behind those of the other.
Tensor SumSlices(const Tensor& rows, int64_t slices);

// The sum of part(0) … part(n − 1) by a tree: of as many neighbours first as
// n's smallest prime factor says, then of their sums.
Tensor SumByTree(int64_t n, const std::function<Tensor(int64_t)>& part);
// The same with runs of so many neighbours, which divide n, summed in order
// first.
Tensor SumByTree(int64_t n, int64_t run,
                 const std::function<Tensor(int64_t)>& part);

}  // namespace trireme

#endif  // TRIREME_MOE_EXPERT_SLICES_H_
