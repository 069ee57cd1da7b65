#include "trainer/metrics/offload_meter.h"

#include <algorithm>
#include <utility>

#include "offload/unit_window.h"
#include "parallel/optimizer/state_streamer.h"
#include "runtime/device/nvme/nvme_device.h"

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
    now.write_s = streamer->write_s();
  }
  if (const UnitWindow* const window = model_.window()) {
    now.read_s += window->read_s();
    now.write_s += window->write_s();
  }
  if (const NvmeDevice* const drive = model_.drive()) {
    now.read_bytes = static_cast<double>(drive->read_bytes());
    now.written_bytes = static_cast<double>(drive->written_bytes());
  }
  return now;
}

void OffloadMeter::Forget() {
  before_ = Totals();
  copies_waited_for_drive_s_ = model_.copy_times().waited_for_drive;
}

OffloadFigures OffloadMeter::Take(const StepTimes& times, double step_s,
                                  double compute_s) {
  const OffloadFigures now = Totals();
  OffloadFigures step = now - before_;
  const double copies_waited =
      model_.copy_times().waited_for_drive - copies_waited_for_drive_s_;
  Forget();
  step.steps = 1;
  step.step_s = step_s;
  step.compute_s = compute_s;
  step.update_bytes = static_cast<double>(times.update_bytes);
  const double waited_for_drive = std::exchange(step.waited_drive_s, 0);
  // Of what computation waited for copies, what these waited for the drive.
  const double of_copies = std::min(step.waited_in_s, copies_waited);
  step.waited_in_s -= of_copies;
  step.waited_drive_s = of_copies;
  // What stays on the device is not updated at the rate of the host's memory.
  if (times.update_bytes == 0 || times.update <= 0) return step;
  step.update_s = std::max(0.0, times.update - waited_for_drive);
  // As much of either hides behind the forward.
  step.waited_updates_s = times.update_wait * step.update_s / times.update;
  step.waited_drive_s += times.update_wait - step.waited_updates_s;
  return step;
}

}  // namespace trireme
