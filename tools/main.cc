// The trireme binary: finds the subcommand and hands over.

#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/debugging/symbolize.h"
#include "fmt/format.h"
#include "runtime/core/nearest_name.h"
#include "runtime/core/status.h"
#include "tools/commands.h"

namespace trireme {
namespace {

std::string Overview(const std::vector<Command>& commands) {
  std::string text =
      "trireme trains diffusion and rectified-flow transformers on many "
      "ranks.\n\nusage: trireme COMMAND [ARGUMENTS]\n\n";
  for (const Command& command : commands) {
    text +=
        fmt::format("  {:<9} {}\n", command.spec.name, command.spec.summary);
  }
  text += "\n`trireme COMMAND --help` says more, with an example.\n";
  return text;
}

int Main(int argc, char** argv) {
  const std::vector<Command> commands = {
      LaunchCommand(),  TrainCommand(),   VerifyCommand(), SampleCommand(),
      DataCommand(),    InspectCommand(), PlanCommand(),   ClusterCommand(),
      ProfileCommand(), RehearseCommand()};
  const std::string name = argc > 1 ? argv[1] : "--help";
  if (name == "--help" || name == "-h" || name == "help") {
    fmt::print("{}", Overview(commands));
    return argc > 1 ? 0 : 2;
  }
  std::vector<std::string> names;
  for (const Command& command : commands) {
    names.push_back(command.spec.name);
    if (command.spec.name != name) continue;
    const std::vector<std::string> arguments(argv + 2, argv + argc);
    for (const std::string& argument : arguments) {
      if (argument == "--") break;
      if (argument == "--help" || argument == "-h") {
        fmt::print("{}", HelpText(command.spec));
        return 0;
      }
    }
    const absl::StatusOr<ParsedCommand> parsed =
        ParseCommand(command.spec, arguments);
    if (!parsed.ok()) {
      // The message begins with the command's name.
      fmt::print(stderr, "trireme {}\n", MessageOf(parsed.status()));
      return 2;
    }
    return command.run(*parsed, argc, argv);
  }
  const std::string nearest = NearestName(name, names);
  fmt::print(stderr, "trireme: no command '{}'{}\n\n{}", name,
             nearest.empty() ? std::string()
                             : fmt::format("; did you mean '{}'?", nearest),
             Overview(commands));
  return 2;
}

}  // namespace

int Fail(const std::string& command, const absl::Status& status) {
  fmt::print(stderr, "trireme {}: {}\n", command, MessageOf(status));
  return 1;
}

}  // namespace trireme

int main(int argc, char** argv) {
  absl::InitializeSymbolizer(argv[0]);
  return trireme::Main(argc, argv);
}
