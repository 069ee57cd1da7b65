#include "tools/launch_log.h"

#include <cstdio>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "fmt/format.h"
#include "runtime/telemetry/appending_file.h"

namespace trireme {

void LaunchLog::Say(const std::string& text) const {
  fmt::print(stderr, "trireme launch: {}\n", text);
  // A line that cannot be kept was told all the same.
  const auto file = AppendingFile::Open(path_);
  if (!file.ok()) return;
  (*file)->Add(fmt::format("{} {}\n",
                           absl::FormatTime("%Y-%m-%d %H:%M:%S UTC",
                                            absl::Now(), absl::UTCTimeZone()),
                           text));
}

}  // namespace trireme
