// The meeting place of the ranks of one thread group: collectives meet by
// their sequence number, messages by sender, receiver and tag.

#ifndef TRIREME_RUNTIME_COMM_THREADS_THREAD_GROUP_H_
#define TRIREME_RUNTIME_COMM_THREADS_THREAD_GROUP_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/comm/collective.h"
#include "runtime/comm/communicator.h"
#include "runtime/comm/wait_registry.h"

namespace trireme {

// What all groups of a world share.
struct ThreadWorldState {
  explicit ThreadWorldState(int size);

  // Who waits for whom.
  std::string Table() const;

  std::chrono::milliseconds deadline{};
  // By world rank: what the rank does.
  std::vector<std::unique_ptr<WaitRegistry>> registries;
  std::mutex mutex;
  std::condition_variable changed;
  // By world rank: its body has returned. Guarded by mutex.
  std::vector<bool> returned;
};

class ThreadGroup;

// One rank's part in an operation. Its rank waits for it and owns its tensors.
struct ThreadOperation final : Event::Work {
  void Wait() override;
  bool Test() override;

  std::shared_ptr<ThreadGroup> group;
  int rank = 0;
  Operation operation;
  // Collectives: where this rank meets the others.
  int64_t sequence = 0;
  std::shared_ptr<const OperationNote> note;
  // A reduction's, as large as on other communicators.
  Tensor staging;
  // All-to-all: the bytes to and from each rank.
  std::vector<int64_t> send_bytes;
  std::vector<int64_t> receive_bytes;

  // Guarded by the world's mutex.
  bool done = false;
};

class ThreadGroup {
 public:
  ThreadGroup(std::shared_ptr<ThreadWorldState> world, std::vector<int> ranks,
              std::string name);

  const std::string& name() const { return name_; }
  int size() const { return static_cast<int>(ranks_.size()); }
  // World ranks by group rank.
  const std::vector<int>& ranks() const { return ranks_; }
  // Of a rank of the group.
  WaitRegistry& registry(int rank) { return *world_->registries[ranks_[rank]]; }

  void Start(const std::shared_ptr<ThreadOperation>& operation);
  void Wait(const ThreadOperation& operation);
  bool Test(const ThreadOperation& operation);
  // Waits for the rank's operations that nobody waited for, but not for long,
  // and not for ranks that have returned: where one gives up on an error they
  // will never be done.
  void Drain(int rank);

 private:
  using Parts = std::vector<std::shared_ptr<ThreadOperation>>;

  void StartCollective(const std::shared_ptr<ThreadOperation>& operation);
  void StartMessage(const std::shared_ptr<ThreadOperation>& operation);
  // Ranks of the group that the operation still needs.
  std::vector<int> Missing(const ThreadOperation& operation) const;
  std::string WaitText(const ThreadOperation& operation) const;
  // Whether a rank that it still needs has returned.
  bool Abandoned(const ThreadOperation& operation) const;

  const std::shared_ptr<ThreadWorldState> world_;
  const std::vector<int> ranks_;
  const std::string name_;
  // Guarded by the world's mutex: collectives that some ranks have started,
  // by sequence, and messages whose other side has not.
  std::map<int64_t, Parts> collectives_;
  std::list<std::shared_ptr<ThreadOperation>> messages_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_THREADS_THREAD_GROUP_H_
