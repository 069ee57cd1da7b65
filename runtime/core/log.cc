#include "runtime/core/log.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "absl/debugging/stacktrace.h"
#include "absl/debugging/symbolize.h"
#include "fmt/format.h"

namespace trireme {
namespace {

// Every launcher that Trireme runs under names the rank in the environment;
// read here, a line carries its rank even before MPI is initialised.
std::string RankPrefix() {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK"}) {
    if (const char* rank = std::getenv(variable)) {
      return fmt::format("[rank {}] ", rank);
    }
  }
  return "";
}

std::string StackTraceText() {
  void* frames[32];
  const int count = absl::GetStackTrace(frames, 32, /*skip_count=*/2);
  std::string text;
  for (int i = 0; i < count; ++i) {
    char symbol[512];
    const bool known = absl::Symbolize(frames[i], symbol, sizeof(symbol));
    text += fmt::format("    @ {} {}\n", fmt::ptr(frames[i]),
                        known ? symbol : "(unknown)");
  }
  return text;
}

}  // namespace

LogMessage::LogMessage(const char* file, int line, LogSeverity severity)
    : file_(file), line_(line), severity_(severity) {}

LogMessage::~LogMessage() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const int milliseconds =
      static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(
                           now.time_since_epoch())
                           .count() %
                       1000);
  std::tm local{};
  localtime_r(&seconds, &local);
  const char* slash = std::strrchr(file_, '/');
  std::string line =
      fmt::format("{} {:02d}:{:02d}:{:02d}.{:03d} {}{}:{}] {}\n",
                  "IWEF"[static_cast<int>(severity_)], local.tm_hour,
                  local.tm_min, local.tm_sec, milliseconds, RankPrefix(),
                  slash ? slash + 1 : file_, line_, stream_.str());
  if (severity_ == LogSeverity::FATAL) line += StackTraceText();
  const ssize_t ignored = write(STDERR_FILENO, line.data(), line.size());
  (void)ignored;
  if (severity_ == LogSeverity::FATAL) std::abort();
}

}  // namespace trireme
