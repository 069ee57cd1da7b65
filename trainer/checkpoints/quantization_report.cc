#include "trainer/checkpoints/quantization_report.h"

#include <cmath>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "runtime/core/log.h"

namespace trireme {

std::string DescribeQuantization(
    Control& control, const std::map<std::string, QuantizationError>& own) {
  std::string lines;
  for (const auto& [name, error] : own) {
    lines += fmt::format("{}\t{}\t{}\n", name, error.squared_differences,
                         error.squares);
  }
  // Copies of a part count as often in both sums.
  std::map<std::string, QuantizationError> errors;
  for (const std::string& of_rank :
       control.AllGather(lines, "errors of quantised weights")) {
    const std::vector<std::string> reported =
        absl::StrSplit(of_rank, '\n', absl::SkipEmpty());
    for (const std::string& line : reported) {
      const std::vector<std::string> fields = absl::StrSplit(line, '\t');
      double differences = 0, squares = 0;
      CHECK(fields.size() == 3 && absl::SimpleAtod(fields[1], &differences) &&
            absl::SimpleAtod(fields[2], &squares))
          << line;
      errors[fields[0]].squared_differences += differences;
      errors[fields[0]].squares += squares;
    }
  }
  std::string text;
  for (const auto& [name, error] : errors) {
    if (text.empty()) text = "weights that do not train, and their error:\n";
    text += fmt::format(
        "{:>8.3f} %  {}\n",
        error.squares == 0
            ? 0.0
            : 100 * std::sqrt(error.squared_differences / error.squares),
        name);
  }
  return text;
}

}  // namespace trireme
