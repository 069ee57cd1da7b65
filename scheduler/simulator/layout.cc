#include "scheduler/simulator/layout.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "runtime/core/status.h"
#include "scheduler/program/validator.h"

namespace trireme {
namespace {

void AddLinks(const Program& program, SimulatedProgram& result) {
  const int32_t hops = result.Hops();
  absl::flat_hash_map<std::pair<int32_t, int32_t>, int32_t> link_of;
  for (const int32_t direction : {0, 1}) {
    for (int32_t hop = 0; hop < hops; ++hop) {
      const int32_t from = program.stages[hop + direction].rank;
      const int32_t to = program.stages[hop + 1 - direction].rank;
      const auto [found, is_new] = link_of.try_emplace(
          {from, to}, static_cast<int32_t>(result.links.size()));
      if (is_new) result.links.push_back({.from = from, .to = to});
      result.link_of_lane.push_back(found->second);
    }
  }
  result.messages.resize(result.link_of_lane.size() * program.microbatches);
}

// Whether all later instructions of the list wait for it to end.
bool EndsBeforeLater(const Instruction& instruction) {
  return TraitsOf(instruction.kind).operand != Operand::kMessage &&
         instruction.resource == Resource::kCompute;
}

int32_t DependencyOf(const std::vector<Instruction>& list,
                     const Instruction& instruction) {
  // It may start inside the backward that it depends on.
  if (instruction.kind == InstructionKind::kReduceGradients) {
    return SimulatedInstruction::kSeveral;
  }
  const bool waits_for_compute = !RunsBesideCompute(instruction.resource);
  int32_t only = SimulatedInstruction::kNone;
  for (const int32_t dependency : instruction.depends_on) {
    if (waits_for_compute && EndsBeforeLater(list[dependency])) continue;
    if (only != SimulatedInstruction::kNone) {
      return SimulatedInstruction::kSeveral;
    }
    only = dependency;
  }
  return only;
}

absl::Status AddList(const Program& program, int32_t rank,
                     SimulatedProgram& result) {
  using Kind = SimulatedInstruction::Kind;
  const std::vector<Instruction>& list = program.ranks[rank];
  std::vector<SimulatedInstruction>& out = result.lists.emplace_back();
  out.reserve(list.size());
  for (int32_t i = 0; i < static_cast<int32_t>(list.size()); ++i) {
    const Instruction& instruction = list[i];
    SimulatedInstruction made;
    made.resource = instruction.resource;
    made.dependency = DependencyOf(list, instruction);
    switch (instruction.kind) {
      case InstructionKind::kSend:
      case InstructionKind::kRecv: {
        const bool down = instruction.payload == Payload::kGradient;
        const int32_t lane = instruction.hop + (down ? result.Hops() : 0);
        made.operand = lane * program.microbatches + instruction.microbatch;
        if (instruction.kind == InstructionKind::kSend) {
          made.kind = Kind::kSend;
          if (result.messages[made.operand].send_index >= 0) {
            return InstructionError(program, rank, i,
                                    "the message a second time",
                                    "each message once");
          }
          result.messages[made.operand].send_index = i;
          result.links[result.link_of_lane[lane]].messages.push_back(
              made.operand);
        } else {
          made.kind = Kind::kRecv;
          result.messages[made.operand].recv_index = i;
        }
        break;
      }
      case InstructionKind::kClipGradients:
        made.kind = Kind::kClip;
        break;
      default:
        made.operand = result.CostIndex(rank, instruction);
    }
    out.push_back(made);
  }
  return absl::OkStatus();
}

// Most links send their messages by number.
void ShortenLinks(SimulatedProgram& result) {
  for (SimulatedProgram::Link& link : result.links) {
    bool in_order = true;
    for (size_t k = 0; k < link.messages.size() && in_order; ++k) {
      in_order =
          link.messages[k] == link.messages.front() + static_cast<int32_t>(k);
    }
    if (!in_order || link.messages.empty()) continue;
    link.first = link.messages.front();
    link.messages = {};
  }
}

}  // namespace

absl::StatusOr<SimulatedProgram> LayOut(const Program& program) {
  SimulatedProgram result;
  result.program = &program;
  std::vector<int32_t> chunks(program.ranks.size(), 0);
  for (const StageLocation& at : program.stages) ++chunks[at.rank];
  result.first_chunk.push_back(0);
  for (const int32_t count : chunks) {
    result.first_chunk.push_back(result.first_chunk.back() + count);
  }
  result.buckets.resize(program.stages.size());
  for (size_t stage = 0; stage < program.stages.size(); ++stage) {
    const auto& [rank, chunk] = program.stages[stage];
    result.buckets[result.first_chunk[rank] + chunk] = program.buckets[stage];
  }
  if (program.offload.has_value()) {
    std::vector<int32_t> units(program.stages.size());
    for (size_t stage = 0; stage < program.stages.size(); ++stage) {
      const auto& [rank, chunk] = program.stages[stage];
      units[result.first_chunk[rank] + chunk] = program.offload->units[stage];
    }
    result.first_unit.push_back(0);
    for (const int32_t count : units) {
      result.first_unit.push_back(result.first_unit.back() + count);
    }
  }
  AddLinks(program, result);
  result.lists.reserve(program.ranks.size());
  for (int32_t rank = 0; rank < program.num_ranks(); ++rank) {
    RETURN_IF_ERROR(AddList(program, rank, result));
  }
  ShortenLinks(result);
  return result;
}

}  // namespace trireme
