#include "runtime/comm/dry.h"

#include <utility>

#include "runtime/comm/single.h"

namespace trireme {

DryCommunicator::DryCommunicator(int rank, int size, std::string_view name)
    : rank_(rank), size_(size), name_(name) {
  CHECK(rank >= 0 && rank < size) << rank << " of " << size;
}

Event DryCommunicator::Count(const Tensor& data, int64_t sent_bytes,
                             Tensor staging) {
  CHECK(data.device().dry()) << "'" << name_ << "' is for dry devices only";
  traffic_.CountCall(sent_bytes);
  return DryEvent(std::move(staging));
}

Event DryCommunicator::AllReduce(const Tensor& data, ReduceOp,
                                 std::string_view) {
  const auto segments =
      ReductionSegments::Of(data.num_elements(), data.dtype(), size_);
  return Count(data, AllReduceSentBytes(data.bytes(), size_),
               segments.MakeStaging(data, size_));
}

Event DryCommunicator::ReduceScatter(const Tensor& input, const Tensor& output,
                                     std::string_view name) {
  CheckReduceScatter(input, output, size_, name);
  const auto segments =
      ReductionSegments::Of(input.num_elements(), input.dtype(), size_);
  return Count(input, SlicesSentBytes(input.bytes(), size_),
               segments.MakeStaging(input, size_));
}

Event DryCommunicator::AllGather(const Tensor& input, const Tensor& output,
                                 std::string_view name) {
  CheckAllGather(input, output, size_, name);
  return Count(input, SlicesSentBytes(output.bytes(), size_));
}

Event DryCommunicator::AllToAll(const Tensor& input, const Tensor& output,
                                std::string_view name) {
  CheckAllToAll(input, output, size_, name);
  return Count(input, SlicesSentBytes(input.bytes(), size_));
}

Event DryCommunicator::AllToAllV(const Tensor& input,
                                 std::span<const int64_t> send_rows,
                                 const Tensor& output,
                                 std::span<const int64_t> receive_rows,
                                 std::string_view name) {
  CheckAllToAllV(input, send_rows, output, receive_rows, size_, name);
  const int64_t row_bytes =
      input.shape().elements_after(0) * DTypeSize(input.dtype());
  return Count(input, (input.dim(0) - send_rows[rank_]) * row_bytes);
}

Event DryCommunicator::Broadcast(const Tensor& data, int root,
                                 std::string_view) {
  return Count(data, rank_ == root ? data.bytes() : 0);
}

Event DryCommunicator::Send(const Tensor& data, int to, int,
                            std::string_view name) {
  CheckPeer(to, rank_, size_, name);
  return Count(data, data.bytes());
}

Event DryCommunicator::Receive(const Tensor& data, int from, int,
                               std::string_view name) {
  CheckPeer(from, rank_, size_, name);
  return Count(data, 0);
}

void DryCommunicator::Barrier(std::string_view) { traffic_.CountCall(0); }

DryWorld::DryWorld(int world_rank, int world_size)
    : world_rank_(world_rank), world_size_(world_size) {
  CHECK(world_rank >= 0 && world_rank < world_size);
}

std::unique_ptr<Communicator> DryWorld::Create(std::span<const int> ranks,
                                               std::string_view name,
                                               Progress) {
  const int rank = RankInGroup(world_rank_, ranks, name);
  if (ranks.size() == 1) return std::make_unique<SingleCommunicator>(name);
  return std::make_unique<DryCommunicator>(rank, static_cast<int>(ranks.size()),
                                           name);
}

}  // namespace trireme
