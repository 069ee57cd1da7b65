// Who waits for whom, from the reports of all ranks: the table and the verdict
// that a hung job ends with.

#ifndef TRIREME_RUNTIME_COMM_HANG_TABLE_H_
#define TRIREME_RUNTIME_COMM_HANG_TABLE_H_

#include <optional>
#include <span>
#include <string>

#include "runtime/comm/hang_report.h"

namespace trireme {

// `reports`: by world rank; none from ranks that did not answer. Reports come
// from other processes: what is out of range in them is overlooked.
//
// One line per rank, more for a rank with several threads that wait: what it
// waits in and for how long, and for which ranks. Those are: of a message, the
// rank at the other end; of a collective, the members that have not started it
// (or another in its place), as far as they answered. Then a line beginning
// "verdict:" with the first of these that is found:
//   - ranks that started different operations, or sizes, as the same collective
//     of a communicator,
//   - a rank that met an error,
//   - a rank that others wait for and that does not wait itself,
//   - ranks that wait for one another in a circle.
std::string HangTable(std::span<const std::optional<HangReport>> reports);
}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_HANG_TABLE_H_
