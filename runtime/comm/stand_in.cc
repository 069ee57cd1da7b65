#include "runtime/comm/stand_in.h"

#include <chrono>

namespace trireme {

StandInCommunicator::StandInCommunicator(int rank, int size,
                                         std::string_view name)
    : rank_(rank), size_(size), name_(name) {
  CHECK(rank >= 0 && rank < size) << rank << " of " << size;
}

template <typename Fill>
Event StandInCommunicator::Done(int64_t sent_bytes, Fill&& fill) {
  using Clock = std::chrono::steady_clock;
  traffic_.CountCall(sent_bytes);
  const Clock::time_point start = Clock::now();
  fill();
  traffic_.CountExposed(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start)
          .count());
  return Event();
}

Event StandInCommunicator::AllReduce(const Tensor& data, ReduceOp,
                                     std::string_view) {
  return Done(AllReduceSentBytes(data.bytes(), size_), [] {});
}

Event StandInCommunicator::ReduceScatter(const Tensor& input,
                                         const Tensor& output,
                                         std::string_view name) {
  CheckReduceScatter(input, output, size_, name);
  return Done(SlicesSentBytes(input.bytes(), size_), [&] {
    const int64_t rows = output.dim(0);
    output.CopyFrom(input.Slice(rank_ * rows, (rank_ + 1) * rows));
  });
}

Event StandInCommunicator::AllGather(const Tensor& input, const Tensor& output,
                                     std::string_view name) {
  CheckAllGather(input, output, size_, name);
  return Done(SlicesSentBytes(output.bytes(), size_), [&] {
    const int64_t rows = input.dim(0);
    for (int i = 0; i < size_; ++i) {
      const Tensor slice = output.Slice(i * rows, (i + 1) * rows);
      if (slice.raw_data() != input.raw_data()) slice.CopyFrom(input);
    }
  });
}

Event StandInCommunicator::AllToAll(const Tensor& input, const Tensor& output,
                                    std::string_view name) {
  CheckAllToAll(input, output, size_, name);
  return Done(SlicesSentBytes(input.bytes(), size_),
              [&] { output.CopyFrom(input); });
}

Event StandInCommunicator::AllToAllV(const Tensor& input,
                                     std::span<const int64_t> send_rows,
                                     const Tensor& output,
                                     std::span<const int64_t> receive_rows,
                                     std::string_view name) {
  CheckAllToAllV(input, send_rows, output, receive_rows, size_, name);
  const int64_t row_bytes =
      input.shape().elements_after(0) * DTypeSize(input.dtype());
  return Done((input.dim(0) - send_rows[rank_]) * row_bytes,
              [&] { output.FillZero(); });
}

Event StandInCommunicator::Broadcast(const Tensor& data, int root,
                                     std::string_view) {
  return Done(rank_ == root ? data.bytes() : 0, [&] {
    if (rank_ != root) data.FillZero();
  });
}

Event StandInCommunicator::Send(const Tensor& data, int to, int,
                                std::string_view name) {
  CheckPeer(to, rank_, size_, name);
  return Done(data.bytes(), [] {});
}

Event StandInCommunicator::Receive(const Tensor& data, int from, int,
                                   std::string_view name) {
  CheckPeer(from, rank_, size_, name);
  return Done(0, [&] { data.FillZero(); });
}

void StandInCommunicator::Barrier(std::string_view) { traffic_.CountCall(0); }

StandInWorld::StandInWorld(int world_rank, int world_size)
    : world_rank_(world_rank), world_size_(world_size) {
  CHECK(world_rank >= 0 && world_rank < world_size);
}

std::unique_ptr<Communicator> StandInWorld::Create(std::span<const int> ranks,
                                                   std::string_view name,
                                                   Progress) {
  const int rank = RankInGroup(world_rank_, ranks, name);
  return std::make_unique<StandInCommunicator>(
      rank, static_cast<int>(ranks.size()), name);
}

}  // namespace trireme
