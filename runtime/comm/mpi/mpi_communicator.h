// The Communicator of a group of MPI processes. Thread-safe as communicator.h
// asks: one thread at a time starts operations, any may wait.

#ifndef TRIREME_RUNTIME_COMM_MPI_MPI_COMMUNICATOR_H_
#define TRIREME_RUNTIME_COMM_MPI_MPI_COMMUNICATOR_H_

#include <memory>
#include <string_view>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/mpi/operations.h"

namespace trireme {

class MpiCommunicator final : public Communicator {
 public:
  explicit MpiCommunicator(std::shared_ptr<MpiGroup> group);
  // Waits for operations whose events were dropped, for a few seconds; ends
  // the job if they are still under way then.
  ~MpiCommunicator() override;
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  int rank() const override { return group_->rank; }
  int size() const override { return group_->size(); }
  std::string_view name() const override { return group_->name; }

  Event AllReduce(const Tensor& data, ReduceOp op,
                  std::string_view name) override;
  Event ReduceScatter(const Tensor& input, const Tensor& output,
                      std::string_view name) override;
  Event AllGather(const Tensor& input, const Tensor& output,
                  std::string_view name) override;
  Event AllToAll(const Tensor& input, const Tensor& output,
                 std::string_view name) override;
  Event AllToAllV(const Tensor& input, std::span<const int64_t> send_rows,
                  const Tensor& output, std::span<const int64_t> receive_rows,
                  std::string_view name) override;
  Event Broadcast(const Tensor& data, int root, std::string_view name) override;
  Event Send(const Tensor& data, int to, int tag,
             std::string_view name) override;
  Event Receive(const Tensor& data, int from, int tag,
                std::string_view name) override;
  void Barrier(std::string_view name) override;

  CommunicationStatistics Statistics() const override {
    return group_->traffic.Get();
  }

 private:
  using Transfer = TransferOperation::Transfer;

  Event Start(std::shared_ptr<MpiOperation> operation);
  Event Reduction(std::string_view kind, std::string_view name,
                  const Tensor& input, const Tensor& output, bool gather,
                  ReduceOp op, int64_t sent_bytes);
  Event Exchange(std::string text, const Tensor& input,
                 std::span<const int64_t> send_bytes, const Tensor& output,
                 std::span<const int64_t> receive_bytes);
  // The first of `count` tags for the next collective.
  int TakeTags(int count);

  const std::shared_ptr<MpiGroup> group_;
  int next_tag_ = 0;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_MPI_MPI_COMMUNICATOR_H_
