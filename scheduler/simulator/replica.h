// One replica of a simulation: evaluates the lists of its ranks in order, each
// as far as the times it needs are known.
//
// Every time is a function of earlier ones in the Program's graph (resources
// are queues in list order), so no global clock is needed, but for channels and
// shared processors: a message enters the one, an instruction takes the other
// when nothing else can be evaluated and nothing that waits is ready before it,
// since whatever is found later follows from its end or later ones.

#ifndef TRIREME_SCHEDULER_SIMULATOR_REPLICA_H_
#define TRIREME_SCHEDULER_SIMULATOR_REPLICA_H_

#include <array>
#include <cstdint>
#include <functional>
#include <queue>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/program/memory.h"
#include "scheduler/simulator/collectives.h"
#include "scheduler/simulator/cost_model.h"
#include "scheduler/simulator/layout.h"
#include "scheduler/simulator/links.h"
#include "scheduler/simulator/shared.h"
#include "scheduler/simulator/simulator.h"
#include "scheduler/simulator/times.h"

namespace trireme {

class SimulatedReplica {
 public:
  // All must outlive the object. `memory` may be null. `number`: which replica
  // it is to `shared`.
  SimulatedReplica(const SimulatedProgram& program, const CostModel& cost,
                   const MemoryModel* memory, int32_t number,
                   SimulatedShared& shared);

  // Evaluates the rank's list until something is not known.
  void Advance(int32_t rank);
  // The first message of the link enters its channels.
  void Enter(int32_t link) { links_.Enter(link); }
  // The first collective of the rank that passes channels.
  std::span<const ChannelTime> ChannelsOfCollective(int32_t rank) const {
    return collectives_.ChannelsOfFirst(rank);
  }
  void EnterCollective(int32_t rank, double start_s) {
    collectives_.Enter(rank, start_s);
  }
  // The rank's next instruction takes the processor that is free first.
  void Occupy(int32_t rank);

  // Once nothing can go on any more. InvalidArgument where instructions are
  // left.
  absl::StatusOr<Simulation> Finish();

 private:
  struct RankState {
    int32_t next = 0;
    // When each resource is free: compute, when the compute instructions so
    // far have ended.
    std::array<double, 5> free_s = {};

    double& FreeAt(Resource resource) {
      return free_s[static_cast<size_t>(resource)];
    }
    double compute_s() const {
      return free_s[static_cast<size_t>(Resource::kCompute)];
    }
  };
  // When an instruction may start, but for its resource, and the dependency
  // that it waits for until then, or -1.
  struct Readiness {
    double time_s = 0;
    int32_t latest = -1;
  };

  // False where something that it needs is not known; the rank then goes on
  // when it is.
  bool Known(int32_t rank, const SimulatedInstruction& instruction);
  Readiness ReadinessOf(int32_t rank,
                        const SimulatedInstruction& instruction) const;
  Readiness ReadinessOfSeveral(int32_t rank) const;
  double ReadyAt(int32_t rank, const Instruction& instruction,
                 int32_t dependency) const;
  bool MeetAtClip(int32_t rank, const SimulatedInstruction& clip);
  void Run(int32_t rank, const SimulatedInstruction& instruction,
           const Readiness& ready);
  void CountIdle(int32_t rank, int32_t latest, double idle);
  // The channels that the rank's next instruction passes, a collective.
  std::span<const ChannelTime> ChannelsOfNext(int32_t rank) const;
  // By when the step must have begun again, or later, so that no forward waits
  // for the parameters that the rank gathers at its end.
  double LastGather(int32_t rank) const;
  void FinishTimes();
  // Lengthens the step by what is done at once.
  void SlowDown();
  MemoryBytes PeakInTime(int32_t rank) const;

  const SimulatedProgram& program_;
  const CostModel& cost_;
  const MemoryModel* memory_;
  const int32_t number_;
  SimulatedShared& shared_;
  SimulatedTimes times_;
  SimulatedLinks links_;
  SimulatedCollectives collectives_;
  // By SimulatedProgram::CostIndex.
  std::vector<double> durations_;
  std::vector<RankState> states_;
  // When each of the processors is free.
  std::priority_queue<double, std::vector<double>, std::greater<>>
      processors_free_s_;
  Simulation result_;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_REPLICA_H_
