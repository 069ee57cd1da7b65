#include "scheduler/simulator/slowdown.h"

#include <algorithm>

namespace trireme {
namespace {

bool IsCollective(const Instruction& instruction) {
  return instruction.resource == Resource::kCommunication &&
         instruction.kind != InstructionKind::kSend &&
         instruction.kind != InstructionKind::kRecv;
}

bool IsCopy(const Instruction& instruction) {
  return instruction.resource == Resource::kCopyIn ||
         instruction.resource == Resource::kCopyOut;
}

bool IsCompute(const Instruction& instruction) {
  return instruction.resource == Resource::kCompute;
}

// When any of those that `counts` runs, in order and apart from one another.
template <typename Predicate>
std::vector<Interval> Busy(const std::vector<Instruction>& list,
                           const std::vector<Interval>& times,
                           Predicate counts) {
  std::vector<Interval> busy;
  for (size_t i = 0; i < list.size(); ++i) {
    if (counts(list[i]) && times[i].end_s > times[i].start_s) {
      busy.push_back(times[i]);
    }
  }
  std::sort(busy.begin(), busy.end(), [](const Interval& a, const Interval& b) {
    return a.start_s < b.start_s;
  });
  std::vector<Interval> apart;
  for (const Interval& next : busy) {
    if (!apart.empty() && next.start_s <= apart.back().end_s) {
      apart.back().end_s = std::max(apart.back().end_s, next.end_s);
    } else {
      apart.push_back(next);
    }
  }
  return apart;
}

double SecondsTogether(const std::vector<Interval>& a,
                       const std::vector<Interval>& b) {
  double together = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    together += std::max(0.0, std::min(a[i].end_s, b[j].end_s) -
                                  std::max(a[i].start_s, b[j].start_s));
    a[i].end_s < b[j].end_s ? ++i : ++j;
  }
  return together;
}

}  // namespace

double SlowedSeconds(const std::vector<Instruction>& list,
                     const std::vector<Interval>& times,
                     const CostModel& cost) {
  const double by_collectives = cost.compute_beside_communication - 1;
  const double by_copies = cost.compute_beside_copies - 1;
  if (by_collectives <= 0 && by_copies <= 0) return 0;
  const std::vector<Interval> compute = Busy(list, times, IsCompute);
  return by_collectives *
             SecondsTogether(compute, Busy(list, times, IsCollective)) +
         by_copies * SecondsTogether(compute, Busy(list, times, IsCopy));
}

}  // namespace trireme
