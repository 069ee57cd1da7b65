#include "trainer/run/class_names.h"

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <utility>

#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kMaxClassNamesBytes = int64_t{64} << 20;

}  // namespace

std::vector<std::string> ClassNamesOf(const Dataset& dataset) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < dataset.num_classes(); ++i) {
    std::string name = dataset.class_name(i);
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == '\n' || c == '\r'; },
        ' ');
    names.push_back(std::move(name));
  }
  return names;
}

absl::Status WriteClassNames(const RunFolder& folder,
                             const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += name + "\n";
  return WriteFileAtomically(folder.classes(), text);
}

absl::StatusOr<std::vector<std::string>> ReadClassNames(
    const RunFolder& folder) {
  ASSIGN_OR_RETURN(const std::string text,
                   ReadFile(folder.classes(), kMaxClassNamesBytes));
  std::vector<std::string> names;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) names.push_back(line);
  return names;
}

}  // namespace trireme
