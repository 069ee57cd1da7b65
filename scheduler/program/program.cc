#include "scheduler/program/program.h"

#include <algorithm>
#include <iterator>

#include "fmt/format.h"
#include "runtime/core/log.h"
#include "scheduler/program/instruction_kinds.h"

namespace trireme {

std::string_view InstructionKindName(InstructionKind kind) {
  return TraitsOf(kind).name;
}

std::string_view PayloadName(Payload payload) {
  switch (payload) {
    case Payload::kNone:
      return "none";
    case Payload::kActivation:
      return "activation";
    case Payload::kGradient:
      return "gradient";
  }
  return "unknown";
}

std::string_view ResourceName(Resource resource) {
  switch (resource) {
    case Resource::kCompute:
      return "compute";
    case Resource::kCommunication:
      return "communication";
    case Resource::kCopyIn:
      return "copy-in";
    case Resource::kCopyOut:
      return "copy-out";
    case Resource::kHost:
      return "host";
  }
  return "unknown";
}

int32_t StageOf(const Program& program, int32_t rank, int32_t chunk) {
  for (int32_t stage = 0; stage < program.num_stages(); ++stage) {
    const StageLocation& at = program.stages[stage];
    if (at.rank == rank && at.chunk == chunk) return stage;
  }
  return -1;
}

int32_t Program::StopOf(int32_t microbatch, int32_t stage) const {
  if (routes.empty()) return stage;
  const std::vector<int32_t>& route = routes[microbatch];
  const auto at = std::find(route.begin(), route.end(), stage);
  return at == route.end() ? -1 : static_cast<int32_t>(at - route.begin());
}

int32_t ChunksOnRank(const Program& program, int32_t rank) {
  int32_t chunks = 0;
  for (const StageLocation& at : program.stages) chunks += at.rank == rank;
  return chunks;
}

std::vector<int32_t> StagesOnRank(const Program& program, int32_t rank) {
  std::vector<int32_t> stage_of(ChunksOnRank(program, rank));
  for (int32_t stage = 0; stage < program.num_stages(); ++stage) {
    const StageLocation& at = program.stages[stage];
    if (at.rank == rank) stage_of[at.chunk] = stage;
  }
  return stage_of;
}

bool DependsOn(const Instruction& instruction, int32_t index) {
  const auto& depends_on = instruction.depends_on;
  return std::find(depends_on.begin(), depends_on.end(), index) !=
         depends_on.end();
}

std::string ToText(const Instruction& instruction) {
  std::string text(InstructionKindName(instruction.kind));
  auto append = [&text](std::string_view name, int32_t value) {
    if (value >= 0) {
      fmt::format_to(std::back_inserter(text), " {}={}", name, value);
    }
  };
  if (instruction.payload != Payload::kNone) {
    text += ' ';
    text += PayloadName(instruction.payload);
  }
  append("mb", instruction.microbatch);
  append("hop", instruction.hop);
  append(instruction.kind == InstructionKind::kSend ? "to" : "from",
         instruction.peer);
  append("chunk", instruction.chunk);
  append("bucket", instruction.bucket);
  append("unit", instruction.unit);
  return text;
}

std::string ToText(const Program& program) {
  std::string text = fmt::format("program ranks={} stages={} microbatches={}\n",
                                 program.num_ranks(), program.num_stages(),
                                 program.microbatches);
  for (int32_t stage = 0; stage < program.num_stages(); ++stage) {
    fmt::format_to(std::back_inserter(text),
                   "stage {}: rank={} chunk={} buckets={}\n", stage,
                   program.stages[stage].rank, program.stages[stage].chunk,
                   program.buckets[stage]);
  }
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    fmt::format_to(std::back_inserter(text), "rank {}\n", rank);
    const std::vector<Instruction>& list = program.ranks[rank];
    for (size_t i = 0; i < list.size(); ++i) {
      fmt::format_to(std::back_inserter(text), "{:5}  {:<13}  {}", i,
                     ResourceName(list[i].resource), ToText(list[i]));
      if (!list[i].depends_on.empty()) {
        fmt::format_to(std::back_inserter(text), "  after {}",
                       fmt::join(list[i].depends_on, ","));
      }
      text += '\n';
    }
  }
  return text;
}

namespace {

Instruction Make(InstructionKind kind, Operand operand) {
  CHECK(TraitsOf(kind).operand == operand);
  Instruction instruction;
  instruction.kind = kind;
  instruction.resource = TraitsOf(kind).resource;
  return instruction;
}

}  // namespace

Instruction MakeCompute(InstructionKind kind, int32_t microbatch,
                        int32_t chunk) {
  CHECK(TraitsOf(kind).resource == Resource::kCompute);
  Instruction instruction = Make(kind, Operand::kMicrobatch);
  instruction.microbatch = microbatch;
  instruction.chunk = chunk;
  return instruction;
}

Instruction MakeMessage(InstructionKind kind, Payload payload,
                        int32_t microbatch, int32_t hop, int32_t peer,
                        int32_t chunk) {
  CHECK(payload != Payload::kNone);
  Instruction instruction = Make(kind, Operand::kMessage);
  instruction.payload = payload;
  instruction.microbatch = microbatch;
  instruction.chunk = chunk;
  instruction.hop = hop;
  instruction.peer = peer;
  return instruction;
}

Instruction MakeBucket(InstructionKind kind, int32_t chunk, int32_t bucket) {
  Instruction instruction = Make(kind, Operand::kBucket);
  instruction.chunk = chunk;
  instruction.bucket = bucket;
  return instruction;
}

Instruction MakeClipGradients() {
  return Make(InstructionKind::kClipGradients, Operand::kNothing);
}

Instruction MakeUnitCopy(InstructionKind kind, Unit unit, int32_t microbatch) {
  CHECK(TraitsOf(kind).unit == UnitOperand::kAlways);
  Instruction instruction =
      Make(kind, microbatch < 0 ? Operand::kNothing : Operand::kMicrobatch);
  instruction.microbatch = microbatch;
  instruction.chunk = unit.chunk;
  instruction.unit = unit.unit;
  return instruction;
}

}  // namespace trireme
