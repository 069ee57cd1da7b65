#include "trainer/run/timelines.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <string>

#include "nlohmann/json.hpp"
#include "runtime/core/log.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

std::string Encode(std::span<const TraceEvent> events, int pipeline_rank) {
  int64_t begin = std::numeric_limits<int64_t>::max();
  for (const TraceEvent& event : events)
    begin = std::min(begin, event.start_ns);
  Json list = Json::array();
  for (const TraceEvent& event : events) {
    list.push_back({event.name, event.category, pipeline_rank, event.track,
                    event.start_ns - begin, event.duration_ns});
  }
  return list.dump(-1, ' ', /*ensure_ascii=*/false,
                   Json::error_handler_t::replace);
}

void Decode(const std::string& text, std::vector<TraceEvent>& events) {
  const Json list = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  CHECK(list.is_array()) << text;
  for (const Json& event : list) {
    events.push_back({.name = event[0],
                      .category = event[1],
                      .rank = event[2],
                      .track = event[3],
                      .start_ns = event[4],
                      .duration_ns = event[5],
                      .args = {}});
  }
}

}  // namespace

std::vector<TraceEvent> GatherTrace(const ProcessGrid& grid, Control& control,
                                    std::span<const TraceEvent> own) {
  const std::array others = {Axis::kTensor, Axis::kContext, Axis::kData};
  const bool first = std::all_of(others.begin(), others.end(), [&](Axis axis) {
    return grid.coordinate(axis) == 0;
  });
  std::vector<TraceEvent> events;
  for (const std::string& text : control.Gather(
           first ? Encode(own, grid.coordinate(Axis::kPipeline)) : "[]",
           "trace")) {
    Decode(text, events);
  }
  return events;
}

}  // namespace trireme
