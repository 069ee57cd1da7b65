// Where a step of a plan with offload waited, how fast its links, its optimizer
// and its drive were, and what of the job or the plan would help.

#ifndef TRIREME_TRAINER_METRICS_OFFLOAD_FIGURES_H_
#define TRIREME_TRAINER_METRICS_OFFLOAD_FIGURES_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "scheduler/plan/plan.pb.h"

namespace trireme {

// Sums over ranks, of one step or of several.
struct OffloadFigures {
  double steps = 0;  // of a rank
  double step_s = 0;
  double compute_s = 0;
  // For which computation waited: for copies to the device, and for those from
  // it; for updates on the host; without what these, and copies to the device,
  // waited for the drive, which is the last.
  double waited_in_s = 0;
  double waited_out_s = 0;
  double waited_updates_s = 0;
  double waited_drive_s = 0;
  // What was at work so long, and moved so much.
  double in_s = 0;
  double in_bytes = 0;
  double out_s = 0;
  double out_bytes = 0;
  double update_s = 0;
  double update_bytes = 0;
  double read_s = 0;
  double read_bytes = 0;
  double write_s = 0;
  double written_bytes = 0;

  // All of it one after the other, for reductions over ranks.
  static constexpr int kNumbers = 17;
  std::array<double, kNumbers> ToNumbers() const;
  static OffloadFigures FromNumbers(std::span<const double> numbers);

  OffloadFigures& operator+=(const OffloadFigures& other);
  friend OffloadFigures operator-(const OffloadFigures& a,
                                  const OffloadFigures& b);
};

// {"waited_s": {"copies_in": .., "copies_out": .., "updates": .., "drive": ..},
//  "link_in_bytes_per_s": .., "link_in_use": .., "link_out_bytes_per_s": ..,
//  "link_out_use": .., "update_bytes_per_s": .., "drive_read_bytes_per_s": ..,
//  "drive_write_bytes_per_s": ..}: a step's seconds and uses are means over
// ranks, a use is the share of the step in which the link was at work, rates
// are those while it was. What did not happen is left out.
nlohmann::ordered_json ToJson(const OffloadFigures& figures);
// By the same names, for TensorBoard.
std::vector<std::pair<std::string, double>> ToScalars(
    const OffloadFigures& figures);
// "waited in 0.12 out 0.01 updates 0.3 drive 0.05 s; link 24 GB/s (81 %), ...".
std::string OffloadLine(const OffloadFigures& figures);

// What takes the most of the steps that figures are of, beside computing, and
// what would make it less.
std::string Suggestion(const OffloadFigures& figures, const Plan& plan);

// Suggestions of a run: one at the end of each interval, if it says something
// else than the last.
class OffloadAdvice {
 public:
  // `every`: steps of an interval.
  OffloadAdvice(Plan plan, int64_t every)
      : plan_(std::move(plan)), every_(every) {}
  std::optional<std::string> AfterStep(int64_t step,
                                       const OffloadFigures& figures);

 private:
  const Plan plan_;
  const int64_t every_;
  OffloadFigures since_;
  std::string last_;  // without its numbers
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_METRICS_OFFLOAD_FIGURES_H_
