// trireme data: converts a data set into WebDataset shards.

#include <unistd.h>

#include <filesystem>
#include <memory>
#include <system_error>

#include "fmt/format.h"
#include "models/data/idx.h"
#include "models/data/image_folder.h"
#include "models/data/shard_writer.h"
#include "runtime/core/status.h"
#include "tools/commands.h"

namespace trireme {
namespace {

constexpr char kName[] = "data";

absl::StatusOr<std::unique_ptr<Dataset>> Open(const ParsedCommand& arguments) {
  const std::string& source = arguments.positionals()[0];
  if (arguments.Has("idx")) {
    return OpenIdx(source, arguments.Get("split"), arguments.All("class_name"));
  }
  return OpenImageFolder(source);
}

// Shards among the pictures would be taken for some of them.
absl::Status CheckApart(const std::string& source, const std::string& out) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path from = fs::weakly_canonical(fs::absolute(source), error);
  const fs::path to = fs::weakly_canonical(fs::absolute(out), error);
  const fs::path below = to.lexically_relative(from);
  if (below.empty() || *below.begin() == "..") return absl::OkStatus();
  return InvalidArgument(
      "OUT: found {}, which is within {}, expected a folder "
      "outside of it",
      out, source);
}

int Run(const ParsedCommand& arguments, int, char**) {
  const absl::Status apart =
      CheckApart(arguments.positionals()[0], arguments.positionals()[1]);
  if (!apart.ok()) return Fail(kName, apart);
  const auto dataset = Open(arguments);
  if (!dataset.ok()) return Fail(kName, dataset.status());
  const auto per_shard = arguments.GetInt("samples_per_shard");
  if (!per_shard.ok()) return Fail(kName, per_shard.status());
  if (*per_shard < 1) {
    return Fail(kName, InvalidArgument("--samples_per_shard: found {}, "
                                       "expected at least 1",
                                       *per_shard));
  }
  const int64_t total = (*dataset)->size();
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  const int64_t every = terminal ? std::max<int64_t>(total / 200, 1)
                                 : std::max<int64_t>(total / 10, 1);
  const auto summary = WriteShards(
      **dataset,
      {.folder = arguments.positionals()[1], .samples_per_shard = *per_shard},
      [&](int64_t done) {
        if (done % every != 0 && done != total) return;
        fmt::print("{}{}/{} samples{}", terminal ? "\r" : "", done, total,
                   terminal && done != total ? "" : "\n");
        std::fflush(stdout);
      });
  if (!summary.ok()) return Fail(kName, summary.status());
  fmt::print("{} samples in {} shards in {}; {} skipped as unreadable\n",
             summary->samples, summary->shards, arguments.positionals()[1],
             summary->skipped);
  return 0;
}

}  // namespace

Command DataCommand() {
  return {{.name = kName,
           .summary = "converts a folder or IDX set into WebDataset shards",
           .positionals = {{.name = "SOURCE",
                            .help = "image folder (a subfolder a class), or a "
                                    "folder of IDX files with --idx"},
                           {.name = "OUT", .help = "folder for the shards"}},
           .options = {{.name = "idx", .help = "SOURCE holds IDX files"},
                       {.name = "split",
                        .value = "NAME",
                        .default_value = "train",
                        .help = "of an IDX set: train or test"},
                       {.name = "class_name",
                        .value = "NAME",
                        .help = "of an IDX set's next class, in order",
                        .repeated = true},
                       {.name = "samples_per_shard",
                        .value = "N",
                        .default_value = "1000",
                        .help = "pictures in one tar file"}},
           .example =
               "trireme data /usr/share/datasets/fashion-mnist shards --idx"},
          Run};
}

}  // namespace trireme
