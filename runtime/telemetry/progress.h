// What a person watches while a run goes on: a bar that redraws itself on a
// terminal, plain lines at intervals elsewhere.

#ifndef TRIREME_RUNTIME_TELEMETRY_PROGRESS_H_
#define TRIREME_RUNTIME_TELEMETRY_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

namespace trireme {

struct ProgressOptions {
  int64_t total = 0;
  // The first step of this run (above 1 after a resume).
  int64_t first = 1;
  // Steps between lines where there is no terminal.
  int64_t line_every = 10;
  std::FILE* out = stdout;
  // Absent: whether `out` is a terminal.
  std::optional<bool> terminal;
  // The terminal's width, at least 1. Absent: asked of `out` at each redraw.
  std::optional<int> columns;
};

class ProgressReporter {
 public:
  explicit ProgressReporter(const ProgressOptions& options);

  // Step `step` is done. `more`: behind the line.
  void Update(int64_t step, double loss, double samples_per_s,
              std::string_view more = {});
  // A line of its own.
  void Tell(std::string_view text);
  // Ends the bar's line.
  void Finish();

 private:
  std::string Line(int64_t step, double loss, double samples_per_s) const;
  // With the bar in front, as wide as the terminal leaves room for.
  std::string BarLine(int64_t step, const std::string& line) const;

  ProgressOptions options_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_drawn_;
};

// "1:02:03", "4:05".
std::string DurationText(double seconds);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_TELEMETRY_PROGRESS_H_
