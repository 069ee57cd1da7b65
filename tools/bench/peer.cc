#include "tools/bench/peer.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>

#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"
#include "runtime/core/dtype.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// A command's standard output; its standard error is ours.
absl::StatusOr<std::string> Output(const std::string& command) {
  std::FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return Internal("cannot run {}", command);
  std::string output;
  std::array<char, 4096> buffer;
  while (const size_t count =
             std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    output.append(buffer.data(), count);
  }
  if (const int code = pclose(pipe); code != 0) {
    return Internal("{} failed (status {})", command, code);
  }
  return output;
}

// What of a measured step's setting peer_step.py takes, each once, in order.
struct Measured {
  std::vector<std::string> models, dtypes, threads;

  static void Add(const std::string& value, std::vector<std::string>& to) {
    if (std::find(to.begin(), to.end(), value) == to.end()) to.push_back(value);
  }
};

Measured MeasuredOf(const std::vector<std::string_view>& models,
                    const std::vector<BenchSetting>& settings,
                    const Figures& figures) {
  Measured measured;
  for (const std::string_view model : models) {
    for (const BenchSetting& setting : settings) {
      const std::string name(model);
      if (!figures.contains(setting.Prefix(name) + ".s")) continue;
      Measured::Add(name, measured.models);
      Measured::Add(std::string(DTypeName(setting.dtype)), measured.dtypes);
      Measured::Add(std::to_string(setting.threads), measured.threads);
    }
  }
  return measured;
}

}  // namespace

absl::Status AddPeer(const std::string& folder,
                     const std::vector<std::string_view>& models,
                     const std::vector<BenchSetting>& settings,
                     Figures* figures) {
  const Measured measured = MeasuredOf(models, settings, *figures);
  if (measured.models.empty()) {
    return InvalidArgument(
        "--peer: found no training step among what was measured, expected one "
        "({})",
        fmt::join(models, ", "));
  }
  ASSIGN_OR_RETURN(std::string python, Output(folder + "/peer_setup.sh"));
  while (!python.empty() && python.back() == '\n') python.pop_back();
  const std::string command = fmt::format(
      "'{}' '{}/peer_step.py' --models {} --dtypes {} --threads {}", python,
      folder, fmt::join(measured.models, ","), fmt::join(measured.dtypes, ","),
      fmt::join(measured.threads, ","));
  ASSIGN_OR_RETURN(const std::string output, Output(command));
  const nlohmann::json result = nlohmann::json::parse(output, nullptr, false);
  if (!result.is_object()) {
    return Internal("{}: expected a JSON object, found '{}'", command, output);
  }
  if (const auto missing = result.find("not_measured");
      missing != result.end()) {
    for (const auto& [key, reason] : missing->items()) {
      fmt::print("{:<60} not measured: {}\n", "pytorch." + key,
                 reason.is_string() ? reason.get<std::string>() : "");
    }
  }
  // model.dtype.threads.step_s of the fastest way, model.dtype.threads.way
  // .step_s of each.
  for (const auto& [key, value] : result.items()) {
    const std::vector<std::string> parts = absl::StrSplit(key, '.');
    if (!value.is_number() || parts.size() < 4 || parts.back() != "step_s") {
      continue;
    }
    (*figures)["pytorch." + key] = value.get<double>();
    const std::string ours =
        fmt::format("{}.{}.{}", parts[0], parts[1], parts[2]);
    const std::optional<double> step_s = Find(*figures, ours + ".s");
    if (!step_s.has_value()) continue;
    const std::string way = parts.size() > 4 ? "." + parts[3] : "";
    (*figures)[ours + ".peer_ratio" + way] = value.get<double>() / *step_s;
  }
  return absl::OkStatus();
}

}  // namespace trireme
