// This process's place among the job's MPI processes, from MPI_Init to
// MPI_Finalize. One per process; if MPI is already initialized (tests), it is
// used as it is and left to whoever did.

#ifndef TRIREME_RUNTIME_COMM_MPI_MPI_WORLD_H_
#define TRIREME_RUNTIME_COMM_MPI_MPI_WORLD_H_

#include <chrono>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/comm/communicator.h"
#include "runtime/core/processors.h"

namespace trireme {

class MpiEngine;
class MpiWatchdog;
struct HangWatch;

struct MpiWorldOptions {
  // How long one Wait may take before the job is ended as hung, with a table
  // of what all ranks do.
  std::chrono::milliseconds deadline = std::chrono::minutes(10);
  // A send of this rank is complete only when its receive has begun, as on a
  // transport without buffers: what would hang there hangs here.
  bool synchronous_sends = false;
};

class MpiWorld final : public CommunicatorFactory {
 public:
  // Takes MPI's own arguments out of argv. Errors: an MPI without thread
  // support.
  static absl::StatusOr<std::unique_ptr<MpiWorld>> Create(
      int* argc, char*** argv, const MpiWorldOptions& options = {});
  // All communicators are gone by then. Waits for the other ranks, without a
  // deadline, unless MPI is left initialized.
  ~MpiWorld() override;
  MpiWorld(const MpiWorld&) = delete;
  MpiWorld& operator=(const MpiWorld&) = delete;

  int world_rank() const override { return world_rank_; }
  int world_size() const override { return world_size_; }
  // Among the ranks on this machine.
  int local_rank() const { return local_rank_; }
  int local_size() const { return share_.ranks; }
  // What this rank has of the processors that those ranks may use.
  const ProcessorShare& processor_share() const { return share_; }

  using CommunicatorFactory::Create;
  std::unique_ptr<Communicator> Create(std::span<const int> ranks,
                                       std::string_view name,
                                       Progress progress) override;

  // For communicators whose waits MPI does not see: the world's table of a hang
  // has them, too. Valid as long as the world.
  HangWatch hang_watch();

  // Ends all ranks of the job. `exit_status` is not 0.
  [[noreturn]] static void Abort(int exit_status);

 private:
  MpiWorld(bool finalize, const MpiWorldOptions& options);

  const bool finalize_;
  int world_rank_ = 0;
  int world_size_ = 1;
  int local_rank_ = 0;
  ProcessorShare share_;
  std::shared_ptr<MpiEngine> engine_;
  // None for a world of one.
  std::unique_ptr<MpiWatchdog> watchdog_;
};

}  // namespace trireme

#endif  // TRIREME_RUNTIME_COMM_MPI_MPI_WORLD_H_
