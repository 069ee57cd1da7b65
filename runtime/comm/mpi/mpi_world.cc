#include "runtime/comm/mpi/mpi_world.h"

#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "runtime/comm/collective.h"
#include "runtime/comm/mpi/engine.h"
#include "runtime/comm/mpi/mpi_communicator.h"
#include "runtime/comm/mpi/watchdog.h"
#include "runtime/comm/single.h"
#include "runtime/core/log.h"
#include "runtime/core/processors.h"
#include "runtime/core/status.h"

namespace trireme {

namespace {

// A receive of OpenMPI's into which a longer message comes is cut off with an
// error where the message is copied; where its transport lets the sender or the
// receiver copy straight between processes (CMA, RDMA over TCP) the rest is
// written past the receive's buffer. Who has set these has decided otherwise.
void CutOffLongMessages() {
  constexpr int kKeep = 0;
  setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", kKeep);
  setenv("OMPI_MCA_btl_tcp_flags", "send", kKeep);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MpiWorld>> MpiWorld::Create(
    int* argc, char*** argv, const MpiWorldOptions& options) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  int provided = MPI_THREAD_SINGLE;
  if (initialized) {
    MPI_Query_thread(&provided);
  } else {
    CutOffLongMessages();
    MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided);
  }
  // The engine makes one MPI call at a time, from any thread.
  if (provided < MPI_THREAD_SERIALIZED) {
    if (!initialized) MPI_Finalize();
    return FailedPrecondition(
        "MPI supports threads at level {} only, expected at least {} "
        "(MPI_THREAD_SERIALIZED)",
        provided, MPI_THREAD_SERIALIZED);
  }
  return std::unique_ptr<MpiWorld>(new MpiWorld(!initialized, options));
}

MpiWorld::MpiWorld(bool finalize, const MpiWorldOptions& options)
    : finalize_(finalize) {
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &world_rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &world_size_);
  MPI_Comm machine;
  CheckMpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0,
                               MPI_INFO_NULL, &machine),
           "finding the ranks of this machine");
  MPI_Comm_rank(machine, &local_rank_);
  MPI_Comm_size(machine, &local_size_);
  // Ranks that are bound to processors of their own see only those; others
  // share what they see.
  const int allowed = AvailableProcessors();
  int sum_allowed = allowed;
  CheckMpi(
      MPI_Allreduce(MPI_IN_PLACE, &sum_allowed, 1, MPI_INT, MPI_SUM, machine),
      "counting processors");
  MPI_Comm_free(&machine);
  const bool shared =
      sum_allowed > static_cast<int>(std::thread::hardware_concurrency());
  threads_per_rank_ = shared ? std::max(1, allowed / local_size_) : allowed;
  const bool crowded = shared && allowed < local_size_;
  engine_ = std::make_shared<MpiEngine>(world_rank_, options.deadline, crowded,
                                        options.synchronous_sends);
  if (world_size_ > 1) {
    watchdog_ =
        std::make_unique<MpiWatchdog>(*engine_, world_rank_, world_size_);
  }
}

MpiWorld::~MpiWorld() {
  CHECK_EQ(engine_.use_count(), 1) << "communicators outlive their world";
  // Others may still ask what this rank is doing.
  if (watchdog_ && finalize_) watchdog_->AwaitAll();
  watchdog_.reset();
  engine_.reset();
  if (finalize_) MPI_Finalize();
}

std::unique_ptr<Communicator> MpiWorld::Create(std::span<const int> ranks,
                                               std::string_view name,
                                               Progress progress) {
  const int rank = RankInGroup(world_rank_, ranks, name);
  if (ranks.size() == 1) return std::make_unique<SingleCommunicator>(name);
  return std::make_unique<MpiCommunicator>(std::make_shared<MpiGroup>(
      engine_, std::vector<int>(ranks.begin(), ranks.end()), rank,
      std::string(name), progress == Progress::kBackground));
}

void MpiWorld::Abort(int exit_status) {
  CHECK_NE(exit_status, 0);
  MPI_Abort(MPI_COMM_WORLD, exit_status);
  std::abort();
}

}  // namespace trireme
