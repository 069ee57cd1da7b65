#include "tools/training_options.h"

#include "fmt/format.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/core/status.h"
#include "tools/device_option.h"

namespace trireme {

std::vector<OptionSpec> TrainingOptions() {
  return {{.name = "plan",
           .value = "FILE",
           .help = "what runs where; without it a simple rule decides"},
          {.name = "set",
           .value = "FIELD=VALUE",
           .help = "overrides a field of the job",
           .repeated = true},
          {.name = "steps", .value = "N", .help = "optimizer steps"},
          {.name = "out",
           .value = "DIR",
           .help = "the run's folder (default: runs/ and the job's name)"},
          {.name = "resume",
           .help = "goes on from the newest whole checkpoint in the folder"},
          {.name = "checkpoint",
           .value = "NAME",
           .help = "with --resume: goes on from this one, as step_00000100; "
                   "later ones are set aside"},
          {.name = "allow",
           .value = "FIELDS",
           .help = "with --resume: fields, separated by commas, in which the "
                   "job may differ from the run's"},
          DeviceOption(),
          {.name = "trace",
           .help = "writes Chrome traces of the second to fourth step"}};
}

absl::Status CheckTrainingOptions(const ParsedCommand& arguments) {
  const bool resume = arguments.Has("resume");
  if (arguments.Has("allow") && !resume) {
    return InvalidArgument("--allow: found without --resume, expected with it");
  }
  if (arguments.Has("checkpoint")) {
    const std::string name = arguments.Get("checkpoint");
    if (!resume || !StepOfName(name).has_value()) {
      return InvalidArgument(
          "--checkpoint: found '{}'{}, expected one of the run's checkpoints, "
          "as step_00000100, with --resume",
          name, resume ? "" : " without --resume");
    }
  }
  return absl::OkStatus();
}

std::vector<std::string> GivenTrainingOptions(const ParsedCommand& arguments) {
  std::vector<std::string> given;
  for (const OptionSpec& option : TrainingOptions()) {
    if (!arguments.Has(option.name)) continue;
    if (option.value.empty()) {
      given.push_back("--" + option.name);
      continue;
    }
    for (const std::string& value : arguments.All(option.name)) {
      given.push_back(fmt::format("--{}={}", option.name, value));
    }
  }
  return given;
}

}  // namespace trireme
