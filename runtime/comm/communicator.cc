#include "runtime/comm/communicator.h"

#include <utility>

#include "fmt/format.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

using Kind = Operation::Kind;

std::string_view KindName(const Operation& operation) {
  switch (operation.kind) {
    case Kind::kAllReduce:
      return operation.reduce == ReduceOp::kSum ? "all-reduce"
                                                : "all-reduce max";
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
    case Kind::kSend:
      return "send";
    case Kind::kReceive:
      return "receive";
  }
  return "?";
}

void CheckSlices(const Operation& operation, const Tensor& whole,
                 const Tensor& slice, int size) {
  CHECK(whole.dtype() == slice.dtype())
      << OperationText(operation) << ": " << whole.dtype() << " and "
      << slice.dtype();
  CHECK_EQ(whole.num_elements(), slice.num_elements() * size)
      << OperationText(operation) << ": " << whole.shape() << " is not " << size
      << " slices of " << slice.shape();
}

int64_t SumOfRows(const Operation& operation, std::span<const int64_t> rows,
                  int size) {
  CHECK_EQ(rows.size(), static_cast<size_t>(size)) << OperationText(operation);
  int64_t sum = 0;
  for (const int64_t count : rows) {
    CHECK_GE(count, 0) << OperationText(operation);
    sum += count;
  }
  return sum;
}

void CheckRows(const Operation& operation, int size) {
  const Tensor& input = operation.input;
  const Tensor& output = operation.output;
  CHECK(input.dtype() == output.dtype()) << OperationText(operation);
  CHECK_EQ(input.shape().elements_after(0), output.shape().elements_after(0))
      << OperationText(operation) << ": rows of " << input.shape() << " and "
      << output.shape();
  CHECK_EQ(SumOfRows(operation, operation.send_rows, size), input.dim(0))
      << OperationText(operation);
  CHECK_EQ(SumOfRows(operation, operation.receive_rows, size), output.dim(0))
      << OperationText(operation);
}

}  // namespace

std::string OperationText(const Operation& operation) {
  return fmt::format("{} '{}'", KindName(operation), operation.name);
}

Communicator::Communicator(int rank, int size, std::string_view name)
    : rank_(rank), size_(size), name_(name) {
  CHECK(rank >= 0 && rank < size) << rank << " of " << size;
}

void Communicator::Check(const Operation& operation) const {
  const Tensor& input = operation.input;
  const Tensor& output = operation.output;
  switch (operation.kind) {
    case Kind::kReduceScatter:
      return CheckSlices(operation, input, output, size_);
    case Kind::kAllGather:
      return CheckSlices(operation, output, input, size_);
    case Kind::kAllToAll:
      CheckSlices(operation, input, output, 1);
      CHECK_EQ(input.num_elements() % size_, 0)
          << OperationText(operation) << ": " << input.shape() << " has no "
          << size_ << " equal slices";
      return;
    case Kind::kAllToAllV:
      return CheckRows(operation, size_);
    case Kind::kBroadcast:
      CHECK(operation.root >= 0 && operation.root < size_)
          << OperationText(operation) << " from rank " << operation.root
          << " of " << size_;
      return;
    case Kind::kSend:
    case Kind::kReceive:
      CHECK(operation.peer >= 0 && operation.peer < size_ &&
            operation.peer != rank_)
          << OperationText(operation) << " between rank " << rank_
          << " and rank " << operation.peer << " in a group of " << size_;
      CHECK(operation.tag >= 0 && operation.tag <= max_tag())
          << OperationText(operation) << ": tag " << operation.tag
          << ", expected 0 to " << max_tag();
      return;
    case Kind::kAllReduce:
    case Kind::kBarrier:
      return;
  }
}

int64_t Communicator::SentBytes(const Operation& operation) const {
  // What a rank sends of the whole but for its own slice.
  const auto slices = [this](int64_t bytes) {
    return bytes * (size_ - 1) / size_;
  };
  switch (operation.kind) {
    case Kind::kAllReduce:
      return 2 * operation.input.bytes() * (size_ - 1) / size_;
    case Kind::kReduceScatter:
    case Kind::kAllToAll:
      return slices(operation.input.bytes());
    case Kind::kAllGather:
      return slices(operation.output.bytes());
    case Kind::kAllToAllV: {
      const Tensor& input = operation.input;
      const int64_t row_bytes =
          input.shape().elements_after(0) * DTypeSize(input.dtype());
      return (input.dim(0) - operation.send_rows[rank_]) * row_bytes;
    }
    case Kind::kBroadcast:
      return size_ > 1 && rank_ == operation.root ? operation.input.bytes() : 0;
    case Kind::kSend:
      return operation.input.bytes();
    case Kind::kBarrier:
    case Kind::kReceive:
      return 0;
  }
  return 0;
}

Event Communicator::Run(Operation operation) {
  Check(operation);
  operation.order = reduce_order_;
  traffic_->CountCall(SentBytes(operation));
  const auto blocked_ns =
      std::shared_ptr<std::atomic<int64_t>>(traffic_, &traffic_->exposed_ns());
  if (operation.kind == Kind::kBarrier) {
    Event event = Start(std::move(operation));
    event.CountInto(blocked_ns);
    return event;
  }
  Device& device = operation.data().device();
  Stream& communication = device.stream(StreamKind::kCommunication);
  device.stream().Record().Wait(communication);
  const StreamScope scope(device, StreamKind::kCommunication);
  Event event = Start(std::move(operation));
  Event launched = communication.Record();
  if (launched.in_flight()) launched_ = launched;
  if (!event.in_flight()) event = std::move(launched);
  event.set_device(device);
  event.CountInto(blocked_ns);
  return event;
}

}  // namespace trireme
