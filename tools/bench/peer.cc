#include "tools/bench/peer.h"

#include <array>
#include <cstdio>

#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"
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

}  // namespace

absl::Status AddPeer(const std::string& folder, const std::vector<int>& threads,
                     Figures* figures) {
  ASSIGN_OR_RETURN(std::string python, Output(folder + "/peer_setup.sh"));
  while (!python.empty() && python.back() == '\n') python.pop_back();
  const std::string command =
      fmt::format("'{}' '{}/peer_dit.py' --threads {}", python, folder,
                  fmt::join(threads, ","));
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
  // dtype.threads.step_s of the fastest way, dtype.threads.way.step_s of each.
  for (const auto& [key, value] : result.items()) {
    const std::vector<std::string> parts = absl::StrSplit(key, '.');
    if (!value.is_number() || parts.size() < 3 || parts.back() != "step_s") {
      continue;
    }
    (*figures)["pytorch." + key] = value.get<double>();
    const std::string ours = fmt::format("dit_s2.{}.{}", parts[0], parts[1]);
    const std::optional<double> step_s = Find(*figures, ours + ".s");
    if (!step_s.has_value()) continue;
    const std::string way = parts.size() > 3 ? "." + parts[2] : "";
    (*figures)[ours + ".peer_ratio" + way] = value.get<double>() / *step_s;
  }
  return absl::OkStatus();
}

}  // namespace trireme
