// What keeping weights in fewer bits has changed of them, for a person.

#ifndef TRIREME_TRAINER_CHECKPOINTS_QUANTIZATION_REPORT_H_
#define TRIREME_TRAINER_CHECKPOINTS_QUANTIZATION_REPORT_H_

#include <map>
#include <string>

#include "runtime/comm/control.h"
#include "runtime/ops/quantization.h"

namespace trireme {

// A line for each weight, of all ranks' parts together: the norm of what
// changed over the weight's. Empty where nothing is quantised. `own`: of this
// rank's parts, by name. Collective.
std::string DescribeQuantization(
    Control& control, const std::map<std::string, QuantizationError>& own);

}  // namespace trireme

#endif  // TRIREME_TRAINER_CHECKPOINTS_QUANTIZATION_REPORT_H_
