// The Communicator of a group of MPI processes. Thread-safe as communicator.h
// asks: one thread at a time starts operations, any may wait.

#ifndef TRIREME_RUNTIME_COMM_MPI_MPI_COMMUNICATOR_H_
#define TRIREME_RUNTIME_COMM_MPI_MPI_COMMUNICATOR_H_

#include <cstdint>
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

  int max_tag() const override { return group_->engine->max_tag(); }
  void SetActivity(std::string_view activity) override {
    group_->engine->registry().SetActivity(activity);
  }

 private:
  using Transfer = TransferOperation::Transfer;

  Event Start(Operation operation) override;
  std::shared_ptr<MpiOperation> Make(Operation operation, OperationNote note);
  // What an all-gather, an all-to-all or a message moves between this rank and
  // the others. Copies this rank's own part.
  std::vector<Transfer> Gather(const Operation& operation) const;
  std::vector<Transfer> Exchange(const Operation& operation) const;

  const std::shared_ptr<MpiGroup> group_;
  // Number 0 was the communicator's creation.
  int64_t next_sequence_ = 1;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_MPI_MPI_COMMUNICATOR_H_
