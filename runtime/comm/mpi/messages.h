// Nonblocking MPI messages of raw bytes, and fatal errors of MPI calls. A
// message of any size: MPI's counts are ints, so long ones go in pieces.

#ifndef TRIREME_RUNTIME_COMM_MPI_MESSAGES_H_
#define TRIREME_RUNTIME_COMM_MPI_MESSAGES_H_

#include <mpi.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

class MpiEngine;

// An error of MPI ends the job: prints `what` with MPI's own text, aborts all
// ranks.
void CheckMpi(int result, std::string_view what);

// Prints and ends all ranks with a non-zero status.
[[noreturn]] void AbortJob(std::string_view message);

// The largest tag that messages may have, at least 32767.
int LargestMpiTag();

// MPI's text of an error.
std::string MpiErrorText(int result);

// A set of messages under way on one communicator. Empty messages are not
// sent: both sides know the size. Errors end the job (MpiEngine::Fail).
class Messages {
 public:
  Messages(MpiEngine& engine, MPI_Comm communicator)
      : engine_(engine), communicator_(communicator) {}

  void Send(const void* data, int64_t bytes, int to, int tag,
            std::string_view what);
  void Receive(void* data, int64_t bytes, int from, int tag,
               std::string_view what);
  // Makes progress; true when all are complete, which empties the set. A
  // message of another size than expected is fatal.
  bool Test(std::string_view what);
  bool empty() const { return requests_.empty(); }

 private:
  struct Part {
    int peer;
    // Of a receive; −1 for a send.
    int expected_bytes;
  };

  MpiEngine& engine_;
  MPI_Comm communicator_;
  std::vector<MPI_Request> requests_;
  std::vector<Part> parts_;
  std::vector<MPI_Status> statuses_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_MPI_MESSAGES_H_
