#include "runtime/comm/threads/thread_world.h"

#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "runtime/comm/collective.h"
#include "runtime/comm/single.h"
#include "runtime/comm/threads/thread_group.h"

namespace trireme {
namespace {

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadGroup> group, int rank)
      : Communicator(rank, group->size(), group->name()),
        group_(std::move(group)),
        id_(registry().AddCommunicator(group_->name(), group_->ranks())) {}
  ~ThreadCommunicator() override {
    AwaitLaunched();
    group_->Drain(rank());
    registry().RemoveCommunicator(id_);
  }

  void SetActivity(std::string_view activity) override {
    registry().SetActivity(activity);
  }

 private:
  using Kind = Operation::Kind;

  WaitRegistry& registry() { return group_->registry(rank()); }

  Event Start(Operation operation) override {
    if (operation.dry()) return DryEvent(operation, size());
    auto part = std::make_shared<ThreadOperation>();
    part->group = group_;
    part->rank = rank();
    if (!operation.message()) part->sequence = next_sequence_++;
    part->note = std::make_shared<const OperationNote>(
        NoteOf(operation, id_, group_->ranks(), part->sequence));
    const Tensor& input = operation.input;
    switch (operation.kind) {
      case Kind::kAllReduce:
      case Kind::kReduceScatter:
        part->staging =
            ReductionSegments::Of(input.num_elements(), input.dtype(), size())
                .MakeStaging(input, size());
        break;
      case Kind::kAllToAll:
        part->send_bytes.assign(size(), input.bytes() / size());
        part->receive_bytes = part->send_bytes;
        break;
      case Kind::kAllToAllV: {
        const int64_t row_bytes =
            input.shape().elements_after(0) * DTypeSize(input.dtype());
        for (const int64_t rows : operation.send_rows) {
          part->send_bytes.push_back(rows * row_bytes);
        }
        for (const int64_t rows : operation.receive_rows) {
          part->receive_bytes.push_back(rows * row_bytes);
        }
        break;
      }
      default:
        break;
    }
    Stream& stream = operation.kind == Kind::kBarrier
                         ? host_
                         : operation.data().device().stream();
    part->operation = std::move(operation);
    registry().Started(part->note);
    stream.Launch([group = group_, part] { group->Start(part); });
    return Event(std::move(part));
  }

  const std::shared_ptr<ThreadGroup> group_;
  // In the rank's registry.
  const int id_;
  int64_t next_sequence_ = 0;
  // Of barriers, which no device takes part in.
  Stream host_;
};

// The groups of a world: the n-th call of every rank with the same ranks and
// name yields the same group.
class ThreadGroups {
 public:
  explicit ThreadGroups(std::shared_ptr<ThreadWorldState> world)
      : world_(std::move(world)) {}

  std::shared_ptr<ThreadGroup> Get(std::span<const int> ranks,
                                   std::string_view name, int world_rank) {
    const std::string key = fmt::format("{} {}", name, fmt::join(ranks, ","));
    std::lock_guard lock(world_->mutex);
    const int occurrence = calls_[{key, world_rank}]++;
    std::shared_ptr<ThreadGroup>& group = groups_[{key, occurrence}];
    if (!group) {
      group = std::make_shared<ThreadGroup>(
          world_, std::vector<int>(ranks.begin(), ranks.end()),
          std::string(name));
    }
    return group;
  }

 private:
  const std::shared_ptr<ThreadWorldState> world_;
  std::map<std::pair<std::string, int>, int> calls_;
  std::map<std::pair<std::string, int>, std::shared_ptr<ThreadGroup>> groups_;
};

class ThreadFactory final : public CommunicatorFactory {
 public:
  ThreadFactory(ThreadGroups& groups, int world_rank, int world_size)
      : groups_(groups), world_rank_(world_rank), world_size_(world_size) {}

  int world_rank() const override { return world_rank_; }
  int world_size() const override { return world_size_; }

  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress) override {
    const int rank = RankInGroup(world_rank_, ranks, name);
    if (ranks.size() == 1) return std::make_unique<SingleCommunicator>(name);
    return std::make_unique<ThreadCommunicator>(
        groups_.Get(ranks, name, world_rank_), rank);
  }

 private:
  ThreadGroups& groups_;
  const int world_rank_;
  const int world_size_;
};

}  // namespace

void RunThreadRanks(
    int size, const std::function<void(CommunicatorFactory&, int rank)>& body,
    std::chrono::milliseconds deadline) {
  CHECK_GE(size, 1);
  auto world = std::make_shared<ThreadWorldState>(size);
  world->deadline = deadline;
  ThreadGroups groups(world);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadFactory factory(groups, rank, size);
      body(factory, rank);
      world->registries[rank]->SetFinished();
      std::lock_guard lock(world->mutex);
      world->returned[rank] = true;
      world->changed.notify_all();
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace trireme
