// How the elements of each parameter are distributed, over all ranks.

#ifndef TRIREME_TRAINER_EVALUATION_PARAMETER_HISTOGRAMS_H_
#define TRIREME_TRAINER_EVALUATION_PARAMETER_HISTOGRAMS_H_

#include <map>
#include <string>
#include <vector>

#include "runtime/telemetry/tensorboard.h"
#include "trainer/rank/rank_model.h"

namespace trireme {

// By name, of parameters that train, as their masters are; each logical element
// counts once. Empty where parameters lie on a drive, which would be read for
// it. Collective; rank 0's, empty elsewhere.
std::map<std::string, std::vector<HistogramBin>> ParameterHistograms(
    RankModel& model);

}  // namespace trireme

#endif  // TRIREME_TRAINER_EVALUATION_PARAMETER_HISTOGRAMS_H_
