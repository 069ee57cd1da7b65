// Event simulation of a Program: when every instruction runs, how long the step
// takes, where each rank idles and how much memory it holds.
//
// The model, which follows what program.h asks of an executor:
//  - an instruction is issued when all compute instructions before it in its
//    list have ended, those of the host and of copies at once; it starts when
//    also all it depends on has ended and its resource is free;
//  - a message starts when both its Send and its Recv are issued and the
//    messages before it on the same link (sender, receiver) have left; it
//    occupies the link for bytes / bytes_per_s and arrives latency_s later;
//  - where links share a channel, messages enter it in the order in which they
//    are ready;
//  - where ranks share processors, compute instructions take them in the order
//    in which they are ready, each until it ends;
//  - bucket b of B of a chunk is ready for reduction when (b + 1) / B of the
//    chunk's last backward have passed; reductions and gathers of a rank run
//    one after another; where they pass channels, each is one collective of all
//    replicas, and queues for them with the messages;
//  - ClipGradients starts when every rank is ready for it.
// Time is linear in the number of instructions, but for one sort per rank where
// memory is asked for and a queue of messages and collectives where there are
// channels, of instructions where processors are shared.

#ifndef TRIREME_SCHEDULER_SIMULATOR_SIMULATOR_H_
#define TRIREME_SCHEDULER_SIMULATOR_SIMULATOR_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/program/memory.h"
#include "scheduler/program/program.h"
#include "scheduler/simulator/cost_model.h"
#include "scheduler/simulator/trace.h"

namespace trireme {

// A span of simulated time.
struct Interval {
  double start_s = 0;
  double end_s = 0;
};

// A rank's step_s is the sum of its seven parts.
struct RankTime {
  // Compute instructions, updates and clipping.
  double compute_s = 0;
  // Idle while a message that it needs is on the way, or in the queue.
  double exposed_message_s = 0;
  // Idle while a reduction or gather runs that it needs.
  double exposed_other_s = 0;
  // Idle while a copy between host and device runs that it needs, or that runs
  // last.
  double exposed_copy_s = 0;
  // Idle while the host works for it.
  double exposed_host_s = 0;
  // Ready to compute, while other ranks have all processors.
  double processor_wait_s = 0;
  // Idle for any other reason: waiting for other ranks, before, between and
  // after its work.
  double bubble_s = 0;
};

struct Simulation {
  // From one step's start to the next one's, as steps follow one another:
  // gathers of parameters go on behind the next step's forwards until these use
  // them (rule 8 of program.h), and may end after it.
  double step_s = 0;
  // times[rank][index]. Of Send and Recv: the message's, from leaving to
  // arriving.
  std::vector<std::vector<Interval>> times;
  std::vector<RankTime> ranks;
  // With a MemoryModel: each rank's memory at its peak, send buffers (as large
  // as the receiver's) included.
  std::vector<MemoryBytes> peak_memory;
};

// The Program should be valid (ValidateProgram). Errors: InvalidArgument where
// its structure or messages are wrong or it blocks for ever, and where the
// models do not fit it or have figures that make no sense.
absl::StatusOr<Simulation> Simulate(const Program& program,
                                    const CostModel& cost,
                                    const MemoryModel* memory = nullptr);

// Several replicas at once, each running the Program, which must be valid (as
// CompilePlan's are: searches simulate one many times), at costs of its own;
// they share channels and wait for one another at ClipGradients; processors are
// each replica's own. replicas[i] gives result i; memory is asked for in the
// first alone.
absl::StatusOr<std::vector<Simulation>> SimulateReplicas(
    const Program& program, std::span<const CostModel> replicas,
    const MemoryModel* memory = nullptr);

// Where a trace, predicted or measured, shows the instruction.
std::string TrackOf(const Instruction& instruction);

// One event for each instruction that takes time (one for each message, on its
// sender).
std::vector<TraceEvent> SimulationTrace(const Program& program,
                                        const Simulation& simulation);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_SIMULATOR_SIMULATOR_H_
