// A Program: for every pipeline rank the ordered list of instructions of one
// training step. Generators (schedules/) write it, the validator proves it,
// the simulator times it and the Executor runs it.
//
// One list per *pipeline rank*. All ranks that differ only in their tensor,
// context, expert or data coordinate run the same list (each on its shard), so
// the collectives inside an instruction meet in the same order everywhere. A
// Program therefore knows nothing of tp, cp, ep and dp.
//
// A *stage* is a run of consecutive blocks, numbered in the model's order. A
// *chunk* is a stage as seen on its rank: (rank, chunk) <-> stage through
// Program::stages. Hop h is the boundary between stage h and stage h + 1, or
// where microbatches have routes of their own, between their stops h and h + 1:
// activations cross it upwards, gradients downwards. (payload, hop, microbatch)
// names a message uniquely in a step and makes a tag.
//
// WHAT AN EXECUTOR MUST DO
//
// 1. Issue the instructions of its list in order. Before an instruction *runs*,
//    all that it depends on have completed. (`depends_on` only points backwards
//    in the same list.) It may block for them, or queue asynchronous
//    instructions on their resource and go on.
// 2. Compute instructions block the list until they end (or are queued on the
//    one compute stream). All others run beside the list.
// 3. Recv *posts* a receive into a new buffer and goes on at once. Whoever
//    needs the message depends on the Recv. The buffer belongs to that reader.
// 4. Send starts a send and goes on at once; its buffer lives until the send
//    completes. Nothing depends on a Send.
// 5. ReduceGradients(chunk, bucket) starts as soon as the bucket's gradients
//    are final, which may be inside the last backward of its chunk (buckets
//    fill in the order 0, 1, ...; every rank of a reduction group starts them
//    in that order). It must have started at its place in the list, and have
//    completed where something depends on it.
// 6. ClipGradients is a collective over all ranks of all lists: it computes the
//    global gradient norm (even where nothing is to be clipped, for the
//    metrics) and scales.
// 7. Of a Program with `offload`, Forward and Backward name the unit of the
//    chunk that they run: blocks in order, and in reverse. Fetch copies a
//    unit's parameters into a free place on the device, and Release drops them,
//    which frees the place once all it depends on has ended; weights do not
//    change within a step and are never copied back. SaveGradients copies what
//    Backwards of a unit have added up to the host and so frees the buffer; the
//    next Backward of the unit in the step goes on from there. SaveActivation
//    copies what a Forward has kept of its input to the host, if nothing else
//    on the device keeps it, and frees it; LoadActivation brings it back to
//    memory of its own before the Backward. ReduceGradients
//    and ClipGradients run on the host, and so does Update, on one unit: with
//    the gradients that the step before has clipped, before the unit is first
//    fetched. A list thus begins with what the step before left to it, of
//    which its first forwards wait for no more than they need; whoever reads
//    or writes parameters between steps carries it out first.
// 8. At the end of the list wait for everything outstanding but
//    GatherParameters, which goes on behind the next step's forward: whoever
//    first uses the bucket's parameters waits for it.
//
// Why this cannot deadlock: the validator runs the lists under stronger rules,
// where each Send blocks until its Recv is posted and each instruction blocks
// until its dependencies are complete. What ends there ends under any
// buffering of the transport. Generators post the Recv of the next compute
// instruction *before* the current one, hence before the Send that follows it
// (the usual fused send-forward/receive-backward pair), and earlier where the
// sender is earlier (BuildProgram).

#ifndef TRIREME_SCHEDULER_PROGRAM_PROGRAM_H_
#define TRIREME_SCHEDULER_PROGRAM_PROGRAM_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"

namespace trireme {

// instruction_kinds.h says of each what it has, costs and holds.
enum class InstructionKind : uint8_t {
  // Run chunk on microbatch; keeps activations for the backward.
  kForward,
  // Input and weight gradients together; frees the activations.
  kBackward,
  // The two halves of kBackward: the first frees the activations save what the
  // second needs.
  kBackwardInput,
  kBackwardWeight,
  // One message to or from `peer`.
  kSend,
  kRecv,
  // Sum of a bucket's gradients over the data-parallel ranks.
  kReduceGradients,
  // Whole parameters of a bucket from their data-parallel shards.
  kGatherParameters,
  kClipGradients,
  // Optimizer step on a bucket's parameters.
  kUpdate,
  // A unit's gradients to the host, of microbatches up to one.
  kSaveGradients,
  // Bring a unit's parameters to the device, drop them from it.
  kFetch,
  kRelease,
  // What a unit keeps of a microbatch's input to the host, and back.
  kSaveActivation,
  kLoadActivation,
};

// What a message carries.
enum class Payload : uint8_t { kNone, kActivation, kGradient };

// What an instruction occupies while it runs. Instructions of one resource and
// rank run one after another; communication has a queue for each peer and
// direction and one for collectives.
enum class Resource : uint8_t {
  kCompute,
  kCommunication,
  kCopyIn,
  kCopyOut,
  kHost,
};

std::string_view InstructionKindName(InstructionKind kind);
std::string_view PayloadName(Payload payload);
std::string_view ResourceName(Resource resource);

// Fields that a kind does not have are -1.
struct Instruction {
  InstructionKind kind = InstructionKind::kForward;
  Payload payload = Payload::kNone;  // Send, Recv
  Resource resource = Resource::kCompute;
  // Compute, messages, SaveGradients, SaveActivation, LoadActivation.
  int32_t microbatch = -1;
  int32_t chunk = -1;   // all but ClipGradients
  int32_t hop = -1;     // Send, Recv
  int32_t peer = -1;    // Send, Recv: pipeline rank
  int32_t bucket = -1;  // Reduce, Gather, Update
  // Of what is copied between host and device; with offload also compute and
  // Update.
  int32_t unit = -1;
  // Indices in the same list, each below this instruction's own.
  absl::InlinedVector<int32_t, 4> depends_on;
};

// Most microbatches times stages of a Program: its messages are numbered in
// int, at most sixteen numbers for each microbatch and hop (executor.cc), and
// it has at most seven instructions for each, indexed by int32.
inline constexpr int64_t kMaxMicrobatchesTimesStages = int64_t{1} << 27;

// A block of a chunk, as what is copied between host and device.
struct Unit {
  int32_t chunk = 0;
  int32_t unit = 0;

