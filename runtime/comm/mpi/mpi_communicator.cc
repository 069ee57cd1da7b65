#include "runtime/comm/mpi/mpi_communicator.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "runtime/core/log.h"

namespace trireme {
namespace {

// MPI guarantees this many tags. They come round again after thousands of
// collectives, and messages with one tag keep their order.
constexpr int kNumTags = 32768;

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

int MpiCommunicator::TakeTags(int count) {
  if (next_tag_ + count > kNumTags) next_tag_ = 0;
  const int tag = next_tag_;
  next_tag_ += count;
  return tag;
}

Event MpiCommunicator::Reduction(std::string_view kind, std::string_view name,
                                 const Tensor& input, const Tensor& output,
                                 bool gather, ReduceOp op, int64_t sent_bytes) {
  group_->traffic.CountCall(sent_bytes);
  const auto segments =
      ReductionSegments::Of(input.num_elements(), input.dtype(), size());
  Tensor staging = segments.MakeStaging(input, size());
  if (input.device().dry()) return DryEvent(std::move(staging));
  return Start(std::make_shared<ReductionOperation>(
      group_, OperationText(kind, name), TakeTags(ReductionOperation::kTags),
      input, output, gather, op, segments, std::move(staging)));
}

Event MpiCommunicator::AllReduce(const Tensor& data, ReduceOp op,
                                 std::string_view name) {
  return Reduction("all-reduce", name, data, data, /*gather=*/true, op,
                   AllReduceSentBytes(data.bytes(), size()));
}

Event MpiCommunicator::ReduceScatter(const Tensor& input, const Tensor& output,
                                     std::string_view name) {
  CheckReduceScatter(input, output, size(), name);
  return Reduction("reduce-scatter", name, input, output, /*gather=*/false,
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
  return Start(std::make_shared<TransferOperation>(
      group_, OperationText("all-gather", name), group_->collectives,
      TakeTags(1), std::move(transfers), std::vector<Tensor>{input, output}));
}

Event MpiCommunicator::Exchange(std::string text, const Tensor& input,
                                std::span<const int64_t> send_bytes,
                                const Tensor& output,
                                std::span<const int64_t> receive_bytes) {
  std::vector<Transfer> transfers;
  char* from = Bytes(input);
  char* to = Bytes(output);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) {
      CHECK_EQ(send_bytes[peer], receive_bytes[peer]) << text;
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
  return Start(std::make_shared<TransferOperation>(
      group_, std::move(text), group_->collectives, TakeTags(1),
      std::move(transfers), std::vector<Tensor>{input, output}));
}

Event MpiCommunicator::AllToAll(const Tensor& input, const Tensor& output,
                                std::string_view name) {
  CheckAllToAll(input, output, size(), name);
  group_->traffic.CountCall(SlicesSentBytes(input.bytes(), size()));
  if (input.device().dry()) return Event();
  const std::vector<int64_t> bytes(size(), input.bytes() / size());
  return Exchange(OperationText("all-to-all", name), input, bytes, output,
                  bytes);
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
  return Exchange(OperationText("all-to-all-v", name), input, send_bytes,
                  output, receive_bytes);
}

Event MpiCommunicator::Broadcast(const Tensor& data, int root,
                                 std::string_view name) {
  CHECK(root >= 0 && root < size()) << OperationText("broadcast", name);
  group_->traffic.CountCall(rank() == root ? data.bytes() : 0);
  if (data.device().dry()) return Event();
  return Start(std::make_shared<BroadcastOperation>(
      group_, OperationText("broadcast", name), TakeTags(1), data, root));
}

Event MpiCommunicator::Send(const Tensor& data, int to, int tag,
                            std::string_view name) {
  CheckPeer(to, rank(), size(), name);
  group_->traffic.CountCall(data.bytes());
  if (data.device().dry()) return Event();
  return Start(std::make_shared<TransferOperation>(
      group_, OperationText("send", name), group_->communicator, tag,
      std::vector<Transfer>{{true, data.raw_data(), data.bytes(), to}},
      std::vector<Tensor>{data}));
}

Event MpiCommunicator::Receive(const Tensor& data, int from, int tag,
                               std::string_view name) {
  CheckPeer(from, rank(), size(), name);
  group_->traffic.CountCall(0);
  if (data.device().dry()) return Event();
  return Start(std::make_shared<TransferOperation>(
      group_, OperationText("receive", name), group_->communicator, tag,
      std::vector<Transfer>{{false, data.raw_data(), data.bytes(), from}},
      std::vector<Tensor>{data}));
}

void MpiCommunicator::Barrier(std::string_view name) {
  group_->traffic.CountCall(0);
  Start(std::make_shared<BarrierOperation>(group_,
                                           OperationText("barrier", name)))
      .Wait();
}

}  // namespace trireme
