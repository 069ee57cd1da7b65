#include "runtime/comm/mpi/mpi_communicator.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// MPI guarantees 32768 tags, which is this many collectives times their kinds
// and each one's own tags. They come round again; messages with one tag keep
// their order.
constexpr int kCollectivesByTag = 1024;
constexpr int kKinds = 8;
static_assert(kCollectivesByTag * kKinds * ReductionOperation::kTags == 32768);

class MpiEvent final : public Event::Operation {
 public:
  explicit MpiEvent(std::shared_ptr<MpiOperation> operation)
      : operation_(std::move(operation)) {}

  void Wait() override {
    const auto begin = std::chrono::steady_clock::now();
    operation_->group()->engine->Wait(*operation_);
    operation_->group()->traffic.CountExposed(
        std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin)
            .count());
  }
  bool Test() override {
    return operation_->group()->engine->Test(*operation_);
  }

 private:
  const std::shared_ptr<MpiOperation> operation_;
};

char* Bytes(const Tensor& tensor) {
  return static_cast<char*>(tensor.raw_data());
}

}  // namespace

MpiCommunicator::MpiCommunicator(std::shared_ptr<MpiGroup> group)
    : group_(std::move(group)) {}

MpiCommunicator::~MpiCommunicator() { group_->Close(); }

Event MpiCommunicator::Start(std::shared_ptr<MpiOperation> operation) {
  group_->engine->Start(operation);
  return Event(std::make_shared<MpiEvent>(std::move(operation)));
}

std::string_view MpiCommunicator::KindName(Kind kind) {
  switch (kind) {
    case Kind::kAllReduceSum:
      return "all-reduce";
    case Kind::kAllReduceMax:
      return "all-reduce max";
    case Kind::kReduceScatter:
      return "reduce-scatter";
    case Kind::kAllGather:
      return "all-gather";
    case Kind::kAllToAll:
      return "all-to-all";
    case Kind::kAllToAllV:
      return "all-to-all-v";
    case Kind::kBroadcast:
      return "broadcast";
    case Kind::kBarrier:
      return "barrier";
  }
  return "?";
}

// Messages of different kinds never meet: ranks that disagree about a
// collective hang, which is reported, instead of taking one another's data.
int MpiCommunicator::TagOf(Kind kind, const OperationNote& note) {
  const int turn = static_cast<int>(note.sequence % kCollectivesByTag);
  return (turn * kKinds + static_cast<int>(kind)) * ReductionOperation::kTags;
}

OperationNote MpiCommunicator::Collective(Kind kind, std::string_view name,
                                          int64_t bytes) {
  return {.text = OperationText(KindName(kind), name),
          .communicator = group_->id,
          .bytes = bytes,
          .sequence = next_sequence_++};
}

OperationNote MpiCommunicator::Message(bool sends, std::string_view name,
                                       const Tensor& data, int peer,
                                       int tag) const {
  return {.text = OperationText(sends ? "send" : "receive", name),
          .communicator = group_->id,
          .bytes = data.bytes(),
          .peer = group_->ranks[peer],
          .tag = tag,
          .sends = sends};
}

Event MpiCommunicator::Reduction(Kind kind, std::string_view name,
                                 const Tensor& input, const Tensor& output,
                                 bool gather, ReduceOp op, int64_t sent_bytes) {
  group_->traffic.CountCall(sent_bytes);
  const auto segments =
      ReductionSegments::Of(input.num_elements(), input.dtype(), size());
  Tensor staging = segments.MakeStaging(input, size());
  if (input.device().dry()) return DryEvent(std::move(staging));
  OperationNote note = Collective(kind, name, input.bytes());
  const int tag = TagOf(kind, note);
  return Start(std::make_shared<ReductionOperation>(
      group_, std::move(note), tag, input, output, gather, op, segments,
      std::move(staging)));
}

Event MpiCommunicator::AllReduce(const Tensor& data, ReduceOp op,
                                 std::string_view name) {
  return Reduction(
      op == ReduceOp::kSum ? Kind::kAllReduceSum : Kind::kAllReduceMax, name,
      data, data, /*gather=*/true, op,
      AllReduceSentBytes(data.bytes(), size()));
}

Event MpiCommunicator::ReduceScatter(const Tensor& input, const Tensor& output,
                                     std::string_view name) {
  CheckReduceScatter(input, output, size(), name);
  return Reduction(Kind::kReduceScatter, name, input, output, /*gather=*/false,
                   ReduceOp::kSum, SlicesSentBytes(input.bytes(), size()));
}

