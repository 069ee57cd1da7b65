#include "models/objective/assignment.h"

#include <algorithm>
#include <limits>

#include "runtime/core/log.h"

namespace trireme {

std::vector<int32_t> LeastCostAssignment(std::span<const double> costs,
                                         int64_t n) {
  CHECK_EQ(static_cast<int64_t>(costs.size()), n * n);
  // Column n stands for the row whose path is looked for.
  std::vector<double> of_row(n, 0.0);
  std::vector<double> of_column(n + 1, 0.0);
  std::vector<int64_t> row_of(n + 1, -1);
  std::vector<int64_t> before(n + 1);
  std::vector<double> least(n + 1);
  std::vector<uint8_t> reached(n + 1);
  for (int64_t row = 0; row < n; ++row) {
    row_of[n] = row;
    int64_t column = n;
    std::fill(least.begin(), least.end(),
              std::numeric_limits<double>::infinity());
    std::fill(reached.begin(), reached.end(), 0);
    while (row_of[column] >= 0) {
      reached[column] = 1;
      const int64_t at = row_of[column];
      double step = std::numeric_limits<double>::infinity();
      int64_t next = n;
      for (int64_t j = 0; j < n; ++j) {
        if (reached[j] != 0) continue;
        const double reduced = costs[at * n + j] - of_row[at] - of_column[j];
        if (reduced < least[j]) {
          least[j] = reduced;
          before[j] = column;
        }
        if (least[j] < step) {
          step = least[j];
          next = j;
        }
      }
      CHECK_LT(next, n) << "a cost that is not finite";
      for (int64_t j = 0; j <= n; ++j) {
        if (reached[j] != 0) {
          of_row[row_of[j]] += step;
          of_column[j] -= step;
        } else {
          least[j] -= step;
        }
      }
      column = next;
    }
    while (column != n) {
      row_of[column] = row_of[before[column]];
      column = before[column];
    }
  }
  std::vector<int32_t> columns(n);
  for (int64_t j = 0; j < n; ++j) {
    columns[row_of[j]] = static_cast<int32_t>(j);
  }
  return columns;
}

}  // namespace trireme
