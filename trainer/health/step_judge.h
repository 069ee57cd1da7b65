// Which steps go wrong, and what a run does about them (HealthConfig).

#ifndef TRIREME_TRAINER_HEALTH_STEP_JUDGE_H_
#define TRIREME_TRAINER_HEALTH_STEP_JUDGE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "trainer/job/job.pb.h"

namespace trireme {

// All ranks give it the same, and so come to the same verdicts.
class StepJudge {
 public:
  // The losses that a spike is measured against, and the fewest that say
  // something.
  static constexpr size_t kMostLosses = 64;
  static constexpr size_t kFewestLosses = 16;
  static constexpr int kMostLeftOutInARow = 8;
  static constexpr int kMostRollBacks = 3;

  enum class Verdict { kSound, kLeaveOut, kRollBack, kStop };

  // `overflow_is_usual`: a gradient that is not finite is the loss scaler's to
  // deal with.
  StepJudge(const HealthConfig& config, bool overflow_is_usual)
      : config_(config), overflow_is_usual_(overflow_is_usual) {}

  // The losses of the last sound steps, oldest first, as at a resume.
  void Remember(std::vector<double> losses);

  // What is wrong with the step; OK if it is sound.
  absl::Status Check(int64_t step, double loss, double gradient_norm) const;
  // To be called after each step: what becomes of it, by what Check said.
  // Policies end in kStop where they do not help: after kMostLeftOutInARow, or
  // kMostRollBacks that did not lead past the step.
  Verdict Decide(int64_t step, double loss, const absl::Status& trouble);

 private:
  const HealthConfig config_;
  const bool overflow_is_usual_;
  std::vector<double> losses_;
  int left_out_in_a_row_ = 0;
  int roll_backs_ = 0;
  int64_t furthest_trouble_ = 0;  // its step
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_HEALTH_STEP_JUDGE_H_
