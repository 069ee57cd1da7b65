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

// Processes are shown in the order of their numbers, tracks in that of their
// first event.
class TraceWriter {
 public:
  explicit TraceWriter(std::ostream& out) : out_(out) {
    out_ << "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
  }

  void Add(const TraceEvent& event, int64_t process, const std::string& name) {
    const auto [of_process, new_process] = tracks_.try_emplace(process);
    if (new_process) {
      WriteMetadata("process_name", process, 0, name);
      Next() << fmt::format(
          R"({{"ph":"M","name":"process_sort_index","pid":{0},"tid":0,)"
          R"("args":{{"sort_index":{0}}}}})",
          process);
    }
    const auto [track, new_track] = of_process->second.try_emplace(
        event.track, static_cast<int32_t>(of_process->second.size()));
    if (new_track) {
      WriteMetadata("thread_name", process, track->second, event.track);
    }
    Next() << fmt::format(
        R"({{"ph":"X","name":{},"cat":{},"pid":{},"tid":{},"ts":{},"dur":{})",
        Quoted(event.name), Quoted(event.category), process, track->second,
        Microseconds(event.start_ns), Microseconds(event.duration_ns));
    if (!event.args.empty()) {
      std::string_view comma;
      out_ << ",\"args\":{";
      for (const auto& [key, value] : event.args) {
        out_ << comma << Quoted(key) << ':' << Quoted(value);
        comma = ",";
      }
      out_ << '}';
    }
    out_ << '}';
  }

  void Finish() { out_ << "\n]}\n"; }

 private:
  std::ostream& Next() {
    out_ << separator_;
    separator_ = ",\n";
    return out_;
  }
  void WriteMetadata(std::string_view kind, int64_t process, int32_t track,
                     const std::string& name) {
    Next() << fmt::format(
        R"({{"ph":"M","name":"{}","pid":{},"tid":{},"args":{{"name":{}}}}})",
        kind, process, track, Quoted(name));
  }

  std::ostream& out_;
  std::string_view separator_ = "\n";
  std::map<int64_t, std::map<std::string, int32_t>> tracks_;
};

}  // namespace

void WriteChromeTrace(const std::vector<TraceEvent>& events,
                      std::ostream& out) {
  TraceWriter writer(out);
  for (const TraceEvent& event : events) {
    writer.Add(event, event.rank, fmt::format("rank {}", event.rank));
  }
  writer.Finish();
}

void WriteChromeTrace(const Timelines& timelines, std::ostream& out) {
  TraceWriter writer(out);
  for (const TraceEvent& event : timelines.measured) {
    writer.Add(event, int64_t{2} * event.rank,
               fmt::format("rank {}, measured", event.rank));
  }
  for (const TraceEvent& event : timelines.predicted) {
    writer.Add(event, int64_t{2} * event.rank + 1,
               fmt::format("rank {}, predicted", event.rank));
  }
  writer.Finish();
}

absl::Status WriteChromeTraceFile(const std::vector<TraceEvent>& events,
                                  const std::string& path) {
  std::ostringstream text;
  WriteChromeTrace(events, text);
  return WriteFileAtomically(path, text.str());
}

absl::Status WriteChromeTraceFile(const Timelines& timelines,
                                  const std::string& path) {
  std::ostringstream text;
  WriteChromeTrace(timelines, text);
  return WriteFileAtomically(path, text.str());
}

}  // namespace trireme
