#include "runtime/core/nearest_name.h"

#include <algorithm>
#include <cctype>
#include <cstddef>

namespace trireme {
namespace {

// Longer words are not typing errors; the bound keeps hostile input cheap.
constexpr size_t kLongestName = 128;

char Lower(char c) {
  return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
}

// Optimal string alignment distance: Levenshtein's plus swaps of neighbours.
size_t Edits(std::string_view a, std::string_view b) {
  // rows[i % 3][j]: edits between the first i of a and the first j of b.
  std::vector<size_t> rows[3];
  for (std::vector<size_t>& row : rows) row.resize(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) rows[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    std::vector<size_t>& row = rows[i % 3];
    const std::vector<size_t>& previous = rows[(i - 1) % 3];
    const std::vector<size_t>& before_previous = rows[(i + 1) % 3];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool same = Lower(a[i - 1]) == Lower(b[j - 1]);
      row[j] = std::min(
          {previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && Lower(a[i - 1]) == Lower(b[j - 2]) &&
          Lower(a[i - 2]) == Lower(b[j - 1])) {
        row[j] = std::min(row[j], before_previous[j - 2] + 1);
      }
    }
  }
  return rows[a.size() % 3][b.size()];
}

}  // namespace

std::string NearestName(std::string_view found,
                        const std::vector<std::string>& valid) {
  std::string nearest;
  if (found.empty() || found.size() > kLongestName) return nearest;
  size_t fewest = 0;
  for (const std::string& name : valid) {
    if (name.size() > kLongestName) continue;
    const size_t edits = Edits(found, name);
    if (edits * 3 > std::max(found.size(), name.size())) continue;
    if (nearest.empty() || edits < fewest) {
      nearest = name;
      fewest = edits;
    }
  }
  return nearest;
}

}  // namespace trireme
