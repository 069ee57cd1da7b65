// A line plot with axes, numbered ticks, grid lines and a legend, such as a
// loss curve. Pure functions; any thread.

#ifndef TRIREME_MODELS_IMAGE_LINE_PLOT_H_
#define TRIREME_MODELS_IMAGE_LINE_PLOT_H_

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/image/image.h"

namespace trireme {

struct LineSeries {
  std::string name;  // in the legend; empty = not listed
  std::vector<double> x;
  std::vector<double> y;
  // Lines of the same color number share their color, as a curve and its
  // average do.
  int color = 0;
  double width = 2.5;    // pixels
  double opacity = 1.0;  // in [0, 1]
};

struct LinePlotOptions {
  std::string title;
  std::string x_label;
  std::string y_label;
  int width = 1200;
  int height = 640;
  // Logarithmic y axis; values that are not positive are left out.
  bool log_y = false;
};

// An RGB picture. Points beyond 1e300 or not numbers are left out and interrupt
// their line. Errors: x and y of different lengths, no finite point, a size
// below 320x200 or above 8192x8192.
absl::StatusOr<Image> DrawLinePlot(const std::vector<LineSeries>& series,
                                   const LinePlotOptions& options = {});

// The mean of the `window` values about each position (fewer at both ends):
// what is drawn over a noisy curve. One of the past alone would lie beside a
// curve that falls.
std::vector<double> MovingAverage(std::span<const double> values, int window);

}  // namespace trireme

#endif  // TRIREME_MODELS_IMAGE_LINE_PLOT_H_
