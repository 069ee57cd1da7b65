// trireme convert: weights to and from the ecosystem's folders.

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "fmt/format.h"
#include "runtime/core/status.h"
#include "tools/commands.h"
#include "trainer/run/convert.h"

namespace trireme {
namespace {

constexpr char kName[] = "convert";

absl::StatusOr<DType> TypeNamed(const std::string& name) {
  for (const auto& [known, dtype] : {std::pair{"F32", DType::kFloat32},
                                     {"F16", DType::kFloat16},
                                     {"BF16", DType::kBFloat16}}) {
    if (name == known) return dtype;
  }
  return InvalidArgument("--dtype: found '{}', expected F32, F16 or BF16",
                         name);
}

// "500MB", "10GB" or bytes.
absl::StatusOr<int64_t> BytesOf(std::string text) {
  const std::string given = text;
  int64_t unit = 1;
  for (const auto& [suffix, bytes] :
       {std::pair{"KB", 1'000}, {"MB", 1'000'000}, {"GB", 1'000'000'000}}) {
    if (!text.ends_with(suffix)) continue;
    text.resize(text.size() - 2);
    unit = bytes;
  }
  int64_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number < 1 ||
      number > std::numeric_limits<int64_t>::max() / unit) {
    return InvalidArgument(
        "--shard_size: found '{}', expected a size as 500MB or 10GB", given);
  }
  return number * unit;
}

absl::StatusOr<ConvertOptions> OptionsOf(const ParsedCommand& arguments) {
  ConvertOptions options;
  options.from = arguments.positionals()[0];
  options.to = arguments.positionals()[1];
  options.ema = arguments.Has("ema");
  if (arguments.Has("to")) {
    const std::string to = arguments.Get("to");
    if (to != "run" && to != "weights") {
      return InvalidArgument("--to: found '{}', expected run or weights", to);
    }
    options.to_weights = to == "weights";
  }
  if (arguments.Has("dtype")) {
    ASSIGN_OR_RETURN(options.dtype, TypeNamed(arguments.Get("dtype")));
  }
  if (arguments.Has("shard_size")) {
    ASSIGN_OR_RETURN(options.max_shard_bytes,
                     BytesOf(arguments.Get("shard_size")));
  }
  return options;
}

int Run(const ParsedCommand& arguments, int, char**) {
  const auto options = OptionsOf(arguments);
  if (!options.ok()) return Fail(kName, options.status());
  const auto report = Convert(*options);
  if (!report.ok()) return Fail(kName, report.status());
  fmt::print("{} tensors of {} in {}, {}\n", report->tensors, report->weights,
             options->to,
             report->to_weights ? "a folder of weights" : "a run's folder");
  return 0;
}

}  // namespace

Command ConvertCommand() {
  return {
      {.name = kName,
       .summary = "writes a run's weights as diffusers keeps them, or those "
                  "as a run",
       .positionals =
           {{.name = "FROM",
             .help = "a run's folder (its newest checkpoint), a checkpoint's, "
                     "or one of weights (model_index.json or config.json)"},
            {.name = "TO", .help = "a new folder"}},
       .options =
           {{.name = "to",
             .value = "KIND",
             .help = "what TO becomes: weights, or a run, whose job says the "
                     "model alone (default: what FROM is not)"},
            {.name = "ema", .help = "a run's moving average, not its weights"},
            {.name = "dtype",
             .value = "TYPE",
             .help = "F32, F16 or BF16 of a folder of weights (default: as "
                     "FROM has each tensor; of a run F32)"},
            {.name = "shard_size",
             .value = "SIZE",
             .help = "the most a file of weights holds, as 500MB or 10GB "
                     "(default: the files of FROM; of a run 10GB)"}},
       .example = "trireme convert runs/flux weights --ema --dtype BF16"},
      Run};
}

}  // namespace trireme
