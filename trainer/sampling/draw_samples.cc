#include "trainer/sampling/draw_samples.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/data/dataset.h"
#include "runtime/comm/control.h"
#include "runtime/comm/patience.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "trainer/job/batches.h"
#include "trainer/job/job.h"
#include "trainer/job/memory_limit.h"
#include "trainer/sampling/loaded_run.h"
#include "trainer/sampling/places.h"
#include "trainer/sampling/prompts.h"
#include "trainer/sampling/reconstructions.h"
#include "trainer/sampling/route_shares.h"
#include "trainer/sampling/sample_medium.h"
#include "trainer/sampling/sampler.h"

namespace trireme {
namespace {

// Compares what was drawn for `prompts` with real samples; see
// RealSets::picture.
absl::StatusOr<std::string> Compare(const LoadedRun& loaded,
                                    const SampleMedium& medium,
                                    const std::string& picture,
                                    const std::vector<Sample>& prompts,
                                    std::span<const float> samples) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> held_out,
                   OpenHeldOut(loaded.job.data()));
  return medium.Compare(prompts, samples,
                        {*loaded.dataset, held_out.get(), picture});
}

ShapeFiles FilesOf(const DrawOptions& options) {
  ShapeFiles files;
  files.format = options.mesh_format.value_or(files.format);
  files.views = options.turntable.value_or(files.views);
  return files;
}

// How samples are shown, where nothing of a user's is in the way.
absl::StatusOr<std::unique_ptr<SampleMedium>> OpenMedium(
    const DrawOptions& options, const LoadedRun& loaded, Device& device) {
  Data data = loaded.job.data();
  if (options.autoencoder.has_value()) {
    if (!data.has_latents()) {
      return InvalidArgument(
          "vae: found {} for a run of no latents, expected none",
          *options.autoencoder);
    }
    data.mutable_latents()->set_autoencoder(*options.autoencoder);
  }
  ASSIGN_OR_RETURN(std::unique_ptr<SampleMedium> medium,
                   MediumOf(*loaded.setup.family, data, device,
                            options.kept_parts.value_or(KeptParts::kTouching),
                            FilesOf(options)));
  RETURN_IF_ERROR(medium->CheckFiles(options.out, options.overwrite));
  return medium;
}

