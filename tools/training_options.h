// What `trireme train` and `trireme launch` take alike: launch hands it on to
// the ranks.

#ifndef TRIREME_TOOLS_TRAINING_OPTIONS_H_
#define TRIREME_TOOLS_TRAINING_OPTIONS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tools/cli/command.h"

namespace trireme {

std::vector<OptionSpec> TrainingOptions();

// What holds of them whatever the job is: those that go with --resume. A launch
// asks as well, so that a mistake is told once and not by each rank.
absl::Status CheckTrainingOptions(const ParsedCommand& arguments);

// Those of them that were given, as a command line has them: "--plan=FILE".
std::vector<std::string> GivenTrainingOptions(const ParsedCommand& arguments);

}  // namespace trireme

#endif  // TRIREME_TOOLS_TRAINING_OPTIONS_H_
