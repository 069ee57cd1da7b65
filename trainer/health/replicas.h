// Whether what several ranks hold alike still is alike.

#ifndef TRIREME_TRAINER_HEALTH_REPLICAS_H_
#define TRIREME_TRAINER_HEALTH_REPLICAS_H_

#include "absl/status/status.h"
#include "trainer/rank/rank_model.h"

namespace trireme {

// Compares the hashes of each tensor (weights as computed with, masters,
// moments, averages) between the ranks that hold the same part of it. They
// computed the same from the same and agree to the last bit: where one does
// not, memory, a link or arithmetic failed without a word. Error: DataLoss with
// the tensor and the ranks that differ from most; with two holders, both.
// Collective over the world; the same on every rank.
absl::Status CompareReplicas(RankModel& model);

}  // namespace trireme

#endif  // TRIREME_TRAINER_HEALTH_REPLICAS_H_
