#include "tools/launch_log.h"

#include <cstdio>

#include "fmt/format.h"
#include "runtime/telemetry/event_log.h"

namespace trireme {

void LaunchLog::Say(const std::string& text) const {
  fmt::print(stderr, "trireme launch: {}\n", text);
  AddEvent(path_, text);
}

}  // namespace trireme
