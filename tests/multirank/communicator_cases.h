// What every Communicator must do, as functions that each rank of a world of
// any size runs. The same cases run on threads (communicator_threads_test) and
// on MPI processes (communicator_mpi_test).

#ifndef TRIREME_TESTS_MULTIRANK_COMMUNICATOR_CASES_H_
#define TRIREME_TESTS_MULTIRANK_COMMUNICATOR_CASES_H_

#include <ostream>
#include <span>

#include "runtime/comm/communicator.h"

namespace trireme {

struct CommunicatorCase {
  const char* name;
  void (*run)(CommunicatorFactory& factory);

  friend std::ostream& operator<<(std::ostream& out,
                                  const CommunicatorCase& the_case) {
    return out << the_case.name;
  }
};

std::span<const CommunicatorCase> CommunicatorCases();

}  // namespace trireme

#endif  // TRIREME_TESTS_MULTIRANK_COMMUNICATOR_CASES_H_
