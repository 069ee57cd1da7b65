// The trireme binary: finds the subcommand and hands over.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/debugging/symbolize.h"
#include "absl/strings/str_join.h"
#include "fmt/format.h"
#include "runtime/core/nearest_name.h"
#include "runtime/core/status.h"
#include "tools/commands.h"
#include "tools/mpirun.h"

namespace trireme {
namespace {

constexpr char kVersion[] = "0.1.0";

// The exit status of a wrong command line.
constexpr int kUsage = 2;

std::string Overview(const std::vector<Command>& commands) {
  std::string text =
      "trireme trains diffusion and rectified-flow transformers on many "
      "ranks.\n\nusage: trireme COMMAND [ARGUMENTS]\n\n";
  for (const Command& command : commands) {
    text +=
        fmt::format("  {:<10}  {}\n", command.spec.name, command.spec.summary);
  }
  text +=
      "\n`trireme COMMAND --help` says more, with an example; `trireme "
      "--version` which program this is.\n"
      "Exit status: 0, 2 if the command line is wrong, 1 if anything else "
      "is.\n";
  return text;
}

// Threads of OpenMP that spin while they wait take the processor from whatever
// else runs. OpenMP's runtime asks once, when it is loaded, so that this
// program has to begin anew.
void RestartWithPassiveWaiting(char** argv) {
  constexpr char kPolicy[] = "OMP_WAIT_POLICY";
  if (std::getenv(kPolicy) != nullptr) return;
  setenv(kPolicy, "passive", /*overwrite=*/1);
  const absl::StatusOr<std::string> program = ThisProgram();
  // Where that fails it is only slower.
  if (program.ok()) execv(program->c_str(), argv);
}

int Main(int argc, char** argv) {
  const std::vector<Command> commands = {
      LaunchCommand(),     TrainCommand(),   VerifyCommand(),
      ForwardCommand(),    SampleCommand(),  DataCommand(),
      ConvertCommand(),    InspectCommand(), PlanCommand(),
      ClusterCommand(),    ProfileCommand(), TuneCommand(),
      RehearseCommand(),   StatusCommand(),  WatchCommand(),
      CheckpointCommand(), StopCommand(),    ReportCommand()};
  std::string name = argc > 1 ? argv[1] : "--help";
  if (name == "--version") {
    fmt::print("trireme {}\n", kVersion);
    return 0;
  }
  std::vector<std::string> arguments(argv + std::min(argc, 2), argv + argc);
  const bool help = name == "--help" || name == "-h" || name == "help";
  if (help && arguments.empty()) {
    fmt::print("{}", Overview(commands));
    return argc > 1 ? 0 : kUsage;
  }
  // `help COMMAND` is `COMMAND --help`.
  if (help) std::swap(name, arguments[0]);
  std::vector<std::string> names;
  for (const Command& command : commands) {
    names.push_back(command.spec.name);
    if (command.spec.name != name) continue;
    for (const std::string& argument : arguments) {
      if (argument == "--") break;
      if (help || argument == "--help" || argument == "-h") {
        fmt::print("{}", HelpText(command.spec));
        return 0;
      }
    }
    const absl::StatusOr<ParsedCommand> parsed =
        ParseCommand(command.spec, arguments);
    if (!parsed.ok()) {
      // The message begins with the command's name.
      fmt::print(stderr, "trireme {}\n", MessageOf(parsed.status()));
      return kUsage;
    }
    return command.run(*parsed, argc, argv);
  }
  const std::string nearest = NearestName(name, names);
  fmt::print(stderr, "trireme: no command '{}'; {}\n", name,
             nearest.empty()
                 ? fmt::format("expected one of {} (`trireme --help`)",
                               absl::StrJoin(names, ", "))
                 : fmt::format("did you mean '{}'?", nearest));
  return kUsage;
}

}  // namespace

int Fail(const std::string& command, const absl::Status& status) {
  // An error that all ranks share is rank 0's to print and to end the job with;
  // others go on only where it is their own.
  if (RankUnderMpirun().value_or("0") != "0") {
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  const std::string message = MessageOf(status);
  fmt::print(stderr, "trireme {}: {}\n", command, message);
  return absl::IsInvalidArgument(status) && message.starts_with("--") ? kUsage
                                                                      : 1;
}

}  // namespace trireme

int main(int argc, char** argv) {
  trireme::RestartWithPassiveWaiting(argv);
  absl::InitializeSymbolizer(argv[0]);
  return trireme::Main(argc, argv);
}
