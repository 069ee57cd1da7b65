#include "trainer/offload_meter.h"

#include <algorithm>
#include <utility>

namespace trireme {

OffloadFigures OffloadMeter::Totals() const {
  const CopyTimes copies = model_.copy_times();
  const CopiedBytes copied = model_.copied_bytes();
  OffloadFigures now = {.waited_in_s = copies.waited_for_arrivals,
                        .waited_out_s = copies.waited_for_departures,
                        .in_s = copies.to_device,
                        .in_bytes = static_cast<double>(copied.to_device),
                        .out_s = copies.to_home,
                        .out_bytes = static_cast<double>(copied.to_home)};
  if (const StateStreamer* const streamer = model_.streamer()) {
    now.waited_drive_s = streamer->waited_s();
    now.read_s = streamer->read_s();
    now.read_bytes = static_cast<double>(model_.drive()->read_bytes());
    now.write_s = streamer->write_s();
    now.written_bytes = static_cast<double>(model_.drive()->written_bytes());
  }
  return now;
}

OffloadFigures OffloadMeter::Take(const StepTimes& times, double step_s,
                                  double compute_s) {
  const OffloadFigures now = Totals();
  OffloadFigures step = now - before_;
  before_ = now;
  step.steps = 1;
  step.step_s = step_s;
  step.compute_s = compute_s;
  step.update_bytes = static_cast<double>(times.update_bytes);
  const double waited_for_drive = std::exchange(step.waited_drive_s, 0);
  // What stays on the device is not updated at the rate of the host's memory.
  if (times.update_bytes == 0 || times.update <= 0) return step;
  step.update_s = std::max(0.0, times.update - waited_for_drive);
  // As much of either hides behind the forward.
  step.waited_updates_s = times.update_wait * step.update_s / times.update;
  step.waited_drive_s = times.update_wait - step.waited_updates_s;
  return step;
}

}  // namespace trireme