// Of an autoencoder, which draws nothing: rank 0 shows what it gives back.
absl::StatusOr<DrawReport> GiveBack(const DrawOptions& options, const Job& job,
                                    Communicator& everyone, Control& control) {
  DrawReport report = {.checkpoint = options.checkpoint.value_or(options.run),
                       .things = "shapes"};
  absl::StatusOr<ReconstructionReport> drawn = ReconstructionReport();
  if (control.rank() == 0) {
    CpuDevice host(MemoryLimit(job, options.local_ranks));
    drawn = DrawReconstructions({.model = report.checkpoint,
                                 .out = options.out,
                                 .overwrite = options.overwrite,
                                 .most = options.max_rows,
                                 .shape_files = FilesOf(options),
                                 .stop = options.stop},
                                job.data(), host);
    report.peak_bytes = host.Statistics().peak_bytes;
  }
  AwaitAllPatiently(everyone, "giving shapes back");
  RETURN_IF_ERROR(control.Agree(drawn.status(), "giving shapes back"));
  report.samples = drawn->shapes;
  report.files = drawn->files;
  report.comparison = drawn->figures;
  return report;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> OpenHeldOutVoxels(
    const ModelFamily& family, const Data& data) {
  if (!ReadsVoxels(family) || data.held_out() == 0) {
    return std::unique_ptr<Dataset>();
  }
  return OpenHeldOut(data);
}

SamplerOptions SamplingOf(const SampleConfig& config,
                          const TrainingSetup& setup) {
  SamplerOptions sampling;
  sampling.solver = SolverOf(config);
  sampling.steps = config.steps();
  sampling.guidance = config.guidance();
  sampling.shift = setup.sampling_shift;
  sampling.predicts_clean = setup.objective->predicts_clean();
  sampling.tokens = {.temperature = config.temperature(),
                     .top_k = config.top_k(),
                     .top_p = config.top_p()};
  return sampling;
}

int64_t RowsOf(const SampleConfig& config, const ModelFamily& family) {
  // Of a model with text and no classes as many captions as there are; a batch
  // is full with fewer.
  const int64_t most = DrawOptions().max_rows;
  if (config.prompts_size() > 0) return config.prompts_size();
  if (family.num_classes() > 0) return std::min(family.num_classes(), most);
  return ReadsSamples(family) ? most : 1;
}

absl::StatusOr<DrawReport> DrawSamples(const DrawOptions& options,
                                       CommunicatorFactory& factory) {
  std::vector<int> ranks(factory.world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  const std::unique_ptr<Communicator> everyone =
      factory.Create(ranks, "drawing");
  Control control(*everyone);
  const bool leader = control.rank() == 0;
  absl::StatusOr<LoadedRun> loaded = LoadRun(options);
  if (loaded.ok()) {
    const absl::Status asked =
        CheckPrompts("prompts", static_cast<int64_t>(options.prompts.size()),
                     *loaded->setup.family);
    if (!asked.ok()) loaded = asked;
  }
  if (loaded.ok() && options.places.has_value() &&
      (!ReadsVoxels(*loaded->setup.family) ||
       loaded->setup.family->reconstructs())) {
    loaded = InvalidArgument(
        "places: found {} for a model that draws at no places, expected none",
        *options.places);
  }
  if (loaded.ok() && options.kept_parts.has_value() &&
      (!DrawsFields(loaded->job.data()) ||
       loaded->setup.family->reconstructs())) {
    loaded = InvalidArgument(
        "parts: found some chosen for samples that are no surfaces of fields, "
        "expected none");
  }
  if (loaded.ok() &&
      (options.mesh_format.has_value() || options.turntable.has_value()) &&
      !DrawsShapes(loaded->job.data())) {
    loaded = InvalidArgument(
        "{}: found for samples that are no shapes, expected none",
        options.mesh_format.has_value() ? "mesh_format" : "turntable");
  }
  if (loaded.ok() && loaded->setup.family->grammar() == nullptr &&
      (options.temperature.has_value() || options.top_k.has_value() ||
       options.top_p.has_value())) {
    loaded = InvalidArgument(
        "{}: found for a model that does not draw token by token, expected "
        "none",
        options.temperature.has_value() ? "temperature"
        : options.top_k.has_value()     ? "top_k"
                                        : "top_p");
  }
  RETURN_IF_ERROR(control.Agree(loaded.status(), "opening the run"));
  if (loaded->setup.family->classifies()) {
    return FailedPrecondition(
        "model: found one that names the classes of pictures, expected one "
        "that draws");
  }
  if (loaded->setup.family->reconstructs()) {
    return GiveBack(options, loaded->job, *everyone, control);
  }
  const std::unique_ptr<Device> device = options.device.Make(
      MemoryLimit(loaded->job, options.device, options.local_ranks),
      loaded->setup.kernel_libraries);
  // Latents of a GPU's model are decoded by the processor.
  CpuDevice host(std::numeric_limits<int64_t>::max());
  // Rank 0 shows what all have drawn.
  const auto medium =
      leader ? OpenMedium(options, *loaded, device->on_host() ? *device : host)
             : absl::StatusOr<std::unique_ptr<SampleMedium>>();
  absl::Status status;
  if (leader) status = medium.status();
  RETURN_IF_ERROR(control.Agree(status, "what is drawn before"));
  DrawReport report;
  if (leader) {
    report.things = (*medium)->things();
    report.files = (*medium)->FilesOf(options.out);
  }
  ASSIGN_OR_RETURN(report.checkpoint,
                   ChooseCheckpoint(*everyone, control, options));
  ASSIGN_OR_RETURN(const SamplerOptions sampling,
                   SamplingFor(options, *loaded));
  const int64_t per_row =
      options.per_class.value_or(loaded->job.sample().per_class());

  absl::StatusOr<std::vector<Prompt>> rows = std::vector<Prompt>();
  if (leader) {
    const auto& of_job = loaded->job.sample().prompts();
    const std::vector<std::string> captions(of_job.begin(), of_job.end());
    rows = RowPrompts(loaded->prompts(),
                      options.prompts.empty() ? captions : options.prompts,
                      options.max_rows);
  }
  ASSIGN_OR_RETURN(std::vector<Sample> prompts,
                   SharePrompts(*everyone, control,
                                rows.ok() ? SamplesOf(*rows, per_row)
                                          : absl::StatusOr<std::vector<Sample>>(
                                                rows.status())));
  std::vector<Sample> compared;
  if (options.evaluate > 0) {
    absl::StatusOr<std::vector<Sample>> asked = std::vector<Sample>();
    if (leader) {
      const auto evaluated =
          EvaluationPrompts(loaded->prompts(), options.evaluate);
      if (evaluated.ok()) {
        asked = SamplesOf(*evaluated, 1);
      } else {
        asked = evaluated.status();
      }
    }
    ASSIGN_OR_RETURN(compared, SharePrompts(*everyone, control, asked));
  }
  // The model of places is gone before the one that draws there is built.
  if (options.places.has_value()) {
    for (std::vector<Sample>* asked : {&prompts, &compared}) {
      ASSIGN_OR_RETURN(*asked, DrawPlaces(options, *loaded, *asked, *device,
                                          factory, *everyone, control));
    }
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Sampler> opened,
                   OpenSampler(options, *loaded, report.checkpoint, *device,
                               factory, control));
  Sampler& sampler = *opened;
  ASSIGN_OR_RETURN(const std::vector<float> drawn,
                   sampler.Draw(sampling, options.seed, prompts));
  report.samples = static_cast<int64_t>(prompts.size());
  if (leader) {
    std::vector<std::string> names;
    for (const Prompt& row : *rows) names.push_back(row.name);
    status = (*medium)->Write(options.out,
                              {names, per_row, drawn, prompts, options.stop});
  }
  report.peak_bytes = device->Statistics().peak_bytes;
  // Rank 0 makes meshes, which takes what it takes.
  AwaitAllPatiently(*everyone, "writing what is drawn");
  RETURN_IF_ERROR(control.Agree(status, "writing what is drawn"));
  if (options.evaluate == 0) return report;

  SamplerOptions plain = sampling;
  plain.guidance = 1;
  ASSIGN_OR_RETURN(const std::vector<float> generated,
                   sampler.Draw(plain, options.seed + 1, compared));
  absl::StatusOr<std::string> comparison = "";
  if (leader) {
    comparison = Compare(*loaded, **medium, options.out, compared, generated);
  }
  if (leader && comparison.ok() && loaded->setup.family->experts() != nullptr) {
    *comparison += RouteSharesText(options.run);
  }
  AwaitAllPatiently(*everyone, "comparing with real samples");
  RETURN_IF_ERROR(
      control.Agree(comparison.status(), "comparing with real samples"));
  report.comparison = *std::move(comparison);
  return report;
}

absl::StatusOr<MemoryStatistics> PredictMemoryOfDrawing(
    const Job& job, const TrainingSetup& setup, const Plan& plan, int rank,
    DeviceKind kind) {
  ASSIGN_OR_RETURN(
      MemoryStatistics memory,
      Sampler::PredictMemory(
          SetupToDraw(setup), plan, rank, SamplingOf(job.sample(), setup),
          RowsOf(job.sample(), *setup.family) * job.sample().per_class(),
          kind));
  if (rank > 0 || kind != DeviceKind::kCpu) return memory;
  // Rank 0 has the decoder beside the model.
  ASSIGN_OR_RETURN(const int64_t decoding,
                   PredictMemoryOfDecoding(*setup.family, job.data()));
  memory.peak_bytes += decoding;
  return memory;
}

}  // namespace trireme
