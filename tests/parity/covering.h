// A small selection of many test cases in which everything that meets in one
// of them still meets: most faults of parallel code need two features together
// (Kuhn, Wallace and Gallo, "Software fault interactions", 2004).

#ifndef TRIREME_TESTS_PARITY_COVERING_H_
#define TRIREME_TESTS_PARITY_COVERING_H_

#include <cstddef>
#include <string>
#include <vector>

namespace trireme {

// A case, as far as the choice needs to know it.
struct CoveringCase {
  std::vector<std::string> features;
  // What the case costs to run, in any unit; above 0.
  double cost = 1;
};

// Indices, ascending, of cases among which every pair of features that occurs
// in one of `cases` occurs in one; greedily by new pairs per cost, the first
// among equals. Deterministic.
std::vector<size_t> CoverPairs(const std::vector<CoveringCase>& cases);

// Whether this run is to test every case: `./dev test --config=full`.
bool TestsEveryCase();

}  // namespace trireme

#endif  // TRIREME_TESTS_PARITY_COVERING_H_
