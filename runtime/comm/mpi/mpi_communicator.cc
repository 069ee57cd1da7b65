#include "runtime/comm/mpi/mpi_communicator.h"

#include <cstring>
#include <utility>

#include "runtime/core/log.h"

namespace trireme {
namespace {

using Kind = Operation::Kind;

// MPI guarantees 32768 tags, which is this many collectives times their kinds
// and each one's own tags. They come round again; messages with one tag keep
// their order.
constexpr int kCollectivesByTag = 1024;
constexpr int kKinds = 8;
static_assert(kCollectivesByTag * kKinds * ReductionOperation::kTags == 32768);

// Messages of different kinds never meet: ranks that disagree about a
// collective hang, which is reported, instead of taking one another's data.
int TagOf(const Operation& operation, int64_t sequence) {
  constexpr int kMaxReduction = static_cast<int>(Kind::kBarrier) + 1;
  static_assert(kMaxReduction < kKinds);
  const int kind =
      operation.kind == Kind::kAllReduce && operation.reduce == ReduceOp::kMax
          ? kMaxReduction
          : static_cast<int>(operation.kind);
  const int turn = static_cast<int>(sequence % kCollectivesByTag);
  return (turn * kKinds + kind) * ReductionOperation::kTags;
}

class MpiEvent final : public Event::Work {
 public:
  explicit MpiEvent(std::shared_ptr<MpiOperation> operation)
      : operation_(std::move(operation)) {}

  void Wait() override { operation_->group()->engine->Wait(*operation_); }
  bool Test() override {
    return operation_->group()->engine->Test(*operation_);
  }

 private:
  const std::shared_ptr<MpiOperation> operation_;
};

char* Bytes(const Tensor& tensor) {
  return static_cast<char*>(tensor.raw_data());
}

// What a rank has for itself.
void CopyOwn(const Operation& operation, const char* from, char* to,
             int64_t bytes) {
  if (from == to || bytes == 0) return;
  operation.data().device().stream().Launch(
      [from, to, bytes] { std::memcpy(to, from, bytes); });
}

}  // namespace

MpiCommunicator::MpiCommunicator(std::shared_ptr<MpiGroup> group)
    : Communicator(group->rank, group->size(), group->name),
      group_(std::move(group)) {}

MpiCommunicator::~MpiCommunicator() {
  AwaitLaunched();
  group_->Close();
}

Event MpiCommunicator::Start(Operation operation) {
  if (operation.dry()) return DryEvent(operation, size());
  const int64_t sequence = operation.message() ? -1 : next_sequence_++;
  Stream* const stream = operation.kind == Kind::kBarrier
                             ? nullptr
                             : &operation.data().device().stream();
  OperationNote note = NoteOf(operation, group_->id, group_->ranks, sequence);
  std::shared_ptr<MpiOperation> task =
      Make(std::move(operation), std::move(note));
  const auto start = [engine = group_->engine, task] { engine->Start(task); };
  if (stream == nullptr) {
    start();
  } else {
    stream->Launch(start);
  }
  return Event(std::make_shared<MpiEvent>(std::move(task)));
}

std::shared_ptr<MpiOperation> MpiCommunicator::Make(Operation operation,
                                                    OperationNote note) {
  const auto transfer = [&](MPI_Comm communicator, int tag,
                            std::vector<Transfer> transfers) {
    return std::make_shared<TransferOperation>(
        group_, std::move(note), communicator, tag, std::move(transfers),
        std::vector<Tensor>{std::move(operation.input),
                            std::move(operation.output)});
  };
  if (operation.message()) {
    const bool sends = operation.kind == Kind::kSend;
    const Tensor& data = operation.data();
    return transfer(
        group_->communicator, operation.tag,
        {Transfer{sends, data.raw_data(), data.bytes(), operation.peer}});
  }
  const int tag = TagOf(operation, note.sequence);
  switch (operation.kind) {
    case Kind::kAllReduce:
    case Kind::kReduceScatter: {
      const Tensor& input = operation.input;
      const auto segments =
          ReductionSegments::Of(input.num_elements(), input.dtype(), size());
      Tensor staging = segments.MakeStaging(input, size());
      return std::make_shared<ReductionOperation>(
          group_, std::move(note), tag, std::move(operation.input),
          std::move(operation.output),
          /*gather=*/operation.kind == Kind::kAllReduce, operation.reduce,
          segments, std::move(staging));
    }
    case Kind::kAllGather:
      return transfer(group_->collectives, tag, Gather(operation));
    case Kind::kAllToAll:
    case Kind::kAllToAllV:
      return transfer(group_->collectives, tag, Exchange(operation));
    case Kind::kBroadcast:
      return std::make_shared<BroadcastOperation>(group_, std::move(note), tag,
                                                  std::move(operation.input),
                                                  operation.root);
    default:
      return std::make_shared<BarrierOperation>(group_, std::move(note));
  }
}

std::vector<MpiCommunicator::Transfer> MpiCommunicator::Gather(
    const Operation& operation) const {
  const Tensor& input = operation.input;
  char* output = Bytes(operation.output);
  const int64_t bytes = input.bytes();
  std::vector<Transfer> transfers;
  for (int i = 1; i < size(); ++i) {
    const int peer = (rank() + i) % size();
    transfers.push_back({false, output + peer * bytes, bytes, peer});
  }
  for (int i = 1; i < size(); ++i) {
    const int peer = (rank() + size() - i) % size();
    transfers.push_back({true, input.raw_data(), bytes, peer});
  }
  CopyOwn(operation, Bytes(input), output + rank() * bytes, bytes);
  return transfers;
}

std::vector<MpiCommunicator::Transfer> MpiCommunicator::Exchange(
    const Operation& operation) const {
  const Tensor& input = operation.input;
  const int64_t row_bytes =
      input.shape().elements_after(0) * DTypeSize(input.dtype());
  const auto bytes_of = [&](std::span<const int64_t> rows, int peer) {
    return rows.empty() ? input.bytes() / size() : rows[peer] * row_bytes;
  };
  const auto sent = [&](int peer) {
    return bytes_of(operation.send_rows, peer);
  };
  const auto received = [&](int peer) {
    return bytes_of(operation.receive_rows, peer);
  };
  std::vector<Transfer> transfers;
  char* from = Bytes(input);
  char* to = Bytes(operation.output);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) {
      CHECK_EQ(sent(peer), received(peer)) << OperationText(operation);
      CopyOwn(operation, from, to, sent(peer));
    } else {
      transfers.push_back({false, to, received(peer), peer});
    }
    from += sent(peer);
    to += received(peer);
  }
  from = Bytes(input);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank()) transfers.push_back({true, from, sent(peer), peer});
    from += sent(peer);
  }
  return transfers;
}

}  // namespace trireme
