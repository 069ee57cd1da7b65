// trireme convert: weights to and from the ecosystem's folders.

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "fmt/format.h"
#include "runtime/core/status.h"
#include "tools/commands.h"
#include "trainer/checkpoints/convert.h"

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

absl::StatusOr<ConvertTo> KindNamed(const std::string& name) {
  for (const auto& [known, kind] : {std::pair{"run", ConvertTo::kRun},
                                    {"weights", ConvertTo::kWeights},
                                    {"adapter", ConvertTo::kAdapter},
                                    {"kohya", ConvertTo::kKohya}}) {
    if (name == known) return kind;
  }
  return InvalidArgument(
      "--to: found '{}', expected run, weights, adapter or kohya", name);
}

const char* TextOf(ConvertTo kind) {
  switch (kind) {
    case ConvertTo::kRun:
      return "a run's folder";
    case ConvertTo::kWeights:
      return "a folder of weights";
    case ConvertTo::kAdapter:
    case ConvertTo::kKohya:
      break;
  }
  return "a file of adapters";
}

absl::StatusOr<ConvertOptions> OptionsOf(const ParsedCommand& arguments) {
  ConvertOptions options;
  options.from = arguments.positionals()[0];
  options.to = arguments.positionals()[1];
  options.ema = arguments.Has("ema");
  if (arguments.Has("base")) options.base = arguments.Get("base");
  if (arguments.Has("to")) {
    ASSIGN_OR_RETURN(options.kind, KindNamed(arguments.Get("to")));
  }
  if (arguments.Has("dtype")) {
    ASSIGN_OR_RETURN(options.dtype, TypeNamed(arguments.Get("dtype")));
  }
  if (arguments.Has("shard_size")) {
    ASSIGN_OR_RETURN(options.max_shard_bytes, arguments.GetBytes("shard_size"));
  }
  return options;
}

int Run(const ParsedCommand& arguments, int, char**) {
  const auto options = OptionsOf(arguments);
  if (!options.ok()) return Fail(kName, options.status());
  const auto report = Convert(*options);
  if (!report.ok()) return Fail(kName, report.status());
  fmt::print("{} tensors of {} in {}, {}\n", report->tensors, report->weights,
             options->to, TextOf(report->kind));
  return 0;
}

}  // namespace

Command ConvertCommand() {
  return {
      {.name = kName,
       .summary = "writes a run's weights or adapters as diffusers or "
                  "transformers keeps them, or those as a run",
       .positionals =
           {{.name = "FROM",
             .help = "a run's folder (its newest checkpoint), a checkpoint's, "
                     "one of weights (model_index.json or config.json), or a "
                     "file of adapters (.safetensors)"},
            {.name = "TO", .help = "a new folder, or a new file of adapters"}},
       .options =
           {{.name = "to",
             .value = "KIND",
             .help = "what TO becomes: weights, with adapters merged into "
                     "them; adapter, a file of them alone, or kohya, the same "
                     "in the names of kohya's scripts; or run, whose job says "
                     "the model alone (default: of a run weights, else run)"},
            {.name = "base",
             .value = "FOLDER",
             .help = "the weights that FROM, a file of adapters, goes with"},
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
