// trireme data: converts a data set into shards: pictures into WebDataset's,
// meshes into a cache of shapes.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/autoencoder/latent_cache.h"
#include "models/data/bucketed_dataset.h"
#include "models/data/buckets.h"
#include "models/data/idx.h"
#include "models/data/image_folder.h"
#include "models/data/shape_dataset.h"
#include "models/data/shard_writer.h"
#include "models/data/webdataset.h"
#include "models/image/encode.h"
#include "models/image/label_grid.h"
#include "models/shape/shape_cache.h"
#include "models/shape/shape_cache_writer.h"
#include "models/shape/shape_source.h"
#include "runtime/comm/control.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/comm/patience.h"
#include "runtime/core/check_range.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/compute_device.h"
#include "runtime/device/kernel_libraries.h"
#include "tools/commands.h"
#include "tools/device_option.h"
#include "tools/mpirun.h"
#include "tools/run_as_rank.h"
#include "tools/size_option.h"
#include "trainer/checkpoints/shape_latents.h"
#include "trainer/job/memory_limit.h"

namespace trireme {
namespace {

constexpr char kName[] = "data";

absl::StatusOr<int64_t> AtLeastOne(const ParsedCommand& arguments,
                                   const char* option, int64_t most) {
  ASSIGN_OR_RETURN(const int64_t value, arguments.GetInt(option));
  RETURN_IF_ERROR(CheckRange(fmt::format("--{}", option), value, 1, most));
  return value;
}

// Of a cache's shapes that are encoded: their views, or the points about them.
absl::StatusOr<ShapeDatasetOptions> ShapesOf(const ParsedCommand& arguments) {
  ShapeDatasetOptions options = {.folder = arguments.positionals()[0]};
  if (!arguments.Has("views")) return options;
  ASSIGN_OR_RETURN(const int64_t views,
                   AtLeastOne(arguments, "views", kMaxShapeViews));
  ASSIGN_OR_RETURN(const ShapeCache cache, ShapeCache::Open(options.folder));
  options.views = static_cast<int>(views);
  options.view_resolution = cache.view_resolution();
  return options;
}

absl::StatusOr<std::unique_ptr<Dataset>> Open(const ParsedCommand& arguments) {
  const std::string& source = arguments.positionals()[0];
  if (arguments.Has("shapes")) {
    ASSIGN_OR_RETURN(ShapeDatasetOptions options, ShapesOf(arguments));
    if (options.views == 0) {
      ASSIGN_OR_RETURN(const std::optional<VoxelShape> voxels,
                       VoxelsOfModel(arguments.Get("latents")));
      if (voxels.has_value()) options.voxels = *voxels;
    }
    return OpenShapeDataset(options);
  }
  if (arguments.Has("shards")) return OpenWebDataset({.paths = {source}});
  if (arguments.Has("idx")) {
    const std::string split = arguments.Get("split");
    if (split != "train" && split != "test") {
      return InvalidArgument("--split: found '{}', expected train or test",
                             split);
    }
    return OpenIdx(source, split, arguments.All("class_name"));
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

// On a terminal one line that grows, elsewhere ten.
std::function<void(int64_t)> ProgressOf(int64_t total, const char* things) {
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  const int64_t every = std::max<int64_t>(total / (terminal ? 200 : 10), 1);
  return [=, shown = int64_t{0}](int64_t done) mutable {
    if (done / every == shown && done != total) return;
    shown = done / every;
    fmt::print("{}{}/{} {}{}", terminal ? "\r" : "", done, total, things,
               terminal && done != total ? "" : "\n");
    std::fflush(stdout);
  };
}

absl::Status WritePictures(const ParsedCommand& arguments) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> dataset, Open(arguments));
  ASSIGN_OR_RETURN(const int64_t per_shard,
                   AtLeastOne(arguments, "samples_per_shard", 1000000));
  ASSIGN_OR_RETURN(const ShardSummary summary,
                   WriteShards(*dataset,
                               {.folder = arguments.positionals()[1],
                                .samples_per_shard = per_shard},
                               ProgressOf(dataset->size(), "samples")));
  fmt::print("{} samples in {} shards in {}; {} skipped as unreadable\n",
             summary.samples, summary.shards, arguments.positionals()[1],
             summary.skipped);
  return absl::OkStatus();
}

// Of pictures whose latents are written.
absl::StatusOr<std::vector<PictureSize>> SizesOf(
    const ParsedCommand& arguments) {
  std::vector<PictureSize> sizes;
  for (const std::string& text : arguments.All("size")) {
    ASSIGN_OR_RETURN(sizes.emplace_back(), ParsePictureSize("size", text));
  }
  const int given = (arguments.Has("resolution") ? 1 : 0) +
                    (arguments.Has("side") ? 1 : 0) + (sizes.empty() ? 0 : 1);
  if (given != 1) {
    return InvalidArgument(
        "--resolution, --size, --side: found {} of them with --latents, "
        "expected one: the side of all pictures, or their sizes",
        given);
  }
  if (!sizes.empty()) return sizes;
  if (arguments.Has("resolution")) {
    ASSIGN_OR_RETURN(const int64_t side,
                     AtLeastOne(arguments, "resolution", 1 << 14));
    return std::vector<PictureSize>{{side, side}};
  }
  ASSIGN_OR_RETURN(const int64_t side, AtLeastOne(arguments, "side", 1 << 14));
  ASSIGN_OR_RETURN(const int64_t step, AtLeastOne(arguments, "step", side));
  ASSIGN_OR_RETURN(const double ratio, arguments.GetDouble("max_ratio"));
  RETURN_IF_ERROR(CheckRange("--max_ratio", ratio, 1, 16));
  return SizesOfArea(side, step, ratio);
}

// Pictures that are smaller than every size.
bool Enlarges(const ParsedCommand& arguments) {
  return !arguments.Has("shapes") &&
         (arguments.Has("enlarge") || arguments.Has("resolution"));
}

absl::StatusOr<LatentEncoder> EncoderOf(const ParsedCommand& arguments,
                                        Device& device) {
  const std::string& autoencoder = arguments.Get("latents");
  if (arguments.Has("views")) {
    if (arguments.Has("latent_tokens")) {
      return InvalidArgument(
          "--latent_tokens: found with --views, expected one of them");
    }
    ASSIGN_OR_RETURN(const ShapeDatasetOptions shapes, ShapesOf(arguments));
    return ViewLatentEncoder(autoencoder, shapes.views, shapes.view_resolution,
                             device);
  }
  if (arguments.Has("shapes")) {
    ASSIGN_OR_RETURN(const std::optional<VoxelShape> voxels,
                     VoxelsOfModel(autoencoder));
    if (voxels.has_value() && arguments.Has("latent_tokens")) {
      return InvalidArgument(
          "--latent_tokens: found with an autoencoder of sparse voxels, "
          "expected without it: a shape has one latent a cell");
    }
    int64_t tokens = 0;
    if (arguments.Has("latent_tokens")) {
      ASSIGN_OR_RETURN(tokens, AtLeastOne(arguments, "latent_tokens", 1 << 16));
    }
    return ShapeLatentEncoder(autoencoder, tokens, device);
  }
  ASSIGN_OR_RETURN(std::vector<PictureSize> sizes, SizesOf(arguments));
  return PictureLatentEncoder(autoencoder, std::move(sizes),
                              Enlarges(arguments), device);
}

// By whose kernels a GPU computes an autoencoder's convolutions.
absl::StatusOr<KernelLibraries> LibrariesOf(const ParsedCommand& arguments) {
  const std::string found = arguments.Get("convolution_kernels");
  if (found == "cudnn") return KernelLibraries();
  if (found == "own") {
    return KernelLibraries{.convolution = KernelLibrary::kOwn};
  }
  return InvalidArgument(
      "--convolution_kernels: found '{}', expected cudnn or own", found);
}

// What a rank of `world` computes latents on.
absl::StatusOr<std::unique_ptr<Device>> DeviceOfRank(
    const ParsedCommand& arguments, const MpiWorld& world) {
  const int local_ranks = world.processor_share().ranks;
  ASSIGN_OR_RETURN(const ComputeDevice chosen,
                   DeviceOf(arguments, world.local_rank(), local_ranks));
  ASSIGN_OR_RETURN(const KernelLibraries libraries, LibrariesOf(arguments));
  return chosen.Make(MemoryLimit(Job(), chosen, local_ranks), libraries);
}

// On each rank of `world`, of which all write and the first one reports. The
// same error on all.
absl::Status WriteLatents(const ParsedCommand& arguments, MpiWorld& world) {
  LatentCacheOptions options{.folder = arguments.positionals()[1]};
  if (arguments.Given("samples_per_shard").has_value()) {
    ASSIGN_OR_RETURN(options.samples_per_shard,
                     AtLeastOne(arguments, "samples_per_shard", 1000000));
  }
  const char* const things = arguments.Has("shapes") ? "shapes" : "pictures";
  std::vector<int> ranks(world.world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto everyone = world.Create(ranks, "latents");
  Control control(*everyone);
  const bool leader = control.rank() == 0;
  const auto device = DeviceOfRank(arguments, world);
  const auto samples = Open(arguments);
  absl::StatusOr<LatentEncoder> encoder = !device.ok() ? device.status()
                                          : !samples.ok()
                                              ? samples.status()
                                              : EncoderOf(arguments, **device);
  SmallerSamples enlarged;
  if (leader && encoder.ok() && Enlarges(arguments)) {
    enlarged = FindSmaller(**samples, *SizesOf(arguments));
  }
  if (enlarged.count > 0) {
    LOG(WARNING) << enlarged.count
                 << " pictures are smaller than every size and are enlarged, "
                    "the first: "
                 << enlarged.first;
  }
  // One host may be slower than another, or lack the files.
  AwaitAllPatiently(*everyone, "samples and autoencoder of other ranks");
  RETURN_IF_ERROR(
      control.Agree(encoder.status(), "opening samples and autoencoder"));
  auto summary = WriteLatentCache(
      **samples, *encoder, options, **device,
      leader ? ProgressOf((*samples)->size(), things) : nullptr);
  AwaitAllPatiently(*everyone, "latents of other ranks");
  RETURN_IF_ERROR(control.Agree(summary.status(), "writing latents"));
  if (!leader) return absl::OkStatus();
  if (control.size() > 1) {
    // Nothing is left to do but to count what all have written.
    summary = WriteLatentCache(**samples, *encoder, options, **device);
    RETURN_IF_ERROR(summary.status());
  }
  if (summary->elsewhere > 0) {
    fmt::print("{} of {} shards are being written by other processes\n",
               summary->elsewhere, summary->shards);
    return absl::OkStatus();
  }
  fmt::print(
      "latents of {} {} in {} shards in {}; {} skipped as {}{}\n",
      summary->samples, things, summary->shards, options.folder,
      summary->skipped,
      encoder->skips_smaller ? "unreadable or smaller than every size"
                             : "unreadable",
      enlarged.count > 0 ? fmt::format("; {} enlarged", enlarged.count) : "");
  return absl::OkStatus();
}

void PrintReport(const ShapeSource& source, const ShapeCacheSummary& summary) {
  constexpr size_t kNamed = 10;
  for (const auto& [rule, shapes] : summary.by_sign_rule) {
    fmt::print("  {} with inside and outside by {}\n", shapes, rule);
  }
  if (summary.repaired_shapes > 0) {
    fmt::print("  {} repaired: {} triangles that were none dropped\n",
               summary.repaired_shapes, summary.repaired_triangles);
  }
  if (summary.worst_mosaic_error > 0) {
    fmt::print(
        "  mosaics are {:.5f} from the distance near the surface, {:.5f} at "
        "worst ({})\n",
        summary.mosaic_error, summary.worst_mosaic_error, summary.worst_mosaic);
  }
  std::map<std::string, std::vector<const RefusedShape*>> by_reason;
  for (const RefusedShape& refused : summary.refused) {
    by_reason[refused.reason].push_back(&refused);
  }
  for (const auto& [reason, refused] : by_reason) {
    fmt::print("{} refused: {}\n", refused.size(), reason);
    for (size_t i = 0; i < std::min(refused.size(), kNamed); ++i) {
      fmt::print("  {}\n", refused[i]->message);
    }
    if (refused.size() > kNamed) {
      fmt::print("  and {} more, in index.json\n", refused.size() - kNamed);
    }
  }
  for (const auto& [archive, message] : source.refused_archives) {
    fmt::print("archive refused: {}\n", message);
  }
}

// A row a class, of the first shapes of each.
absl::Status DrawViews(const std::string& folder, const std::string& path) {
  constexpr size_t kColumns = 12;
  ASSIGN_OR_RETURN(const ShapeCache cache, ShapeCache::Open(folder));
  std::map<int64_t, LabelGridRow> rows;
  for (int64_t i = 0; i < cache.size(); ++i) {
    const int64_t class_id = cache.record(i).class_id;
    LabelGridRow& row = rows[class_id];
    if (class_id >= 0) row.name = cache.class_names()[class_id];
    if (row.images.size() == kColumns) continue;
    const auto view = cache.Read(i).view;
    Image image{cache.view_side(), cache.view_side(), 3, {}};
    image.pixels.assign(view.begin(), view.end());
    row.images.push_back(std::move(image));
  }
  std::vector<LabelGridRow> listed;
  for (auto& [class_id, row] : rows) listed.push_back(std::move(row));
  ASSIGN_OR_RETURN(const Image picture, DrawLabelGrid(listed, {.magnify = 1}));
  return WritePng(path, picture);
}

absl::Status WriteShapes(const ParsedCommand& arguments) {
  ShapeCacheOptions options{.folder = arguments.positionals()[1]};
  ASSIGN_OR_RETURN(options.points,
                   AtLeastOne(arguments, "points", int64_t{1} << 24));
  options.uniform_points = (options.points + 1) / 2;
  ASSIGN_OR_RETURN(options.shapes_per_shard,
                   AtLeastOne(arguments, "shapes_per_shard", 4096));
  ASSIGN_OR_RETURN(const int64_t cells, arguments.GetInt("shell_cells"));
  if (cells < 36 || cells > 512 || cells % 2 != 0) {
    return InvalidArgument(
        "--shell_cells: found {}, expected an even number from 36 to 512",
        cells);
  }
  options.shell_cells = static_cast<int>(cells);
  ASSIGN_OR_RETURN(const int64_t grids, arguments.GetInt("mosaic_grids"));
  ASSIGN_OR_RETURN(const int64_t resolution,
                   arguments.GetInt("mosaic_resolution"));
  if (grids < 0 || grids > 4096 || resolution < 2 || resolution > 16) {
    return InvalidArgument(
        "--mosaic_grids, --mosaic_resolution: found {} and {}, expected 0 to "
        "4096 and 2 to 16",
        grids, resolution);
  }
  options.mosaic.grids = static_cast<int>(grids);
  options.mosaic.resolution = static_cast<int>(resolution);
  ASSIGN_OR_RETURN(const int64_t volume, arguments.GetInt("volume_cells"));
  if (volume < 0 || volume == 1 || volume > kMaxVolumeCells) {
    return InvalidArgument("--volume_cells: found {}, expected 0 or 2 to {}",
                           volume, kMaxVolumeCells);
  }
  options.volume_cells = static_cast<int>(volume);
  if (arguments.Has("views")) {
    ASSIGN_OR_RETURN(const int64_t views,
                     AtLeastOne(arguments, "views", kMaxShapeViews));
    ASSIGN_OR_RETURN(
        const int64_t side,
        AtLeastOne(arguments, "view_resolution", kMaxViewResolution));
    options.views = static_cast<int>(views);
    options.view_resolution = static_cast<int>(side);
  }
  if (arguments.Has("mesh_faces")) {
    ASSIGN_OR_RETURN(options.mesh_faces,
                     AtLeastOne(arguments, "mesh_faces", 1 << 20));
  }
  const auto picture = arguments.Given("picture");
  if (picture.has_value()) {
    RETURN_IF_ERROR(CheckReplaces(*picture, arguments.Has("overwrite")));
  }
  ASSIGN_OR_RETURN(ShapeSource source, FindShapes(arguments.positionals()[0]));
  if (arguments.Has("kind")) {
    RETURN_IF_ERROR(KeepKinds(arguments.All("kind"), source));
  }
  ASSIGN_OR_RETURN(
      const ShapeCacheSummary summary,
      WriteShapeCache(
          source, options,
          ProgressOf(static_cast<int64_t>(source.shapes.size()), "shapes")));
  fmt::print("{} of {} shapes in {} shards in {}\n", summary.shapes,
             source.shapes.size(), summary.shards - summary.elsewhere,
             options.folder);
  PrintReport(source, summary);
  if (summary.elsewhere > 0) {
    fmt::print("{} more shards are being written by other processes\n",
               summary.elsewhere);
    if (picture.has_value()) {
      fmt::print(
          "{} is not drawn: it shows the cache when all of it is there\n",
          *picture);
    }
    return absl::OkStatus();
  }
  if (!picture.has_value()) return absl::OkStatus();
  return DrawViews(options.folder, *picture);
}

// An option that the other kind of data has is a mistake, not one to ignore.
absl::Status CheckOptions(const ParsedCommand& arguments) {
  const bool shapes = arguments.Has("shapes");
  const bool latents = arguments.Has("latents");
  if (arguments.Has("idx") && arguments.Has("shards")) {
    return InvalidArgument("--idx: found with --shards, expected one of them");
  }
  for (const char* option : {"resolution", "size", "side", "enlarge", "shards",
                             "device", "convolution_kernels"}) {
    if (arguments.Has(option) && !arguments.Has("latents")) {
      return InvalidArgument("--{}: found without --latents, expected with it",
                             option);
    }
  }
  const std::vector<const char*> others =
      shapes && latents ? std::vector<const char*>{"idx",
                                                   "split",
                                                   "class_name",
                                                   "resolution",
                                                   "size",
                                                   "side",
                                                   "enlarge",
                                                   "shards",
                                                   "kind",
                                                   "points",
                                                   "shapes_per_shard",
                                                   "shell_cells",
                                                   "mosaic_grids",
                                                   "mosaic_resolution",
                                                   "volume_cells",
                                                   "view_resolution",
                                                   "mesh_faces",
                                                   "picture",
                                                   "overwrite"}
      : shapes          ? std::vector<const char*>{"idx", "split", "class_name",
                                                   "samples_per_shard", "latent_tokens"}
                        : std::vector<const char*>{
                              "kind",           "points",        "shapes_per_shard",
                              "shell_cells",    "mosaic_grids",  "mosaic_resolution",
                              "volume_cells",   "mesh_faces",    "picture",
                              "overwrite",      "latent_tokens", "views",
                              "view_resolution"};
  for (const char* option : others) {
    if (!arguments.Has(option)) continue;
    return shapes
               ? InvalidArgument(
                     "--{}: found with --shapes{}, expected without it", option,
                     latents ? " and --latents" : "")
               : InvalidArgument(
                     "--{}: found without --shapes, expected with it", option);
  }
  return absl::OkStatus();
}

int RunOnLatents(const ParsedCommand& arguments, int argc, char** argv) {
  const auto world = JoinWorld(&argc, &argv);
  if (!world.ok()) return Fail(kName, world.status());
  UseThreadsOf((*world)->processor_share());
  const absl::Status status = WriteLatents(arguments, **world);
  if (status.ok()) return 0;
  // All ranks have the same error.
  return (*world)->world_rank() == 0 ? Fail(kName, status) : 1;
}

int Run(const ParsedCommand& arguments, int argc, char** argv) {
  absl::Status status = CheckOptions(arguments);
  if (status.ok()) {
    status = CheckApart(arguments.positionals()[0], arguments.positionals()[1]);
  }
  if (status.ok() && arguments.Has("latents")) {
    return RunOnLatents(arguments, argc, argv);
  }
  if (status.ok()) {
    status = arguments.Has("shapes") ? WriteShapes(arguments)
                                     : WritePictures(arguments);
  }
  return status.ok() ? 0 : Fail(kName, status);
}

}  // namespace

Command DataCommand() {
  return {{.name = kName,
           .summary = "converts pictures into WebDataset shards, also of "
                      "latents, or meshes into a cache of shapes",
           .positionals = {{.name = "SOURCE",
                            .help = "image folder (a subfolder a class), a "
                                    "folder of IDX files with --idx, or a "
                                    "mesh, archive or folder of them with "
                                    "--shapes"},
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
                        .help = "pictures in one tar file"},
                       {.name = "shards",
                        .help = "SOURCE is a folder of tar shards, with "
                                "--latents"},
                       {.name = "latents",
                        .value = "VAE",
                        .help = "the folder of an AutoencoderKL: OUT gets "
                                "latents in the place of pictures; several "
                                "processes may fill one OUT at once, and what "
                                "was stopped goes on. With --shapes the run "
                                "or folder of an autoencoder of shapes, or "
                                "the run of one of sparse voxels, and "
                                "SOURCE a cache of shapes"},
                       DeviceOption(),
                       {.name = "convolution_kernels",
                        .value = "WHOSE",
                        .default_value = "cudnn",
                        .help = "compute an autoencoder's convolutions on a "
                                "GPU: cudnn, where it has any that give the "
                                "same bits in every run, or own"},
                       {.name = "latent_tokens",
                        .value = "N",
                        .help = "latents of a shape (default: as many as the "
                                "autoencoder was trained with)"},
                       {.name = "resolution",
                        .value = "N",
                        .help = "side of the pictures that are encoded"},
                       {.name = "size",
                        .value = "HxW",
                        .help = "one of the sizes at which pictures are "
                                "encoded, each at the one that shows most of "
                                "it, where they are of unlike shapes",
                        .repeated = true},
                       {.name = "side",
                        .value = "N",
                        .help = "sizes of about the area of such a square, "
                                "in place of --size"},
                       {.name = "step",
                        .value = "N",
                        .default_value = "64",
                        .help = "of the sides of those sizes"},
                       {.name = "max_ratio",
                        .value = "R",
                        .default_value = "2",
                        .help = "of their longer to their shorter sides"},
                       {.name = "enlarge",
                        .help = "also pictures that are smaller than every "
                                "size, which else are skipped"},
                       {.name = "shapes",
                        .help = "SOURCE holds meshes (.obj, .ply, .stl, .off, "
                                ".glb, also in .zip and .sh3f); several "
                                "processes may fill one OUT at once"},
                       {.name = "kind",
                        .value = "WORD",
                        .help = "takes shapes with a word that ends in WORD in "
                                "their name, as a class of that name; others "
                                "are left out",
                        .repeated = true},
                       {.name = "points",
                        .value = "N",
                        .default_value = "20480",
                        .help = "of each shape, on its surface and near it; "
                                "half as many anywhere"},
                       {.name = "shapes_per_shard",
                        .value = "N",
                        .default_value = "32",
                        .help = "shapes in one file"},
                       {.name = "shell_cells",
                        .value = "N",
                        .default_value = "128",
                        .help = "a side of the grid that closes open surfaces"},
                       {.name = "mosaic_grids",
                        .value = "N",
                        .default_value = "0",
                        .help = "also fits so many small grids to each shape "
                                "(Mosaic-SDF)"},
                       {.name = "mosaic_resolution",
                        .value = "K",
                        .default_value = "7",
                        .help = "values a side of such a grid"},
                       {.name = "volume_cells",
                        .value = "N",
                        .default_value = "0",
                        .help = "also keeps each shape's distances on a "
                                "grid of N cells a side"},
                       {.name = "views",
                        .value = "N",
                        .help = "also draws each shape from N cameras about "
                                "it, with depths; with --latents of a cache "
                                "that has them, VAE is an AutoencoderKL and "
                                "encodes these"},
                       {.name = "view_resolution",
                        .value = "N",
                        .default_value = "64",
                        .help = "side of those pictures"},
                       {.name = "mesh_faces",
                        .value = "N",
                        .help = "also keeps the meshes, of at most N triangles "
                                "each, and refuses others"},
                       {.name = "picture",
                        .value = "FILE",
                        .help = "PNG: a row a class of the shapes cached"},
                       {.name = "overwrite",
                        .help = "also where FILE is not this program's"}},
           .example =
               "trireme data /usr/share/datasets/fashion-mnist shards --idx"},
          Run};
}

}  // namespace trireme
