// What a run whose optimizer's states or blocks lie on a drive says of it: what
// is there, what each step reads and writes, and how long the drive lasts.

#ifndef TRIREME_TRAINER_METRICS_DRIVE_WEAR_H_
#define TRIREME_TRAINER_METRICS_DRIVE_WEAR_H_

#include <cstdint>
#include <string>

#include "offload/unit_window.h"
#include "trainer/rank/rank_model.h"

namespace trireme {

class DriveWear {
 public:
  // Collective over the world. The model, whose plan has a drive, outlives it.
  explicit DriveWear(RankModel& model);

  // Lines for people, of rank 0's machine. `step_s`: a step's seconds.
  std::string AtStart() const;
  std::string AtEnd(double step_s) const;

 private:
  RankModel& model_;
  int ranks_ = 0;                 // of the machine, which share its drive
  DriveBytes step_;               // that they move in a step
  const double endurance_bytes_;  // 0: unknown
  const int64_t written_before_;  // by this rank
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_METRICS_DRIVE_WEAR_H_
