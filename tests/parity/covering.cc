#include "tests/parity/covering.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string_view>
#include <utility>

#include "runtime/core/log.h"

namespace trireme {
namespace {

using Pair = std::pair<std::string, std::string>;

std::vector<Pair> PairsOf(std::vector<std::string> features) {
  std::sort(features.begin(), features.end());
  std::vector<Pair> pairs;
  for (size_t i = 0; i < features.size(); ++i) {
    for (size_t j = i; j < features.size(); ++j) {
      pairs.emplace_back(features[i], features[j]);
    }
  }
  return pairs;
}

}  // namespace

std::vector<size_t> CoverPairs(const std::vector<CoveringCase>& cases) {
  std::vector<std::vector<Pair>> pairs;
  std::set<Pair> open;
  for (const CoveringCase& one : cases) {
    CHECK_GT(one.cost, 0);
    pairs.push_back(PairsOf(one.features));
    open.insert(pairs.back().begin(), pairs.back().end());
  }
  std::vector<size_t> chosen;
  while (!open.empty()) {
    size_t best = 0;
    double best_gain = 0;
    for (size_t i = 0; i < cases.size(); ++i) {
      const auto fresh =
          std::count_if(pairs[i].begin(), pairs[i].end(),
                        [&](const Pair& pair) { return open.contains(pair); });
      const double gain = static_cast<double>(fresh) / cases[i].cost;
      if (gain > best_gain) {
        best = i;
        best_gain = gain;
      }
    }
    chosen.push_back(best);
    for (const Pair& pair : pairs[best]) open.erase(pair);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

bool TestsEveryCase() {
  const char* matrix = std::getenv("TRIREME_TEST_MATRIX");
  return matrix != nullptr && std::string_view(matrix) == "full";
}

}  // namespace trireme
