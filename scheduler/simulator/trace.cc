#include "scheduler/simulator/trace.h"

#include <map>
#include <sstream>
#include <string_view>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"

namespace trireme {
namespace {

std::string Quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false,
                                   nlohmann::json::error_handler_t::replace);
}

// Chrome's times are microseconds; written exactly.
std::string Microseconds(int64_t ns) {
  const bool negative = ns < 0;
  const uint64_t size = negative ? -static_cast<uint64_t>(ns) : ns;
  return fmt::format("{}{}.{:03}", negative ? "-" : "", size / 1000,
                     size % 1000);
}

void WriteMetadata(std::string_view kind, int32_t rank, int32_t track,
                   const std::string& name, std::ostream& out) {
  out << fmt::format(
      R"({{"ph":"M","name":"{}","pid":{},"tid":{},"args":{{"name":{}}}}})",
      kind, rank, track, Quoted(name));
}

}  // namespace

void WriteChromeTrace(const std::vector<TraceEvent>& events,
                      std::ostream& out) {
  // Tracks are numbered within their rank in the order of their first event.
  std::map<int32_t, std::map<std::string, int32_t>> tracks;
  out << "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
  std::string_view separator = "\n";
  auto next = [&] {
    out << separator;
    separator = ",\n";
  };
  for (const TraceEvent& event : events) {
    const auto [of_rank, new_rank] = tracks.try_emplace(event.rank);
    if (new_rank) {
      next();
      WriteMetadata("process_name", event.rank, 0,
                    fmt::format("rank {}", event.rank), out);
    }
    const auto [track, new_track] = of_rank->second.try_emplace(
        event.track, static_cast<int32_t>(of_rank->second.size()));
    if (new_track) {
      next();
      WriteMetadata("thread_name", event.rank, track->second, event.track, out);
    }
    next();
    out << fmt::format(
        R"({{"ph":"X","name":{},"cat":{},"pid":{},"tid":{},"ts":{},"dur":{})",
        Quoted(event.name), Quoted(event.category), event.rank, track->second,
        Microseconds(event.start_ns), Microseconds(event.duration_ns));
    if (!event.args.empty()) {
      std::string_view comma;
      out << ",\"args\":{";
      for (const auto& [name, value] : event.args) {
        out << comma << Quoted(name) << ':' << Quoted(value);
        comma = ",";
      }
      out << '}';
    }
    out << '}';
  }
  out << "\n]}\n";
}

absl::Status WriteChromeTraceFile(const std::vector<TraceEvent>& events,
                                  const std::string& path) {
  std::ostringstream text;
  WriteChromeTrace(events, text);
  return WriteFileAtomically(path, text.str());
}

}  // namespace trireme
