// The command line of one subcommand: what it accepts, parsing with errors that
// say what was found and expected, and its help text.
//
// Accepted: `--key value`, `--key=value`, `--flag`; `--` ends the options. A
// value may begin with one dash (a negative number), not with two unless
// written `--key=--value`. Nothing here is global; all is safe to use from any
// thread once built.

#ifndef TRIREME_TOOLS_CLI_COMMAND_H_
#define TRIREME_TOOLS_CLI_COMMAND_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace trireme {

struct OptionSpec {
  std::string name;   // Without the dashes.
  std::string value;  // Placeholder in the help text; empty = a flag.
  std::string default_value;
  std::string help;
  bool repeated = false;
  bool required = false;
};

struct PositionalSpec {
  std::string name;
  std::string help;
  bool required = true;
  bool repeated = false;  // Only the last may be.
};

struct CommandSpec {
  std::string name;
  std::string summary;
  std::vector<PositionalSpec> positionals;
  std::vector<OptionSpec> options;
  std::string example;
};

class ParsedCommand {
 public:
  // Whether the user gave the option or flag.
  bool Has(std::string_view name) const;
  // The (last) value given, else the option's default.
  std::string Get(std::string_view name) const;
  // The (last) value given; nothing if there is none.
  std::optional<std::string> Given(std::string_view name) const;
  // InvalidArgument if Get(name) is not wholly such a number.
  absl::StatusOr<int64_t> GetInt(std::string_view name) const;
  absl::StatusOr<double> GetDouble(std::string_view name) const;
  // Bytes, of which at least 1: "4096", "500MB", "12GiB".
  absl::StatusOr<int64_t> GetBytes(std::string_view name) const;
  // Every value given, in order; the default alone if none and it is not empty.
  std::vector<std::string> All(std::string_view name) const;
  const std::vector<std::string>& positionals() const { return positionals_; }

 private:
  friend absl::StatusOr<ParsedCommand> ParseCommand(
      const CommandSpec& spec, const std::vector<std::string>& args);

  // Asking for an option that the command does not declare is our mistake.
  const std::string& DefaultOf(std::string_view name) const;

  std::map<std::string, std::string, std::less<>> defaults_;
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
  std::vector<std::string> positionals_;
};

// `args`: what follows the subcommand's name. InvalidArgument for an unknown
// option (with the nearest valid one), a value missing or not wanted, an option
// given twice that is not repeated, a required one that is missing, and missing
// or surplus positionals. That
// `--help` is wanted is the caller's business: declare it as a flag or look for
// it first.
absl::StatusOr<ParsedCommand> ParseCommand(
    const CommandSpec& spec, const std::vector<std::string>& args);

// Usage line, summary, positionals, options with defaults, example.
std::string HelpText(const CommandSpec& spec);

}  // namespace trireme

#endif  // TRIREME_TOOLS_CLI_COMMAND_H_