  friend bool operator==(const Unit&, const Unit&) = default;
};

// What of a Program is on the host (offload_pass.h).
struct Offload {
  // Units' gradients that are on a device at once: one that a backward makes
  // and one that leaves.
  static constexpr int32_t kGradientBuffers = 2;
  // Gradient buckets' optimizer states that are in memory at once, where they
  // lie on a drive: one that is read, one that is updated and one that is
  // written.
  static constexpr int32_t kStateBuffers = 3;
  // Units in the host's memory from which on what is done with them hides,
  // where weights lie on a drive: one that is read, one that is copied to the
  // device, one that is updated and one that is written.
  static constexpr int32_t kHostUnits = 4;

  // units[stage]: blocks of the stage's chunk, and its gradient buckets: bucket
  // b is what the backward completes as its b-th, unit units[stage] - 1 - b.
  std::vector<int32_t> units;
  // Most units of a rank that are on its device at once: none when a step
  // starts and when it ends.
  int32_t resident_units = 0;
};

// Where a stage runs.
struct StageLocation {
  int32_t rank = 0;
  int32_t chunk = 0;
};

struct Program {
  // ranks[pipeline rank][index].
  std::vector<std::vector<Instruction>> ranks;
  // stages[stage], in the model's order.
  std::vector<StageLocation> stages;
  // Microbatches of one data-parallel replica in the step.
  int32_t microbatches = 0;
  // buckets[stage]: gradient buckets of the stage's chunk.
  std::vector<int32_t> buckets;
  // routes[microbatch]: the stages that it visits, in order, each at most once
  // (scheduler/partial/program.h). Empty: all visit all, in the model's order.
  std::vector<std::vector<int32_t>> routes;
  // Absent: every parameter is on its device, and no instruction has a unit.
  std::optional<Offload> offload;

  int32_t num_ranks() const { return static_cast<int32_t>(ranks.size()); }
  int32_t num_stages() const { return static_cast<int32_t>(stages.size()); }
  // Stages that a microbatch visits.
  int32_t StopsOf(int32_t microbatch) const {
    return routes.empty() ? num_stages()
                          : static_cast<int32_t>(routes[microbatch].size());
  }
  // The stage at one of its stops; -1: it has no such stop.
  int32_t StageAt(int32_t microbatch, int32_t stop) const {
    if (stop < 0 || stop >= StopsOf(microbatch)) return -1;
    return routes.empty() ? stop : routes[microbatch][stop];
  }
  // Which of its stops the stage is, or -1.
  int32_t StopOf(int32_t microbatch, int32_t stage) const;
  // Of a stage's chunk; 0 where nothing is offloaded.
  int32_t UnitsOf(int32_t stage) const {
    return offload.has_value() ? offload->units[stage] : 0;
  }
};

// The stage that (rank, chunk) is, or -1.
int32_t StageOf(const Program& program, int32_t rank, int32_t chunk);
// How many chunks the rank has.
int32_t ChunksOnRank(const Program& program, int32_t rank);
// The stage of each of the rank's chunks: result[chunk].
std::vector<int32_t> StagesOnRank(const Program& program, int32_t rank);

// Whether instruction `index` of the list is among its dependencies.
bool DependsOn(const Instruction& instruction, int32_t index);

// One instruction without its dependencies:
// "Send activation mb=3 hop=0 to=1 chunk=0".
std::string ToText(const Instruction& instruction);
// The whole Program, stable, for people and golden files: one line per
// instruction, with its index, resource and dependencies.
std::string ToText(const Program& program);

// Makers; they set the resource that the instruction has by default.
Instruction MakeCompute(InstructionKind kind, int32_t microbatch,
                        int32_t chunk);
Instruction MakeMessage(InstructionKind kind, Payload payload,
                        int32_t microbatch, int32_t hop, int32_t peer,
                        int32_t chunk);
Instruction MakeBucket(InstructionKind kind, int32_t chunk, int32_t bucket);
Instruction MakeClipGradients();
// kFetch, kRelease; with a microbatch kSaveGradients, kSaveActivation,
// kLoadActivation.
Instruction MakeUnitCopy(InstructionKind kind, Unit unit,
                         int32_t microbatch = -1);

}  // namespace trireme

#endif  // TRIREME_SCHEDULER_PROGRAM_PROGRAM_H_
