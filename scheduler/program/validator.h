// Proof, before anything runs, that a Program can run and does the whole step:
//
//  - indices are in range, and dependencies point backwards;
//  - on every channel (sender, receiver, payload) sends and receives are as
//    many and in the same order, and cross the hop that they name;
//  - every microbatch goes forward and backward exactly once on every stage (so
//    its activations are freed once), each reading its own message;
//  - every bucket is reduced once after its last backward, clipped after that,
//    and updated once after that; nothing but updates and parameter gathers
//    follows an update;
//  - where units are offloaded (validator_residency.cc), each is updated once
//    before it first comes to the device, is there when it computes, in one of
//    as many places as there are, its gradients leave before their buffer is
//    needed again and before clipping, and no unit stays at the end; what has
//    been taken away of a unit's input comes back before its backward;
//  - no deadlock, even where each Send blocks until its Recv is posted and each
//    instruction until all it depends on has ended. This also rules out cycles
//    through several ranks.
//
// Errors are InvalidArgument and name the rank, the instruction (index and
// text), what was found and what was expected. Pure; any thread.

#ifndef TRIREME_SCHEDULER_PROGRAM_VALIDATOR_H_
#define TRIREME_SCHEDULER_PROGRAM_VALIDATOR_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/program/memory.h"
#include "scheduler/program/program.h"

namespace trireme {

absl::Status ValidateProgram(const Program& program);

// That no rank passes its limit. ResourceExhausted with the rank, the
// instruction, the split by category and by how much. The Program must be
// valid.
absl::Status ValidateMemory(const Program& program, const MemoryModel& memory);

// That the model has the Program's ranks and chunks.
absl::Status CheckMemoryModel(const Program& program,
                              const MemoryModel& memory);

// The parts of ValidateProgram, which checks them in this order; each relies on
// those before it.

// Stages, each list's fields and dependencies, and that each send meets a
// receive. Reads each list once, while it is in the processor's cache: of
// mistakes on several ranks the first rank's is named. `then`: what else is
// done with a rank's list meanwhile; its errors are returned, too.
absl::Status ValidateLists(
    const Program& program,
    const std::function<absl::Status(int32_t rank)>& then = nullptr);
absl::Status ValidateWork(const Program& program);
absl::Status ValidateEndOfStep(const Program& program);
absl::Status ValidateResidency(const Program& program);
absl::Status ValidateProgress(const Program& program);

// "rank 1 instruction 7 'Forward mb=2 chunk=0'".
std::string Describe(const Program& program, int32_t rank, int32_t index);
// "rank 1 instruction 7 '...': found ..., expected ...".
absl::Status InstructionError(const Program& program, int32_t rank,
                              int32_t index, std::string_view found,
                              std::string_view expected);

// What checks of one rank's list have in common. The Program must outlive it.
class RankChecks {
 protected:
  RankChecks(const Program& program, int32_t rank)
      : program_(program),
        rank_(rank),
        list_(program.ranks[rank]),
        stage_of_(StagesOnRank(program, rank)) {}

  absl::Status Error(int32_t index, std::string_view found,
                     std::string_view expected) const {
    return InstructionError(program_, rank_, index, found, expected);
  }
  // That instruction `index` depends on instruction `on`, which is `what`.
  absl::Status CheckDependsOn(int32_t index, int32_t on,
                              std::string_view what) const;

  const Program& program_;
  const int32_t rank_;
  const std::vector<Instruction>& list_;
  const std::vector<int32_t> stage_of_;  // [chunk]
};

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PROGRAM_VALIDATOR_H_
