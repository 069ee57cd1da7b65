#include "tools/cli/command.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/core/nearest_name.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr size_t kHelpWidth = 80;

const OptionSpec* FindOption(const CommandSpec& spec, std::string_view name) {
  for (const OptionSpec& option : spec.options) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

absl::Status UnknownOption(const CommandSpec& spec, std::string_view name) {
  std::vector<std::string> valid;
  for (const OptionSpec& option : spec.options) valid.push_back(option.name);
  const std::string nearest = NearestName(name, valid);
  if (!nearest.empty()) {
    return InvalidArgument(
        "{}: found --{}, which is no option; did you mean "
        "--{}?",
        spec.name, name, nearest);
  }
  std::string list;
  for (const std::string& option : valid) {
    list += (list.empty() ? "--" : ", --") + option;
  }
  return InvalidArgument("{}: found --{}, which is no option; expected {}",
                         spec.name, name,
                         list.empty() ? "no options" : "one of " + list);
}

std::string PositionalUsage(const PositionalSpec& positional) {
  const std::string name =
      fmt::format("{}{}", positional.name, positional.repeated ? "..." : "");
  return positional.required ? name : fmt::format("[{}]", name);
}

absl::Status CheckPositionals(const CommandSpec& spec,
                              const std::vector<std::string>& found) {
  bool repeated = false;
  for (size_t i = 0; i < spec.positionals.size(); ++i) {
    const PositionalSpec& positional = spec.positionals[i];
    repeated = repeated || positional.repeated;
    if (positional.required && i >= found.size()) {
      if (found.empty()) {
        return InvalidArgument("{}: found no argument, expected {} ({})",
                               spec.name, positional.name, positional.help);
      }
      return InvalidArgument(
          "{}: found {} argument{}, expected {} as well ({})", spec.name,
          found.size(), found.size() == 1 ? "" : "s", positional.name,
          positional.help);
    }
  }
  if (!repeated && found.size() > spec.positionals.size()) {
    return InvalidArgument("{}: found '{}', expected at most {} argument{}",
                           spec.name, found[spec.positionals.size()],
                           spec.positionals.size(),
                           spec.positionals.size() == 1 ? "" : "s");
  }
  return absl::OkStatus();
}

// `text` broken at blanks; the first line goes on from column `column`, the
// others are indented so far.
std::string Wrap(std::string_view text, size_t column) {
  std::string out;
  size_t position = column;
  while (!text.empty()) {
    const size_t blank = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, blank);
    text.remove_prefix(std::min(blank + 1, text.size()));
    if (word.empty()) continue;
    if (position > column && position + 1 + word.size() > kHelpWidth) {
      out += '\n';
      out.append(column, ' ');
      position = column;
    } else if (position > column) {
      out += ' ';
      ++position;
    }
    out += word;
    position += word.size();
  }
  return out;
}

struct HelpRow {
  std::string term;
  std::string help;
};

std::string HelpRows(std::string_view title, const std::vector<HelpRow>& rows) {
  if (rows.empty()) return "";
  constexpr size_t kWidestTerm = 28;
  size_t width = 0;
  for (const HelpRow& row : rows) {
    if (row.term.size() <= kWidestTerm)
      width = std::max(width, row.term.size());
  }
  std::string out = fmt::format("\n{}:\n", title);
  for (const HelpRow& row : rows) {
    const std::string help = Wrap(row.help, width + 4);
    if (row.term.size() > width) {
      out += fmt::format("  {}\n{:{}}{}\n", row.term, "", width + 4, help);
    } else {
      out += fmt::format("  {:<{}}  {}\n", row.term, width, help);
    }
  }
  return out;
}

}  // namespace

bool ParsedCommand::Has(std::string_view name) const {
  DefaultOf(name);
  return values_.contains(name);
}

std::string ParsedCommand::Get(std::string_view name) const {
  const std::string& default_value = DefaultOf(name);
  const auto found = values_.find(name);
  return found == values_.end() ? default_value : found->second.back();
}

std::optional<std::string> ParsedCommand::Given(std::string_view name) const {
  if (!Has(name)) return std::nullopt;
  return Get(name);
}

absl::StatusOr<int64_t> ParsedCommand::GetInt(std::string_view name) const {
  const std::string text = Get(name);
  const char* end = text.data() + text.size();
  int64_t number = 0;
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range) {
    return InvalidArgument("--{}: found {}, expected an integer within 64 bits",
                           name, text);
  }
  if (error != std::errc() || stop != end) {
    return InvalidArgument("--{}: found '{}', expected an integer", name, text);
  }
  return number;
}

absl::StatusOr<double> ParsedCommand::GetDouble(std::string_view name) const {
  const std::string text = Get(name);
  const char* end = text.data() + text.size();
  double number = 0;
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end || !std::isfinite(number)) {
    return InvalidArgument("--{}: found '{}', expected a finite number", name,
                           text);
  }
  return number;
}