Event MpiCommunicator::AllGather(const Tensor& input, const Tensor& output,
                                 std::string_view name) {
  CheckAllGather(input, output, size(), name);
  group_->traffic.CountCall(SlicesSentBytes(output.bytes(), size()));
  if (input.device().dry()) return Event();
  const int64_t bytes = input.bytes();
  std::vector<Transfer> transfers;
  for (int i = 1; i < size(); ++i) {
    const int peer = (rank() + i) % size();
    transfers.push_back({false, Bytes(output) + peer * bytes, bytes, peer});
  }
  for (int i = 1; i < size(); ++i) {
    const int peer = (rank() + size() - i) % size();
    transfers.push_back({true, input.raw_data(), bytes, peer});
  }
  char* own = Bytes(output) + rank() * bytes;
  if (own != Bytes(input) && bytes > 0) {
    std::memcpy(own, input.raw_data(), bytes);
  }
  OperationNote note = Collective(Kind::kAllGather, name, bytes);
  const int tag = TagOf(Kind::kAllGather, note);
  return Start(std::make_shared<TransferOperation>(
      group_, std::move(note), group_->collectives, tag, std::move(transfers),
      std::vector<Tensor>{input, output}));
}

Event MpiCommunicator::Exchange(Kind kind, OperationNote note,
                                const Tensor& input,
                                std::span<const int64_t> send_bytes,
                                const Tensor& output,
                                std::span<const int64_t> receive_bytes) {
  std::vector<Transfer> transfers;
  char* from = Bytes(input);
  char* to = Bytes(output);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) {
      CHECK_EQ(send_bytes[peer], receive_bytes[peer]) << note.text;
      if (send_bytes[peer] > 0) std::memcpy(to, from, send_bytes[peer]);
    } else {
      transfers.push_back({false, to, receive_bytes[peer], peer});
    }
    from += send_bytes[peer];
    to += receive_bytes[peer];
  }
  from = Bytes(input);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank()) {
      transfers.push_back({true, from, send_bytes[peer], peer});
    }
    from += send_bytes[peer];
  }
  const int tag = TagOf(kind, note);
  return Start(std::make_shared<TransferOperation>(
      group_, std::move(note), group_->collectives, tag, std::move(transfers),
      std::vector<Tensor>{input, output}));
}

Event MpiCommunicator::AllToAll(const Tensor& input, const Tensor& output,
                                std::string_view name) {
  CheckAllToAll(input, output, size(), name);
  group_->traffic.CountCall(SlicesSentBytes(input.bytes(), size()));
  if (input.device().dry()) return Event();
  const std::vector<int64_t> bytes(size(), input.bytes() / size());
  return Exchange(Kind::kAllToAll,
                  Collective(Kind::kAllToAll, name, input.bytes()), input,
                  bytes, output, bytes);
}

Event MpiCommunicator::AllToAllV(const Tensor& input,
                                 std::span<const int64_t> send_rows,
                                 const Tensor& output,
                                 std::span<const int64_t> receive_rows,
                                 std::string_view name) {
  CheckAllToAllV(input, send_rows, output, receive_rows, size(), name);
  const int64_t row_bytes =
      input.shape().elements_after(0) * DTypeSize(input.dtype());
  group_->traffic.CountCall((input.dim(0) - send_rows[rank()]) * row_bytes);
  if (input.device().dry()) return Event();
  std::vector<int64_t> send_bytes;
  for (int64_t rows : send_rows) send_bytes.push_back(rows * row_bytes);
  std::vector<int64_t> receive_bytes;
  for (int64_t rows : receive_rows) receive_bytes.push_back(rows * row_bytes);
  return Exchange(Kind::kAllToAllV,
                  Collective(Kind::kAllToAllV, name, /*bytes=*/-1), input,
                  send_bytes, output, receive_bytes);
}

Event MpiCommunicator::Broadcast(const Tensor& data, int root,
                                 std::string_view name) {
  CHECK(root >= 0 && root < size()) << OperationText("broadcast", name);
  group_->traffic.CountCall(rank() == root ? data.bytes() : 0);
  if (data.device().dry()) return Event();
  OperationNote note = Collective(Kind::kBroadcast, name, data.bytes());
  const int tag = TagOf(Kind::kBroadcast, note);
  return Start(std::make_shared<BroadcastOperation>(group_, std::move(note),
                                                    tag, data, root));
}

Event MpiCommunicator::Send(const Tensor& data, int to, int tag,
                            std::string_view name) {
  CheckPeer(to, rank(), size(), name);
  group_->traffic.CountCall(data.bytes());
  if (data.device().dry()) return Event();
  return Start(std::make_shared<TransferOperation>(
      group_, Message(/*sends=*/true, name, data, to, tag),
      group_->communicator, tag,
      std::vector<Transfer>{{true, data.raw_data(), data.bytes(), to}},
      std::vector<Tensor>{data}));
}

Event MpiCommunicator::Receive(const Tensor& data, int from, int tag,
                               std::string_view name) {
  CheckPeer(from, rank(), size(), name);
  group_->traffic.CountCall(0);
  if (data.device().dry()) return Event();
  return Start(std::make_shared<TransferOperation>(
      group_, Message(/*sends=*/false, name, data, from, tag),
      group_->communicator, tag,
      std::vector<Transfer>{{false, data.raw_data(), data.bytes(), from}},
      std::vector<Tensor>{data}));
}

void MpiCommunicator::Barrier(std::string_view name) {
  group_->traffic.CountCall(0);
  Start(std::make_shared<BarrierOperation>(
            group_, Collective(Kind::kBarrier, name, /*bytes=*/-1)))
      .Wait();
}

}  // namespace trireme
