#include "scheduler/simulator/cost_model.h"

#include <cmath>
#include <string_view>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "scheduler/program/instruction_kinds.h"

namespace trireme {
namespace {

absl::Status CheckSeconds(std::string_view name, double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return InvalidArgument(
      "cost model: {}: found {}, expected a finite figure of at least 0", name,
      value);
}

}  // namespace

absl::Status CheckCost(const Program& program, const CostModel& cost) {
  const size_t ranks = program.ranks.size();
  if (cost.chunks.size() != ranks) {
    return InvalidArgument("cost model: found {} ranks, expected {}",
                           cost.chunks.size(), ranks);
  }
  if (!cost.links.empty() && cost.links.size() != ranks * ranks) {
    return InvalidArgument("cost model: found {} links, expected none or {}",
                           cost.links.size(), ranks * ranks);
  }
  std::vector<size_t> chunks_on(ranks, 0);
  for (const StageLocation& at : program.stages) ++chunks_on[at.rank];
  for (size_t stage = 0; stage < program.stages.size(); ++stage) {
    const auto [rank, chunk] = program.stages[stage];
    const size_t expected = program.UnitsOf(static_cast<int32_t>(stage));
    if (cost.chunks[rank].size() <= static_cast<size_t>(chunk)) continue;
    const size_t found = cost.chunks[rank][chunk].units.size();
    if (found == expected) continue;
    return InvalidArgument(
        "cost model of rank {} chunk {}: found {} units, expected {}", rank,
        chunk, found, expected);
  }
  for (size_t rank = 0; rank < ranks; ++rank) {
    if (cost.chunks[rank].size() != chunks_on[rank]) {
      return InvalidArgument(
          "cost model of rank {}: found {} chunks, expected {}", rank,
          cost.chunks[rank].size(), chunks_on[rank]);
    }
    for (const ChunkCost& chunk : cost.chunks[rank]) {
      for (const KindTraits& kind : kKindTraits) {
        if (kind.chunk_s != nullptr) {
          RETURN_IF_ERROR(
              CheckSeconds(fmt::format("{} of rank {}", kind.name, rank),
                           chunk.*kind.chunk_s));
        }
        if (kind.unit_s == nullptr) continue;
        for (const UnitCost& unit : chunk.units) {
          RETURN_IF_ERROR(CheckSeconds(
              fmt::format("{} of a unit of rank {}", kind.name, rank),
              unit.*kind.unit_s));
        }
      }
      for (const auto* channels :
           {&chunk.reduce_channels, &chunk.gather_channels}) {
        for (const ChannelTime& channel : *channels) {
          RETURN_IF_ERROR(CheckSeconds("channel's busy_s", channel.busy_s));
          if (channel.number >= 0) continue;
          return InvalidArgument(
              "cost model of rank {}: found a collective's channel {}, "
              "expected "
              "at least 0",
              rank, channel.number);
        }
      }
      if (chunk.message_bytes < 0) {
        return InvalidArgument(
            "cost model of rank {}: found message_bytes {}, expected at least "
            "0",
            rank, chunk.message_bytes);
      }
    }
  }
  RETURN_IF_ERROR(CheckSeconds("clip_s", cost.clip_s));
  for (const double factor :
       {cost.compute_beside_communication, cost.compute_beside_copies}) {
    if (factor >= 1 && std::isfinite(factor)) continue;
    return InvalidArgument(
        "cost model: found a slowdown of {}, expected at least 1", factor);
  }
  if (cost.processors < 0) {
    return InvalidArgument(
        "cost model: found {} processors, expected at least 0",
        cost.processors);
  }
  auto check_link = [](const LinkCost& link) {
    if (!(link.bytes_per_s > 0)) {
      return InvalidArgument(
          "cost model: found bytes_per_s {}, expected above 0",
          link.bytes_per_s);
    }
    for (const Channel& channel : link.channels) {
      RETURN_IF_ERROR(CheckSeconds("channel's s_per_byte", channel.s_per_byte));
    }
    return CheckSeconds("latency_s", link.latency_s);
  };
  for (const LinkCost& link : cost.links) RETURN_IF_ERROR(check_link(link));
  return check_link(cost.default_link);
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
