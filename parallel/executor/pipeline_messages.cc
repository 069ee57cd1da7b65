#include "parallel/executor/pipeline_messages.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "parallel/executor/staying_skips.h"
#include "parallel/grid/communicators.h"
#include "runtime/core/log.h"

namespace trireme {
namespace {

static_assert(kMaxMicrobatchesTimesStages * 2 - 1 <=
              std::numeric_limits<int>::max());

// Of all tensors of one message: those of equal tags arrive in the order in
// which they were sent, however many cross a hop.
int MessageTag(const Program& program, const Instruction& instruction) {
  return (instruction.microbatch * program.num_stages() + instruction.hop) * 2 +
         (instruction.payload == Payload::kGradient ? 1 : 0);
}

}  // namespace

PipelineMessages::PipelineMessages(ParallelContext& context,
                                   const Program& program, int pipeline_rank)
    : context_(context), program_(program), pipeline_rank_(pipeline_rank) {
  for (const Instruction& instruction : program.ranks[pipeline_rank]) {
    if (instruction.kind != InstructionKind::kSend) continue;
    sent_.emplace(instruction.payload, instruction.microbatch,
                  instruction.chunk);
  }
}

void PipelineMessages::Deliver(const Instruction& instruction, Payload payload,
                               const std::vector<BoundarySpec>& specs,
                               std::vector<Tensor> tensors) {
  const Key key(payload, instruction.microbatch, instruction.chunk);
  if (std::any_of(specs.begin(), specs.end(),
                  [](const BoundarySpec& spec) { return spec.stays; })) {
    tensors = LeaveStaying(specs, std::move(tensors),
                           staying_[{payload, instruction.microbatch}]);
  }
  if (sent_.contains(key)) {
    outgoing_.emplace(key, std::move(tensors));
    return;
  }
  const bool forward = payload == Payload::kActivation;
  const int stage = StageOf(program_, pipeline_rank_, instruction.chunk);
  const StageLocation target = program_.stages[forward ? stage + 1 : stage - 1];
  CHECK_EQ(target.rank, pipeline_rank_)
      << ToText(instruction) << ": nobody sends its result";
  Arrival arrival;
  arrival.tensors = std::move(tensors);
  arrived_.emplace(Key(payload, instruction.microbatch, target.chunk),
                   std::move(arrival));
}

void PipelineMessages::Send(const Instruction& instruction) {
  auto outgoing = outgoing_.extract(
      Key(instruction.payload, instruction.microbatch, instruction.chunk));
  CHECK(!outgoing.empty()) << ToText(instruction) << ": nothing to send";
  Communicator& channel =
      context_.communicators().PipelineSend(instruction.peer);
  Departure departure;
  departure.tensors = std::move(outgoing.mapped());
  const int tag = MessageTag(program_, instruction);
  for (const Tensor& tensor : departure.tensors) {
    departure.events.push_back(channel.Send(tensor, Communicators::kReceiver,
                                            tag, ToText(instruction)));
  }
  sends_.push_back(std::move(departure));
}

void PipelineMessages::Receive(const Instruction& instruction,
                               const std::vector<BoundarySpec>& specs) {
  Communicator& channel =
      context_.communicators().PipelineReceive(instruction.peer);
  Arrival arrival;
  const int tag = MessageTag(program_, instruction);
  for (const BoundarySpec& spec : Travelling(specs)) {
    Tensor tensor =
        Tensor::Empty(context_.device(), spec.shape, spec.dtype,
                      MemoryCategory::kActivations, "received activation");
    arrival.events.push_back(channel.Receive(tensor, Communicators::kSender,
                                             tag, ToText(instruction)));
    arrival.tensors.push_back(std::move(tensor));
  }
  arrived_.emplace(
      Key(instruction.payload, instruction.microbatch, instruction.chunk),
      std::move(arrival));
}

std::optional<PipelineMessages::Arrival> PipelineMessages::Take(
    Payload payload, int microbatch, int chunk,
    const std::vector<BoundarySpec>& specs) {
  auto arrival = arrived_.extract(Key(payload, microbatch, chunk));
  if (arrival.empty()) return std::nullopt;
  const auto staying = staying_.find({payload, microbatch});
  if (staying != staying_.end()) {
    std::vector<Tensor>& tensors = arrival.mapped().tensors;
    tensors = JoinStaying(specs, std::move(tensors), staying->second);
    if (staying->second.empty()) staying_.erase(staying);
  }
  return std::move(arrival.mapped());
}

void PipelineMessages::ReleaseCompletedSends() {
  std::erase_if(sends_, [](Departure& send) {
    return std::exchange(send.outlived, true) &&
           std::all_of(send.events.begin(), send.events.end(),
                       [](Event& event) { return event.Test(); });
  });
}

void PipelineMessages::AwaitSends() {
  for (Departure& send : sends_) {
    for (Event& event : send.events) event.Wait();
  }
  sends_.clear();
}

}  // namespace trireme
