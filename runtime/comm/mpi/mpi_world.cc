#include "runtime/comm/mpi/mpi_world.h"

#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "runtime/comm/collective.h"
#include "runtime/comm/mpi/engine.h"
#include "runtime/comm/mpi/mpi_communicator.h"
#include "runtime/comm/mpi/watchdog.h"
#include "runtime/comm/single.h"
#include "runtime/core/control_groups.h"
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
  int local_size = 1;
  MPI_Comm_rank(machine, &local_rank_);
  MPI_Comm_size(machine, &local_size);
  std::vector<ProcessorSet> allowed(local_size);
  allowed[local_rank_] = AllowedProcessors();
  CheckMpi(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, allowed.data(),
                         sizeof(ProcessorSet), MPI_BYTE, machine),
           "counting processors");
  MPI_Comm_free(&machine);
  share_ =
      ShareProcessors(allowed, local_rank_, LimitsOfControlGroups().processors);
  const bool crowded = share_.processors < share_.ranks;
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

HangWatch MpiWorld::hang_watch() {
  return {.registry = &engine_->registry(), .deadline = engine_->deadline()};
}

void MpiWorld::Abort(int exit_status) {
  CHECK_NE(exit_status, 0);
  MPI_Abort(MPI_COMM_WORLD, exit_status);
  std::abort();
}

}  // namespace trireme
