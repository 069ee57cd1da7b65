#include "runtime/telemetry/event_log.h"

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "fmt/format.h"
#include "runtime/telemetry/appending_file.h"

namespace trireme {

void AddEvent(const std::string& path, std::string_view text) {
  const auto file = AppendingFile::Open(path);
  if (!file.ok()) return;
  (*file)->Add(fmt::format("{} {}\n",
                           absl::FormatTime("%Y-%m-%d %H:%M:%S UTC",
                                            absl::Now(), absl::UTCTimeZone()),
                           text));
}

}  // namespace trireme
