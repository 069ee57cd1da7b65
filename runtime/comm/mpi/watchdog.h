// Watches over this rank's waits and answers for it when another rank asks
// what it is doing.
//
// When a wait of any rank passes its deadline, or an error of communication is
// met, that rank alarms world rank 0. This asks all ranks, prints the table of
// who waits for whom (comm/hang_table.h) and ends the job. Ranks that do not
// answer within 3 s are listed as such; if rank 0 does not react within 6 s,
// the rank that alarmed prints what it knows and ends the job by itself.
//
// A thread of its own, on an MPI communicator of its own, that looks every
// 50 ms (for about a microsecond): it answers while the rank computes, too.

#ifndef TRIREME_RUNTIME_COMM_MPI_WATCHDOG_H_
#define TRIREME_RUNTIME_COMM_MPI_WATCHDOG_H_

#include <mpi.h>

#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "runtime/comm/hang_report.h"
#include "runtime/comm/mpi/engine.h"

namespace trireme {

class MpiWatchdog {
 public:
  // All ranks of MPI_COMM_WORLD together, as is the destruction. `engine`
  // outlives it.
  MpiWatchdog(MpiEngine& engine, int rank, int size);
  ~MpiWatchdog();
  MpiWatchdog(const MpiWatchdog&) = delete;
  MpiWatchdog& operator=(const MpiWatchdog&) = delete;

  // Returns when all ranks have called it: none needs an answer any more.
  void AwaitAll();

 private:
  using Clock = std::chrono::steady_clock;
  enum class Tag { kAlarm, kQuestion, kReport };
  struct Message {
    std::string data;
    MPI_Request request = MPI_REQUEST_NULL;
    int source = 0;
    Tag tag = Tag::kAlarm;
  };

  void Run();
  // Everything below under the engine's mutex, or where that is held by a
  // thread that blocks in MPI, without.
  void Look();
  void Alarm(const std::string& text);
  void ReceiveMessages();
  void Handle(const Message& message);
  void Send(int to, Tag tag, std::string data);
  void Collect(std::string headline);
  // Rank 0: prints the table and ends the job when all have answered or time
  // is up.
  void Conclude();

  MpiEngine& engine_;
  const int rank_;
  const int size_;
  bool any_thread_ = false;
  MPI_Comm control_ = MPI_COMM_NULL;

  // The watchdog thread's own. Lists, since MPI holds on to addresses.
  std::list<Message> sending_;
  std::list<Message> receiving_;
  std::optional<Clock::time_point> alarmed_at_;
  // Rank 0, from the first alarm on.
  std::string headline_;
  std::vector<std::optional<HangReport>> reports_;
  Clock::time_point collecting_since_;

  std::mutex mutex_;
  std::condition_variable stop_;
  // Guarded by mutex_.
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_MPI_WATCHDOG_H_
