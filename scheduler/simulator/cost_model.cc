#include "scheduler/simulator/cost_model.h"

#include <cmath>
#include <string_view>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/program/instruction_kinds.h"

namespace trireme {
namespace {

// What is wrong is put into words only where something is: searches simulate
// thousands of Programs.
template <typename Found>
absl::Status Refusal(std::string_view what, const Found& found,
                     std::string_view expected) {
  return InvalidArgument("cost model: {}: found {}, expected {}", what, found,
                         expected);
}

bool MakesSense(double figure) { return std::isfinite(figure) && figure >= 0; }
constexpr std::string_view kSense = "a finite figure of at least 0";

// The seconds of a chunk's or a unit's instructions.
template <typename Costs>
absl::Status CheckKinds(size_t rank, const Costs& costs,
                        double Costs::*KindTraits::*seconds) {
  for (const KindTraits& kind : kKindTraits) {
    const auto member = kind.*seconds;
    if (member == nullptr || MakesSense(costs.*member)) continue;
    return Refusal(fmt::format("{} of rank {}", kind.name, rank), costs.*member,
                   kSense);
  }
  return absl::OkStatus();
}

absl::Status CheckChunk(size_t rank, const ChunkCost& chunk) {
  RETURN_IF_ERROR(CheckKinds(rank, chunk, &KindTraits::chunk_s));
  for (const UnitCost& unit : chunk.units) {
    RETURN_IF_ERROR(CheckKinds(rank, unit, &KindTraits::unit_s));
  }
  for (const auto* channels :
       {&chunk.reduce_channels, &chunk.gather_channels}) {
    for (const ChannelTime& channel : *channels) {
      if (MakesSense(channel.busy_s) && channel.number >= 0) continue;
      return Refusal(fmt::format("channel {} of rank {}", channel.number, rank),
                     channel.busy_s,
                     "a number of at least 0, for a time of at least 0");
    }
  }
  if (chunk.message_bytes >= 0) return absl::OkStatus();
  return Refusal(fmt::format("message_bytes of rank {}", rank),
                 chunk.message_bytes, "at least 0");
}

absl::Status CheckLink(const LinkCost& link) {
  if (!(link.bytes_per_s > 0)) {
    return Refusal("bytes_per_s", link.bytes_per_s, "above 0");
  }
  for (const Channel& channel : link.channels) {
    if (MakesSense(channel.s_per_byte)) continue;
    return Refusal("channel's s_per_byte", channel.s_per_byte, kSense);
  }
  return MakesSense(link.latency_s)
             ? absl::OkStatus()
             : Refusal("latency_s", link.latency_s, kSense);
}

}  // namespace

absl::Status CheckCost(const Program& program, const CostModel& cost) {
  const size_t ranks = program.ranks.size();
  if (cost.chunks.size() != ranks) {
    return Refusal("ranks", cost.chunks.size(), fmt::format("{}", ranks));
  }
  if (!cost.links.empty() && cost.links.size() != ranks * ranks) {
    return Refusal("links", cost.links.size(),
                   fmt::format("none or {}", ranks * ranks));
  }
  std::vector<size_t> chunks_on(ranks, 0);
  for (const StageLocation& at : program.stages) ++chunks_on[at.rank];
  for (size_t rank = 0; rank < ranks; ++rank) {
    if (cost.chunks[rank].size() != chunks_on[rank]) {
      return Refusal(fmt::format("chunks of rank {}", rank),
                     cost.chunks[rank].size(),
                     fmt::format("{}", chunks_on[rank]));
    }
    for (const ChunkCost& chunk : cost.chunks[rank]) {
      RETURN_IF_ERROR(CheckChunk(rank, chunk));
    }
  }
  for (int32_t stage = 0; stage < program.num_stages(); ++stage) {
    const auto [rank, chunk] = program.stages[stage];
    const size_t found = cost.chunks[rank][chunk].units.size();
    if (found == static_cast<size_t>(program.UnitsOf(stage))) continue;
    return Refusal(fmt::format("units of rank {} chunk {}", rank, chunk), found,
                   fmt::format("{}", program.UnitsOf(stage)));
  }
  if (!MakesSense(cost.clip_s)) return Refusal("clip_s", cost.clip_s, kSense);
  for (const double factor :
       {cost.compute_beside_communication, cost.compute_beside_copies}) {
    if (factor >= 1 && std::isfinite(factor)) continue;
    return Refusal("slowdown", factor, "at least 1");
  }
  if (cost.processors < 0) {
    return Refusal("processors", cost.processors, "at least 0");
  }
  for (const LinkCost& link : cost.links) RETURN_IF_ERROR(CheckLink(link));
  return CheckLink(cost.default_link);
}

CostModel UniformCost(const Program& program, const ChunkCost& cost) {
  CostModel model;
  model.chunks.resize(program.ranks.size());
  for (const StageLocation& at : program.stages) {
    model.chunks[at.rank].push_back(cost);
  }
  return model;
}

}  // namespace trireme
