#include "scheduler/trace.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <string_view>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/status.h"

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

absl::Status FileError(std::string_view what, const std::string& path) {
  return Unavailable("{}: {}: {}", path, what, std::strerror(errno));
}

absl::Status Sync(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return FileError("cannot be opened to sync", path);
  const bool synced = fsync(file) == 0;
  const absl::Status status =
      synced ? absl::OkStatus() : FileError("cannot be synced", path);
  close(file);
  return status;
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
  const std::string beside = fmt::format("{}.{}.tmp", path, getpid());
  absl::Status status;
  {
    std::ofstream out(beside, std::ios::binary | std::ios::trunc);
    if (!out) return FileError("cannot be written", beside);
    WriteChromeTrace(events, out);
    out.close();
    if (!out) status = FileError("cannot be written", beside);
  }
  if (status.ok()) status = Sync(beside);
  if (status.ok() && std::rename(beside.c_str(), path.c_str()) != 0) {
    status = FileError("cannot be renamed into place", path);
  }
  if (!status.ok()) unlink(beside.c_str());
  return status;
}

}  // namespace trireme
