// What happens to a run, a line each with the time, for people.

#ifndef TRIREME_RUNTIME_TELEMETRY_EVENT_LOG_H_
#define TRIREME_RUNTIME_TELEMETRY_EVENT_LOG_H_

#include <string>
#include <string_view>

namespace trireme {

// Adds a line to a file, which is made if its folder is there. A line that
// cannot be kept is lost: whoever calls tells it elsewhere too.
void AddEvent(const std::string& path, std::string_view text);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_TELEMETRY_EVENT_LOG_H_
