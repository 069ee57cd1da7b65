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
      : group_(std::move(group)),
        rank_(rank),
        id_(registry().AddCommunicator(group_->name(), group_->ranks())) {}
  ~ThreadCommunicator() override { registry().RemoveCommunicator(id_); }
  ThreadCommunicator(const ThreadCommunicator&) = delete;
  ThreadCommunicator& operator=(const ThreadCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }
  std::string_view name() const override { return group_->name(); }

  Event AllReduce(const Tensor& data, ReduceOp op,
                  std::string_view name) override {
    auto operation =
        Collective(CollectiveKind::kAllReduce, "all-reduce", name, data, {});
    operation->reduce = op;
    operation->staging =
        ReductionSegments::Of(data.num_elements(), data.dtype(), size())
            .MakeStaging(data, size());
    return Start(operation, AllReduceSentBytes(data.bytes(), size()));
  }

  Event ReduceScatter(const Tensor& input, const Tensor& output,
                      std::string_view name) override {
    CheckReduceScatter(input, output, size(), name);
    auto operation = Collective(CollectiveKind::kReduceScatter,
                                "reduce-scatter", name, input, output);
    operation->staging =
        ReductionSegments::Of(input.num_elements(), input.dtype(), size())
            .MakeStaging(input, size());
    return Start(operation, SlicesSentBytes(input.bytes(), size()));
  }

  Event AllGather(const Tensor& input, const Tensor& output,
                  std::string_view name) override {
    CheckAllGather(input, output, size(), name);
    return Start(Collective(CollectiveKind::kAllGather, "all-gather", name,
                            input, output),
                 SlicesSentBytes(output.bytes(), size()));
  }

  Event AllToAll(const Tensor& input, const Tensor& output,
                 std::string_view name) override {
    CheckAllToAll(input, output, size(), name);
    auto operation = Collective(CollectiveKind::kAllToAll, "all-to-all", name,
                                input, output);
    operation->send_bytes.assign(size(), input.bytes() / size());
    operation->receive_bytes = operation->send_bytes;
    return Start(operation, SlicesSentBytes(input.bytes(), size()));
  }

  Event AllToAllV(const Tensor& input, std::span<const int64_t> send_rows,
                  const Tensor& output, std::span<const int64_t> receive_rows,
                  std::string_view name) override {
    CheckAllToAllV(input, send_rows, output, receive_rows, size(), name);
    auto operation = Collective(CollectiveKind::kAllToAll, "all-to-all-v", name,
                                input, output);
    const int64_t row_bytes =
        input.shape().elements_after(0) * DTypeSize(input.dtype());
    for (int64_t rows : send_rows) {
      operation->send_bytes.push_back(rows * row_bytes);
    }
    for (int64_t rows : receive_rows) {
      operation->receive_bytes.push_back(rows * row_bytes);
    }
    return Start(operation, (input.dim(0) - send_rows[rank_]) * row_bytes);
  }

  Event Broadcast(const Tensor& data, int root,
                  std::string_view name) override {
    CHECK(root >= 0 && root < size()) << OperationText("broadcast", name);
    auto operation =
        Collective(CollectiveKind::kBroadcast, "broadcast", name, data, {});
    operation->root = root;
    return Start(operation, rank_ == root ? data.bytes() : 0);
  }

  Event Send(const Tensor& data, int to, int tag,
             std::string_view name) override {
    auto operation = Message("send", name, to, tag);
    operation->sends = true;
    operation->input = data;
    return Start(operation, data.bytes());
  }

  Event Receive(const Tensor& data, int from, int tag,
                std::string_view name) override {
    auto operation = Message("receive", name, from, tag);
    operation->output = data;
    return Start(operation, 0);
  }

  void Barrier(std::string_view name) override {
    Start(Collective(CollectiveKind::kBarrier, "barrier", name, {}, {}), 0)
        .Wait();
  }

  CommunicationStatistics Statistics() const override {
    return traffic_->Get();
  }

  void SetActivity(std::string_view activity) override {
    registry().SetActivity(activity);
  }

 private:
  WaitRegistry& registry() { return group_->registry(rank_); }

  std::shared_ptr<ThreadOperation> Operation(std::string_view kind,
                                             std::string_view name) {
    auto operation = std::make_shared<ThreadOperation>();
    operation->group = group_;
    operation->traffic = traffic_;
    operation->rank = rank_;
    operation->text = OperationText(kind, name);
    return operation;
  }

  std::shared_ptr<ThreadOperation> Collective(CollectiveKind kind,
                                              std::string_view kind_name,
                                              std::string_view name,
                                              Tensor input, Tensor output) {
    auto operation = Operation(kind_name, name);
    operation->kind = kind;
    operation->input = std::move(input);
    operation->output = std::move(output);
    return operation;
  }

  std::shared_ptr<ThreadOperation> Message(std::string_view kind,
                                           std::string_view name, int peer,
                                           int tag) {
    CheckPeer(peer, rank_, size(), name);
    auto operation = Operation(kind, name);
    operation->message = true;
    operation->peer = peer;
    operation->tag = tag;
    return operation;
  }

  Event Start(const std::shared_ptr<ThreadOperation>& operation,
              int64_t sent_bytes) {
    traffic_->CountCall(sent_bytes);
    const Tensor& data =
        operation->input.defined() ? operation->input : operation->output;
    if (data.defined() && data.device().dry()) {
      return DryEvent(operation->staging);
    }
    if (!operation->message) operation->sequence = next_sequence_++;
    OperationNote note;
    note.text = operation->text;
    note.communicator = id_;
    // All-to-all-v and barriers may differ by rank.
    if (operation->send_bytes.empty() && data.defined()) {
      note.bytes = data.bytes();
    }
    if (operation->message) {
      note.peer = group_->ranks()[operation->peer];
      note.tag = operation->tag;
      note.sends = operation->sends;
    } else {
      note.sequence = operation->sequence;
    }
    operation->note = std::make_shared<const OperationNote>(std::move(note));
    registry().Started(operation->note);
    group_->Start(operation);
    return Event(operation);
  }

  const std::shared_ptr<ThreadGroup> group_;
  const int rank_;
  // In the rank's registry.
  const int id_;
  const std::shared_ptr<TrafficCounter> traffic_ =
      std::make_shared<TrafficCounter>();
  int64_t next_sequence_ = 0;
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
