// The loss curve of a run as a picture.

#ifndef TRIREME_TRAINER_REPORT_PLOT_LOSS_H_
#define TRIREME_TRAINER_REPORT_PLOT_LOSS_H_

#include <string>

#include "absl/status/status.h"

namespace trireme {

// Reads a run's metrics and writes a PNG: the loss of every step, pale, and its
// moving average. Errors: no metrics, fewer than two steps.
absl::Status PlotLoss(const std::string& run, const std::string& out);

}  // namespace trireme

#endif  // TRIREME_TRAINER_REPORT_PLOT_LOSS_H_
