// What one rank communicates: its communicators, the operations it has started
// last, and those it waits in. When a wait in the job passes its deadline, the
// registries of all ranks make the table of who waits for whom (hang_table.h).
//
// Each rank's world owns one. Thread-safe; locks are held for the copying of a
// few words. Costs some 0.1 µs per operation.

#ifndef TRIREME_RUNTIME_COMM_WAIT_REGISTRY_H_
#define TRIREME_RUNTIME_COMM_WAIT_REGISTRY_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/comm/hang_report.h"
#include "runtime/comm/operation.h"

namespace trireme {

// What a report says about an operation.
struct OperationNote {
  // "all-reduce 'dp gradient bucket 3'".
  std::string text;
  // From WaitRegistry::AddCommunicator.
  int communicator = 0;
  // Of this rank's data; −1 where the ranks of one collective may differ.
  int64_t bytes = -1;
  // Of collectives: their number on the communicator, from 0.
  int64_t sequence = -1;
  // Of messages: the world rank at the other end.
  int peer = -1;
  int tag = 0;
  bool sends = false;

  bool collective() const { return sequence >= 0; }
};

// Of an operation of the registry's communicator `communicator`, whose world
// ranks by group rank are `ranks`; a collective is its `sequence`-th.
OperationNote NoteOf(const Operation& operation, int communicator,
                     std::span<const int> ranks, int64_t sequence);

class WaitRegistry {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::nanoseconds kNoDeadline =
      std::chrono::nanoseconds::max();

  explicit WaitRegistry(int world_rank);
  WaitRegistry(const WaitRegistry&) = delete;
  WaitRegistry& operator=(const WaitRegistry&) = delete;

  // `ranks`: world ranks by group rank.
  int AddCommunicator(std::string_view name, std::span<const int> ranks);
  void RemoveCommunicator(int communicator);

  // The rank has started an operation.
  void Started(std::shared_ptr<const OperationNote> note);

  struct Entry {
    std::shared_ptr<const OperationNote> note;
    Clock::time_point since;
    std::chrono::nanoseconds deadline;
  };
  // For as long as it lives, the rank waits in an operation.
  class Wait {
   public:
    Wait(WaitRegistry& registry, std::shared_ptr<const OperationNote> note,
         std::chrono::nanoseconds deadline);
    ~Wait();
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

   private:
    WaitRegistry& registry_;
    std::list<Entry>::iterator entry_;
  };

  // What the rank does when it does not wait.
  void SetActivity(std::string_view activity);
  // The rank has nothing more to do than to wait for the end of the job.
  void SetFinished();
  // An error that ends the job was met.
  void SetFailure(std::string text);

  // Why the job must end, if it must: a failure, or a wait past its deadline.
  std::optional<std::string> Alarm() const;
  HangReport Report() const;

 private:
  struct Record {
    std::string name;
    std::vector<int> ranks;
    int occurrence = 0;
    int64_t collectives = 0;
    std::deque<std::shared_ptr<const OperationNote>> recent;
  };

  const int world_rank_;
  mutable std::mutex mutex_;
  // Guarded by mutex_. Operations may outlive their communicators.
  std::map<int, Record> communicators_;
  std::map<std::pair<std::string, std::vector<int>>, int> occurrences_;
  int next_communicator_ = 0;
  // The last operation started.
  std::shared_ptr<const OperationNote> last_;
  std::list<Entry> waits_;
  std::string activity_;
  Clock::time_point activity_since_;
  bool finished_ = false;
  std::optional<std::string> failure_;
};

// For communicators of which others look after the ranks' waits: where theirs
// are told, and how long one may take. Null where nobody looks.
struct HangWatch {
  WaitRegistry* registry = nullptr;
  std::chrono::nanoseconds deadline = WaitRegistry::kNoDeadline;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_WAIT_REGISTRY_H_
