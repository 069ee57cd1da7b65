// trireme sample: pictures or shapes from a run.

#include <filesystem>
#include <map>
#include <system_error>

#include "fmt/format.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/device_world.h"
#include "runtime/comm/mpi/mpi_world.h"
#include "runtime/core/check_range.h"
#include "runtime/core/status.h"
#include "tools/commands.h"
#include "tools/device_option.h"
#include "tools/mpirun.h"
#include "tools/run_as_rank.h"
#include "tools/size_option.h"
#include "trainer/run/is_run.h"
#include "trainer/run/run_folder.h"
#include "trainer/sampling/draw_samples.h"

namespace trireme {
namespace {

constexpr char kName[] = "sample";

// Real pictures vote by threes for the class of a drawn one.
constexpr int64_t kLeastEvaluated = 3;

absl::StatusOr<DrawOptions> OptionsOf(const ParsedCommand& arguments) {
  DrawOptions options;
  options.run = arguments.positionals()[0];
  RETURN_IF_ERROR(CheckIsRun(options.run));
  options.out = arguments.Get("out");
  if (!options.out.ends_with(".png")) {
    return InvalidArgument(
        "--out: found '{}', expected a name that ends in .png", options.out);
  }
  options.overwrite = arguments.Has("overwrite");
  if (arguments.Has("checkpoint")) {
    options.checkpoint = arguments.Get("checkpoint");
    // A name alone is one of the run's.
    std::error_code error;
    const std::string of_run =
        RunFolder(options.run).checkpoints() + "/" + *options.checkpoint;
    if (!std::filesystem::exists(*options.checkpoint, error)) {
      if (!std::filesystem::exists(of_run, error)) {
        const absl::StatusOr<std::string> newest =
            LatestCheckpoint(RunFolder(options.run).checkpoints());
        return InvalidArgument(
            "--checkpoint: found no '{}', neither here nor in {}, expected a "
            "checkpoint's folder{}",
            *options.checkpoint, RunFolder(options.run).checkpoints(),
            newest.ok() ? ", as " + *newest : "");
      }
      options.checkpoint = of_run;
    }
  }
  if (arguments.Has("solver")) {
    const std::map<std::string, Solver> solvers = {{"euler", Solver::kEuler},
                                                   {"heun", Solver::kHeun},
                                                   {"ddim", Solver::kDdim},
                                                   {"ddpm", Solver::kDdpm}};
    const auto solver = solvers.find(arguments.Get("solver"));
    if (solver == solvers.end()) {
      return InvalidArgument(
          "--solver: found '{}', expected euler, heun, ddim or ddpm",
          arguments.Get("solver"));
    }
    options.solver = solver->second;
  }
  const auto bounded = [&](const char* name, int64_t low,
                           int64_t high) -> absl::StatusOr<int64_t> {
    ASSIGN_OR_RETURN(const int64_t value, arguments.GetInt(name));
    RETURN_IF_ERROR(CheckRange(fmt::format("--{}", name), value, low, high));
    return value;
  };
  if (arguments.Has("steps")) {
    ASSIGN_OR_RETURN(options.steps, bounded("steps", 1, 10000));
  }
  if (arguments.Has("per_class")) {
    ASSIGN_OR_RETURN(options.per_class, bounded("per_class", 1, 1000));
  }
  if (arguments.Has("guidance")) {
    ASSIGN_OR_RETURN(options.guidance, arguments.GetDouble("guidance"));
  }
  const auto real = [&](const char* name,
                        double high) -> absl::StatusOr<double> {
    ASSIGN_OR_RETURN(const double value, arguments.GetDouble(name));
    RETURN_IF_ERROR(CheckRange(fmt::format("--{}", name), value, 0, high));
    return value;
  };
  if (arguments.Has("temperature")) {
    ASSIGN_OR_RETURN(options.temperature, real("temperature", 100));
  }
  if (arguments.Has("top_k")) {
    ASSIGN_OR_RETURN(options.top_k, bounded("top_k", 0, 1000000000));
  }
  if (arguments.Has("top_p")) {
    ASSIGN_OR_RETURN(options.top_p, real("top_p", 1));
  }
  ASSIGN_OR_RETURN(const int64_t seed, bounded("seed", 0, INT64_MAX));
  options.seed = static_cast<uint64_t>(seed);
  options.prompts = arguments.All("prompt");
  options.autoencoder = arguments.Given("vae");
  options.places = arguments.Given("places");
  if (arguments.Has("size")) {
    ASSIGN_OR_RETURN(options.size,
                     ParsePictureSize("size", arguments.Get("size")));
  }
  if (arguments.Has("parts")) {
    const std::map<std::string, KeptParts> parts = {
        {"all", KeptParts::kAll},
        {"touching", KeptParts::kTouching},
        {"largest", KeptParts::kLargest}};
    const auto kept = parts.find(arguments.Get("parts"));
    if (kept == parts.end()) {
      return InvalidArgument(
          "--parts: found '{}', expected all, touching or largest",
          arguments.Get("parts"));
    }
    options.kept_parts = kept->second;
  }
  if (arguments.Has("mesh_format")) {
    const std::string format = arguments.Get("mesh_format");
    if (format != "glb" && format != "obj" && format != "ply") {
      return InvalidArgument(
          "--mesh_format: found '{}', expected glb, obj or ply", format);
    }
    options.mesh_format = format;
  }
  if (arguments.Has("turntable")) {
    ASSIGN_OR_RETURN(const int64_t views, bounded("turntable", 1, 64));
    options.turntable = static_cast<int>(views);
  }
  ASSIGN_OR_RETURN(options.max_rows, bounded("rows", 1, 1000));
  ASSIGN_OR_RETURN(options.evaluate, bounded("evaluate", 0, 100000));
  if (options.evaluate > 0 && options.evaluate < kLeastEvaluated) {
    return InvalidArgument("--evaluate: found {}, expected 0 or at least {}",
                           options.evaluate, kLeastEvaluated);
  }
  options.ema = !arguments.Has("no_ema");
  return options;
}

int Run(const ParsedCommand& arguments, int argc, char** argv) {
  auto options = OptionsOf(arguments);
  if (!options.ok()) return Fail(kName, options.status());
  const auto world = JoinWorld(&argc, &argv);
  if (!world.ok()) return Fail(kName, world.status());
  UseThreadsOf((*world)->processor_share());
  options->local_ranks = (*world)->processor_share().ranks;
  const auto device =
      DeviceOf(arguments, (*world)->local_rank(), options->local_ranks);
  if (!device.ok()) {
    Fail(kName, device.status());
    if ((*world)->world_size() > 1) MpiWorld::Abort(1);
    return 1;
  }
  options->device = *device;
  const DeviceWorld devices =
      MakeDeviceWorld(**world, options->device, (*world)->hang_watch());
  const auto report = DrawSamples(*options, *devices.factory);
  if (!report.ok()) {
    // All ranks have the same error.
    if ((*world)->world_rank() != 0) return 1;
    return Fail(kName, report.status());
  }
  if ((*world)->world_rank() != 0) return 0;
  fmt::print("{} {} from {} in {}\n{}", report->samples, report->things,
             report->checkpoint, report->files, report->comparison);
  return 0;
}

}  // namespace

Command SampleCommand() {
  return {
      {.name = kName,
       .summary = "draws pictures or shapes from a run's newest checkpoint, "
                  "alone or under mpirun on as many ranks as the run's plan",
       .positionals = {{.name = "RUN", .help = "the run's folder"}},
       .options =
           {{.name = "out",
             .value = "FILE",
             .default_value = "samples.png",
             .help = "PNG: a labelled grid, a row a class; the meshes of "
                     "shapes in a folder of its name, or NAME_meshes where "
                     "that is a run's"},
            DeviceOption(),
            {.name = "overwrite",
             .help = "also where files are not this program's"},
            {.name = "checkpoint",
             .value = "DIR",
             .help =
                 "one of the run's, as step_00001200, or any other's folder"},
            {.name = "solver",
             .value = "NAME",
             .help = "euler or heun; of diffusion ddim or ddpm (default: the "
                     "job's)"},
            {.name = "steps", .value = "N", .help = "solver steps"},
            {.name = "guidance",
             .value = "W",
             .help = "classifier-free guidance; 1 = none"},
            {.name = "temperature",
             .value = "T",
             .help = "of models that draw token by token; 0 = the likeliest"},
            {.name = "top_k",
             .value = "K",
             .help = "of the likeliest tokens only so many; 0 = all"},
            {.name = "top_p",
             .value = "P",
             .help = "of those only the ones whose probabilities come to P"},
            {.name = "size",
             .value = "HxW",
             .help = "height and width of the pictures (of their latents in "
                     "theirs), others than the job's; with data.buckets the "
                     "default is the first size"},
            {.name = "per_class", .value = "N", .help = "samples in a row"},
            {.name = "vae",
             .value = "FOLDER",
             .help = "of a run on latents, what decodes them (default: what "
                     "encoded them)"},
            {.name = "places",
             .value = "RUN",
             .help = "of a model that draws at places, a run that draws these "
                     "(default: those of the data's samples)"},
            {.name = "prompt",
             .value = "TEXT",
             .help = "a caption to draw for, of models that read "
                     "captions themselves (default: the job's)",
             .repeated = true},
            {.name = "parts",
             .value = "WHICH",
             .help = "of shapes that are surfaces of fields: all that are "
                     "drawn; touching (the default): the largest and what ends "
                     "within a fortieth of the cube's side from it; largest: "
                     "that alone"},
            {.name = "mesh_format",
             .value = "NAME",
             .help = "of the meshes of shapes: glb (the default), obj or ply"},
            {.name = "turntable",
             .value = "N",
             .help = "of shapes, N pictures of each from all around, in a row "
                     "of its own"},
            {.name = "rows",
             .value = "N",
             .default_value = "20",
             .help = "classes or captions at most"},
            {.name = "seed",
             .value = "N",
             .default_value = "0",
             .help = "of the noise"},
            {.name = "no_ema", .help = "the weights, not their average"},
            {.name = "evaluate",
             .value = "N",
             .default_value = "0",
             .help = "also measures N unguided samples against real ones"}},
       .example = "trireme sample runs/fashion-mnist --out samples.png "
                  "--evaluate 500"},
      Run};
}

}  // namespace trireme
