#include "runtime/telemetry/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "fmt/format.h"

namespace trireme {
namespace {

constexpr int kWidestBar = 30;
constexpr int kNarrowestBar = 5;
constexpr int kBarFrame = 3;  // "[", "]" and a blank.
constexpr int kUsualColumns = 80;
// Redrawing more often than the eye sees would cost the training time.
constexpr std::chrono::milliseconds kRedraw(100);

int ColumnsOf(std::FILE* terminal) {
  struct winsize size {};
  return ioctl(fileno(terminal), TIOCGWINSZ, &size) == 0 && size.ws_col > 0
             ? size.ws_col
             : kUsualColumns;
}

}  // namespace

std::string DurationText(double seconds) {
  const auto whole = static_cast<int64_t>(std::max(0.0, seconds) + 0.5);
  const int64_t hours = whole / 3600;
  return hours > 0
             ? fmt::format("{}:{:02}:{:02}", hours, whole / 60 % 60, whole % 60)
             : fmt::format("{}:{:02}", whole / 60, whole % 60);
}

ProgressReporter::ProgressReporter(const ProgressOptions& options)
    : options_(options),
      terminal_(options.terminal.value_or(isatty(fileno(options.out)) == 1)),
      start_(std::chrono::steady_clock::now()),
      last_drawn_(start_ - kRedraw) {}

std::string ProgressReporter::Line(int64_t step, double loss,
                                   double samples_per_s) const {
  const double elapsed =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_)
          .count();
  const auto done = static_cast<double>(step - options_.first + 1);
  const double left =
      done > 0 ? elapsed / done * static_cast<double>(options_.total - step)
               : 0;
  return fmt::format("step {}/{}  loss {:.4f}  {:.1f} samples/s  {} left", step,
                     options_.total, loss, samples_per_s, DurationText(left));
}

std::string ProgressReporter::BarLine(int64_t step,
                                      const std::string& line) const {
  // A line that fills the terminal's last column would begin a new one.
  const int columns = options_.columns.value_or(ColumnsOf(options_.out)) - 1;
  const int room = columns - static_cast<int>(line.size()) - kBarFrame;
  if (room < kNarrowestBar) return line.substr(0, columns);
  const int width = std::min(room, kWidestBar);
  const int64_t total = std::max<int64_t>(options_.total, 1);
  const auto filled =
      static_cast<int>(width * std::clamp<int64_t>(step, 0, total) / total);
  return fmt::format("[{:=<{}}{:<{}}] {}", "", filled, "", width - filled,
                     line);
}

void ProgressReporter::Update(int64_t step, double loss, double samples_per_s,
                              std::string_view more) {
  const auto line = [&] {
    std::string text = Line(step, loss, samples_per_s);
    if (!more.empty()) text.append("  ").append(more);
    return text;
  };
  if (!terminal_) {
    if (step == options_.first || step == options_.total ||
        step % options_.line_every == 0) {
      fmt::print(options_.out, "{}\n", line());
      std::fflush(options_.out);
    }
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (now - last_drawn_ < kRedraw && step != options_.total) return;
  last_drawn_ = now;
  fmt::print(options_.out, "\r{}\033[K", BarLine(step, line()));
  std::fflush(options_.out);
}

void ProgressReporter::Tell(std::string_view text) {
  // Over the bar, which comes again below.
  fmt::print(options_.out, "{}{}{}\n", terminal_ ? "\r" : "", text,
             terminal_ ? "\033[K" : "");
  std::fflush(options_.out);
}

void ProgressReporter::Finish() {
  if (terminal_) fmt::print(options_.out, "\n");
  std::fflush(options_.out);
}

}  // namespace trireme
