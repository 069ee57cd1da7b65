// The subcommands of the trireme binary. Each has its specification (for
// parsing and --help) and a function that runs it and gives the exit status.

#ifndef TRIREME_TOOLS_COMMANDS_H_
#define TRIREME_TOOLS_COMMANDS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tools/cli/command.h"

namespace trireme {

struct Command {
  CommandSpec spec;
  // Returns the exit status; prints its own errors.
  int (*run)(const ParsedCommand& arguments, int argc, char** argv);
};

Command TrainCommand();
Command LaunchCommand();
Command VerifyCommand();
Command SampleCommand();
Command ForwardCommand();
Command DataCommand();
Command ConvertCommand();
Command InspectCommand();
Command PlanCommand();
Command ClusterCommand();
Command ProfileCommand();
Command TuneCommand();
Command RehearseCommand();
Command StatusCommand();
Command WatchCommand();
Command CheckpointCommand();
Command StopCommand();
Command ReportCommand();

// Prints "trireme NAME: message" to standard error. The exit status: 2 if the
// command line is wrong (the message begins with an option), else 1.
int Fail(const std::string& command, const absl::Status& status);

}  // namespace trireme

#endif  // TRIREME_TOOLS_COMMANDS_H_
