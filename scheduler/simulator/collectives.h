// The reductions and gathers of one replica's ranks whose collectives pass
// channels: when each runs.
//
// Those of a rank run one after another. One that passes channels is one
// collective of all replicas: it is ready when it is in each of them, enters
// all its channels together when they are free, in the order of readiness, and
// occupies each for a time of its own, which need not be as long as it runs.

#ifndef TRIREME_SCHEDULER_SIMULATOR_COLLECTIVES_H_
#define TRIREME_SCHEDULER_SIMULATOR_COLLECTIVES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/simulator/cost_model.h"
#include "scheduler/simulator/shared.h"
#include "scheduler/simulator/times.h"

namespace trireme {

class SimulatedCollectives {
 public:
  // All must outlive the object.
  SimulatedCollectives(const CostModel& cost, int32_t replica,
                       SimulatedTimes& times, SimulatedShared& shared);

  // Whether any collective of the rank passes channels: then Issue takes all of
  // them.
  bool Manages(int32_t rank) const { return ranks_[rank].managed; }

  // Instruction `index` of the rank, which is ready at `ready_s` but for those
  // before it.
  void Issue(int32_t rank, int32_t index, double ready_s, double duration_s,
             std::span<const ChannelTime> channels);
  // What the rank's first collective passes, which waits for channels.
  std::span<const ChannelTime> ChannelsOfFirst(int32_t rank) const {
    return ranks_[rank].First().channels;
  }
  // It enters them.
  void Enter(int32_t rank, double start_s);

 private:
  struct Collective {
    int32_t index = 0;
    double ready_s = 0;
    double duration_s = 0;
    std::span<const ChannelTime> channels;
  };
  struct Rank {
    bool managed = false;
    bool waits = false;  // the first is ready here
    double free_s = 0;
    std::vector<Collective> issued;
    size_t run = 0;  // how many of them

    const Collective& First() const { return issued[run]; }
  };

  // Runs the rank's first collectives as far as they pass no channels.
  void Drain(int32_t rank);
  void RunFirst(int32_t rank, double start_s);

  const int32_t replica_;
  SimulatedTimes& times_;
  SimulatedShared& shared_;
  std::vector<Rank> ranks_;
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_COLLECTIVES_H_
