#include "trainer/report/plot_loss.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "fmt/format.h"
#include "models/image/encode.h"
#include "models/image/line_plot.h"
#include "runtime/core/status.h"
#include "runtime/telemetry/metrics_log.h"
#include "trainer/run/run_folder.h"

namespace trireme {

absl::Status PlotLoss(const std::string& run, const std::string& out) {
  ASSIGN_OR_RETURN(const auto entries,
                   ReadMetrics(RunFolder(run).metrics(), {"loss"}));
  LineSeries every{.name = "each step", .width = 1.0, .opacity = 0.3};
  for (const nlohmann::json& entry : entries) {
    if (!entry.contains("loss") || !entry["loss"].is_number()) continue;
    every.x.push_back(entry["step"].get<double>());
    every.y.push_back(entry["loss"].get<double>());
  }
  if (every.x.size() < 2) {
    return FailedPrecondition("{}: found {} steps, expected at least 2", run,
                              every.x.size());
  }
  const int window = std::max(1, static_cast<int>(every.x.size() / 40));
  LineSeries average = every;
  average.name = fmt::format("mean of {} steps", window);
  average.y = MovingAverage(every.y, window);
  average.width = 2.5;
  average.opacity = 1.0;
  ASSIGN_OR_RETURN(
      const Image plot,
      DrawLinePlot({every, average},
                   {.title = "Training loss, " +
                             std::filesystem::path(run).filename().string(),
                    .x_label = "step",
                    .y_label = "mean squared error of the velocity"}));
  return WritePng(out, plot);
}

}  // namespace trireme
