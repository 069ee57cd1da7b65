// What one rank knows about its own communication, as it tells the others when
// a wait in the job has passed its deadline. See hang_table.h.

#ifndef TRIREME_RUNTIME_COMM_HANG_REPORT_H_
#define TRIREME_RUNTIME_COMM_HANG_REPORT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// An operation that a rank has started.
struct CommunicationOperation {
  // "all-reduce 'dp gradient bucket 3'".
  std::string text;
  // Index into HangReport::communicators; −1: it is gone.
  int communicator = -1;
  // Of this rank's data; −1 where ranks may differ (all-to-all-v, barrier).
  int64_t bytes = -1;
  // Collectives: how many the rank has started before it on the communicator.
  // Messages: −1.
  int64_t sequence = -1;
  // Messages: the world rank at the other end, the tag, the direction.
  int peer = -1;
  int tag = 0;
  bool sends = false;
};

struct HangReport {
  struct Communicator {
    std::string name;
    // World ranks by group rank.
    std::vector<int> ranks;
    // How many the rank has created before with this name and these ranks.
    int occurrence = 0;
    int64_t collectives_started = 0;
  };
  struct Wait {
    CommunicationOperation operation;
    double seconds = 0;
  };

  // World rank.
  int rank = 0;
  std::vector<Communicator> communicators;
  std::vector<Wait> waits;
  // The last operations started on each communicator, oldest first, and the
  // last on any.
  std::vector<CommunicationOperation> recent;
  std::optional<CommunicationOperation> last;
  // What it does beside communication ("Forward mb=3 chunk=0"), and since when.
  std::string activity;
  double activity_seconds = 0;
  // It waits, without a deadline, for the others to finish.
  bool finished = false;
  // Not empty: it met an error in communication, this one.
  std::string failure;
};

// As a message to another rank, and back; nullopt from what is none.
std::string EncodeHangReport(const HangReport& report);
std::optional<HangReport> DecodeHangReport(std::string_view message);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_HANG_REPORT_H_
