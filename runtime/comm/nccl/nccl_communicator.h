// The Communicator of GPUs that are one rank's each: their collectives are
// NCCL's, on a stream of its own, so that those of different communicators need
// no order between them. What NCCL has not, or what is not on a GPU, goes
// through another communicator: barriers, tensors of the host, and messages
// between two ranks, which match by tag, where NCCL's match by order.
//
// A reduction is an exchange of slices, a kernel that adds them in rank order,
// and a gather: the same bits as on the host; with ReduceOrder::kFast it is
// NCCL's own. Its staging memory, up to
// kStagingBytes, is the communicator's, beside what NCCL itself takes of the
// GPU: neither counts as the device's.

#ifndef TRIREME_RUNTIME_COMM_NCCL_NCCL_COMMUNICATOR_H_
#define TRIREME_RUNTIME_COMM_NCCL_NCCL_COMMUNICATOR_H_

#include <nccl.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/comm/nccl/nccl_watch.h"
#include "runtime/device/cuda/cuda_stream.h"

namespace trireme {

class NcclCommunicator final : public Communicator {
 public:
  // All ranks of the group together, on the thread that drives the current GPU.
  // `others` carries what NCCL does not; `ranks` are the world's. `watch`, if
  // given, outlives it.
  NcclCommunicator(std::unique_ptr<Communicator> others,
                   std::span<const int> ranks, NcclWatch* watch);
  ~NcclCommunicator() override;

  int max_tag() const override { return others_->max_tag(); }
  void SetActivity(std::string_view activity) override {
    others_->SetActivity(activity);
  }

 private:
  class Work;

  Event Start(Operation operation) override;
  // Has every pair of ranks meet: NCCL connects them when they first do, and
  // the host waits for that, which it must not where others are in another
  // order.
  void Connect();
  void Launch(const Operation& operation);
  void Reduce(const Operation& operation);
  void ReduceByNccl(const Operation& operation);
  void Exchange(const Operation& operation);
  void Send(const void* from, int64_t bytes, int peer);
  void Receive(void* to, int64_t bytes, int peer);
  // At least so many.
  char* Staging(int64_t bytes);

  const std::unique_ptr<Communicator> others_;
  const std::vector<int> ranks_;
  NcclWatch* const watch_;
  int id_ = -1;  // in the watch's registry
  NcclWatch::Line* line_ = nullptr;
  int64_t next_sequence_ = 0;
  CudaStream stream_{/*first=*/true};
  ncclComm_t communicator_ = nullptr;
  void* staging_ = nullptr;
  int64_t staging_bytes_ = 0;
  // Whose tensors nobody has released yet.
  std::deque<std::shared_ptr<Work>> pending_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_NCCL_NCCL_COMMUNICATOR_H_
