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
  void SetActivity(std::string_view activity) override {
    group_->engine->registry().SetActivity(activity);
  }

 private:
  using Transfer = TransferOperation::Transfer;
  enum class Kind {
    kAllReduceSum,
    kAllReduceMax,
    kReduceScatter,
    kAllGather,
    kAllToAll,
    kAllToAllV,
    kBroadcast,
    kBarrier,
  };
  static std::string_view KindName(Kind kind);
  static int TagOf(Kind kind, const OperationNote& note);

  Event Start(std::shared_ptr<MpiOperation> operation);
  Event Reduction(Kind kind, std::string_view name, const Tensor& input,
                  const Tensor& output, bool gather, ReduceOp op,
                  int64_t sent_bytes);
  Event Exchange(Kind kind, OperationNote note, const Tensor& input,
                 std::span<const int64_t> send_bytes, const Tensor& output,
                 std::span<const int64_t> receive_bytes);
  // Takes the next sequence number.
  OperationNote Collective(Kind kind, std::string_view name, int64_t bytes);
  OperationNote Message(bool sends, std::string_view name, const Tensor& data,
                        int peer, int tag) const;

  const std::shared_ptr<MpiGroup> group_;
  // Number 0 was the communicator's creation.
  int64_t next_sequence_ = 1;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_MPI_MPI_COMMUNICATOR_H_
