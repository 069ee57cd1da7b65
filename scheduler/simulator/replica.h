// One replica of a simulation: evaluates the lists of its ranks in order, each
// as far as the times it needs are known.
//
// Every time is a function of earlier ones in the Program's graph (resources
// are queues in list order), so no global clock is needed, but for channels and
// shared processors: a message enters the one, an instruction takes the other
// when nothing else can be evaluated and nothing that waits is ready before it,
// since whatever is found later follows from its end or later ones.
//
// Reductions and gathers of a rank run one after another. One that passes
// channels is one collective of all replicas: it is ready when it is in each of
// them, enters all its channels together when they are free, in the order of
// readiness, and occupies each for a time of its own, which need not be as long
// as it runs.

#ifndef TRIREME_SCHEDULER_SIMULATOR_REPLICA_H_
#define TRIREME_SCHEDULER_SIMULATOR_REPLICA_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/program/memory.h"
#include "scheduler/simulator/cost_model.h"
#include "scheduler/simulator/layout.h"
#include "scheduler/simulator/shared.h"
#include "scheduler/simulator/simulator.h"

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
  void EnterLink(int32_t link);
  // What the rank's first collective passes, which waits for channels; and it
  // enters them.
  std::span<const ChannelTime> ChannelsOfCollective(int32_t rank) const {
    return states_[rank].FirstCollective().channels;
  }
  void EnterCollective(int32_t rank, double start_s);
  // The rank's next instruction takes the processor that is free first.
  void Occupy(int32_t rank);

  // Once nothing can go on any more. InvalidArgument where instructions are
  // left.
  absl::StatusOr<Simulation> Finish();

 private:
  // A time that is not known yet; nothing that is waited for.
  static constexpr double kUnknown = -1;
  static constexpr int32_t kNothing = -1;

  struct Message {
    double sent_s = 0;
    double posted_s = kUnknown;
    // Of its Send and its Recv, once they have been issued.
    int32_t send_index = -1;
    int32_t recv_index = -1;
  };
  struct Link {
    const SimulatedProgram::Link* ends = nullptr;
    double latency_s = 0;
    double bytes_per_s = 0;
    double free_s = 0;
    int32_t sent = 0;  // how many messages of the link have been sent
    int32_t left = 0;  // and have left
    bool has_channel = false;
    bool waits = false;  // its first message is in the queue for channels
  };
  struct Collective {
    int32_t index = 0;
    double ready_s = 0;
    double duration_s = 0;
    std::span<const ChannelTime> channels;
  };
  struct RankState {
    int32_t next = 0;
    // The instruction whose end it waits for.
    int32_t waits_for = kNothing;
    // When each resource is free: compute, when the compute instructions so
    // far have ended.
    std::array<double, 5> free_s = {};
    // Where any passes channels: the rank's collectives, of which so many have
    // run, when the last one ended, and whether the first of the others is
    // ready here.
    bool passes_channels = false;
    bool collective_waits = false;
    double collectives_free_s = 0;
    size_t collectives_run = 0;
    std::vector<Collective> collectives;

    double& FreeAt(Resource resource) {
      return free_s[static_cast<size_t>(resource)];
    }
    double compute_s() const {
      return free_s[static_cast<size_t>(Resource::kCompute)];
    }
    const Collective& FirstCollective() const {
      return collectives[collectives_run];
    }
  };
  // When an instruction may start, but for its resource, and the dependency
  // that it waits for until then, or -1.
  struct Readiness {
    double time_s = 0;
    int32_t latest = -1;
  };

  void AddLinks();
  const Interval& TimeOf(int32_t rank, int32_t index) const {
    return result_.times[rank][index];
  }
  // The instruction's end is known: who waits for it goes on.
  void Wake(int32_t rank, int32_t index);

  // Instruction `index` of its list sends the next message of its link at
  // `sent_s`; its receive is posted by another.
  void Send(int32_t message, int32_t index, double sent_s);
  void Post(int32_t message, int32_t index, double posted_s);
  // Moves the first messages of the link as long as both their ends are issued.
  void DrainLink(int32_t link);
  void Transfer(int32_t link);
  // Instruction `index` of the rank is ready but for the collectives before it.
  void Issue(int32_t rank, const Collective& collective);
  // Runs the rank's first collectives as far as they pass no channels.
  void DrainCollectives(int32_t rank);
  void RunFirstCollective(int32_t rank, double start_s);

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
  // Of the `idle` seconds until instruction `copy` has ended, those by which
  // the host held it up.
  double WaitForHost(int32_t rank, int32_t copy, double idle) const;
  // The channels that the rank's next instruction passes, a collective.
  std::span<const ChannelTime> ChannelsOfNext(int32_t rank) const;
  // By when the step must have begun again, or later, so that no forward waits
  // for the parameters that the rank gathers at its end.
  double LastGather(int32_t rank) const;
  void FinishTimes();
  // Lengthens the step by what is done at once.
  void SlowDown();
  // The rank's memory at its peak. Of a Recv from when it is posted, of a Send
  // from when its buffer is made, both until the message has arrived. Buffers
  // of sends are as large as the receiver's.
  MemoryBytes PeakInTime(int32_t rank) const;

  const SimulatedProgram& program_;
  const CostModel& cost_;
  const MemoryModel* memory_;
  const int32_t number_;
  SimulatedShared& shared_;
  std::vector<Link> links_;
  std::vector<std::array<Channel, 2>> channels_;  // [link]
  std::vector<Message> messages_;
  std::vector<double> lane_bytes_;  // [lane], of a message
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
