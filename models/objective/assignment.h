// The linear assignment problem.

#ifndef TRIREME_MODELS_OBJECTIVE_ASSIGNMENT_H_
#define TRIREME_MODELS_OBJECTIVE_ASSIGNMENT_H_

#include <cstdint>
#include <span>
#include <vector>

namespace trireme {

// For each row of costs[n, n] (finite) a column of its own, so that the sum of
// the chosen costs is the least: shortest augmenting paths (Jonker and
// Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
// assignment problems", 1987), O(n³).
std::vector<int32_t> LeastCostAssignment(std::span<const double> costs,
                                         int64_t n);

}  // namespace trireme

#endif  // TRIREME_MODELS_OBJECTIVE_ASSIGNMENT_H_