absl::StatusOr<int64_t> ParsedCommand::GetBytes(std::string_view name) const {
  constexpr std::array<std::pair<std::string_view, int64_t>, 6> kUnits = {
      {{"KiB", int64_t{1} << 10},
       {"MiB", int64_t{1} << 20},
       {"GiB", int64_t{1} << 30},
       {"KB", 1'000},
       {"MB", 1'000'000},
       {"GB", 1'000'000'000}}};
  const std::string text = Get(name);
  std::string_view digits = text;
  int64_t unit = 1;
  for (const auto& [suffix, bytes] : kUnits) {
    if (!text.ends_with(suffix)) continue;
    digits.remove_suffix(suffix.size());
    unit = bytes;
    break;
  }
  int64_t number = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, number);
  if (error != std::errc() || stop != end || number < 1 ||
      number > std::numeric_limits<int64_t>::max() / unit) {
    return InvalidArgument(
        "--{}: found '{}', expected a size as 500MB or 12GiB", name, text);
  }
  return number * unit;
}

std::vector<std::string> ParsedCommand::All(std::string_view name) const {
  const std::string& default_value = DefaultOf(name);
  const auto found = values_.find(name);
  if (found != values_.end()) return found->second;
  if (default_value.empty()) return {};
  return {default_value};
}

const std::string& ParsedCommand::DefaultOf(std::string_view name) const {
  const auto found = defaults_.find(name);
  CHECK(found != defaults_.end())
      << "option " << std::string(name) << " is not declared";
  return found->second;
}

absl::StatusOr<ParsedCommand> ParseCommand(
    const CommandSpec& spec, const std::vector<std::string>& args) {
  ParsedCommand parsed;
  for (const OptionSpec& option : spec.options) {
    parsed.defaults_[option.name] = option.default_value;
  }
  bool options_ended = false;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (options_ended || !arg.starts_with("--")) {
      // One dash and a letter is a mistyped option; "-" and "-1" are not.
      if (!options_ended && arg.size() > 1 && arg[0] == '-' &&
          (arg[1] < '0' || arg[1] > '9') && arg[1] != '.') {
        return UnknownOption(spec, std::string_view(arg).substr(1));
      }
      parsed.positionals_.push_back(arg);
      continue;
    }
    if (arg == "--") {
      options_ended = true;
      continue;
    }
    const size_t equals = arg.find('=');
    const std::string name =
        arg.substr(2, equals == std::string::npos ? equals : equals - 2);
    const OptionSpec* option = FindOption(spec, name);
    if (option == nullptr) return UnknownOption(spec, name);
    std::string value;
    if (option->value.empty()) {
      if (equals != std::string::npos) {
        return InvalidArgument("{}: found '{}', expected --{} without a value",
                               spec.name, arg, name);
      }
    } else if (equals != std::string::npos) {
      value = arg.substr(equals + 1);
    } else if (i + 1 < args.size() && !args[i + 1].starts_with("--")) {
      value = args[++i];
    } else {
      return InvalidArgument(
          "{}: found {}, expected --{} {}", spec.name,
          i + 1 < args.size()
              ? fmt::format("'{}' after --{}", args[i + 1], name)
              : fmt::format("nothing after --{}", name),
          name, option->value);
    }
    std::vector<std::string>& values = parsed.values_[name];
    if (!values.empty() && !option->repeated && !option->value.empty()) {
      return InvalidArgument(
          "{}: found --{} twice ('{}' and '{}'), expected "
          "it once",
          spec.name, name, values.back(), value);
    }
    values.push_back(std::move(value));
  }
  RETURN_IF_ERROR(CheckPositionals(spec, parsed.positionals_));
  for (const OptionSpec& option : spec.options) {
    if (option.required && !parsed.values_.contains(option.name)) {
      return InvalidArgument("{}: found no --{}, expected --{} {} ({})",
                             spec.name, option.name, option.name, option.value,
                             option.help);
    }
  }
  return parsed;
}

std::string HelpText(const CommandSpec& spec) {
  std::string out = fmt::format("Usage: trireme {}", spec.name);
  std::vector<HelpRow> positionals;
  for (const PositionalSpec& positional : spec.positionals) {
    out += " " + PositionalUsage(positional);
    positionals.push_back({positional.name, positional.help});
  }
  bool all_required = true;
  for (const OptionSpec& option : spec.options) {
    if (option.required)
      out += fmt::format(" --{} {}", option.name, option.value);
    all_required = all_required && option.required;
  }
  if (!all_required) out += " [options]";
  out += fmt::format("\n\n{}\n", Wrap(spec.summary, 0));
  std::vector<HelpRow> options;
  for (const OptionSpec& option : spec.options) {
    HelpRow row = {fmt::format("--{}", option.name), option.help};
    if (!option.value.empty()) row.term += " " + option.value;
    if (option.required) row.help += " (required)";
    if (option.repeated) row.help += " (may be repeated)";
    if (!option.default_value.empty()) {
      row.help += fmt::format(" (default: {})", option.default_value);
    }
    options.push_back(std::move(row));
  }
  out += HelpRows("Arguments", positionals);
  out += HelpRows("Options", options);
  if (!spec.example.empty()) {
    out += fmt::format("\nExample:\n  {}\n", spec.example);
  }
  return out;
}

}  // namespace trireme
