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
#include "models/sampling/diffusion_sampler.h"
#include "models/weights/tensor_source.h"
#include "parallel/stored_tensors.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/comm/control.h"
#include "runtime/comm/patience.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "scheduler/plan/plan.h"
#include "trainer/batches.h"
#include "trainer/config/textproto.h"
#include "trainer/job.h"
#include "trainer/memory_limit.h"
#include "trainer/run/class_names.h"
#include "trainer/run/initial_weights.h"
#include "trainer/run/run_folder.h"
#include "trainer/sampling/prompts.h"
#include "trainer/sampling/reconstructions.h"
#include "trainer/sampling/sample_medium.h"
#include "trainer/sampling/sampler.h"

namespace trireme {
namespace {

struct Loaded {
  Job job;
  TrainingSetup setup;
  // Null where the run tells its classes and nothing else is needed.
  std::unique_ptr<Dataset> dataset;
  // Where samples are drawn at the voxels of others.
  std::unique_ptr<Dataset> held_out_voxels;
  std::vector<std::string> class_names;

  PromptSource prompts() const {
    return {*setup.family,
            held_out_voxels != nullptr ? held_out_voxels.get() : dataset.get(),
            class_names};
  }
};

absl::StatusOr<Loaded> LoadRun(const DrawOptions& options) {
  const RunFolder folder(options.run);
  Loaded loaded;
  RETURN_IF_ERROR(ParseTextProtoFile(folder.job(), &loaded.job).status());
  const auto names = ReadClassNames(folder);
  if (!names.ok() && !absl::IsNotFound(names.status())) return names.status();
  if (names.ok()) {
    loaded.class_names = *names;
    ASSIGN_OR_RETURN(
        loaded.setup,
        ResolveJob(loaded.job,
                   {.classes = static_cast<int64_t>(names->size())}));
  }
  // Text comes from samples, and so does what is compared with.
  if (!names.ok() || options.evaluate > 0 ||
      ReadsSamples(*loaded.setup.family)) {
    ASSIGN_OR_RETURN(loaded.dataset, OpenDataset(loaded.job.data()));
  }
  if (!names.ok()) {
    loaded.class_names = ClassNamesOf(*loaded.dataset);
    ASSIGN_OR_RETURN(loaded.setup,
                     ResolveJob(loaded.job, {loaded.dataset->size(),
                                             loaded.dataset->num_classes()}));
  }
  ASSIGN_OR_RETURN(loaded.held_out_voxels,
                   OpenHeldOutVoxels(*loaded.setup.family, loaded.job.data()));
  if (options.size.has_value()) {
    const auto sized = SetupAt(loaded.setup, loaded.job, *options.size);
    RETURN_IF_ERROR(WithContext(sized.status(), "size"));
    loaded.setup = *sized;
  }
  return loaded;
}

// The folder of the checkpoint to draw from, which rank 0 chooses and checks.
absl::StatusOr<std::string> ChooseCheckpoint(Communicator& everyone,
                                             Control& control,
                                             const DrawOptions& options) {
  const std::string folder = RunFolder(options.run).checkpoints();
  absl::StatusOr<std::string> chosen = "";
  if (control.rank() == 0) {
    chosen = options.checkpoint.has_value() ? *options.checkpoint
                                            : LatestCheckpoint(folder);
    if (chosen.ok()) {
      const absl::Status whole = VerifyChecksums(*chosen);
      if (!whole.ok()) chosen = whole;
    }
  }
  // Rank 0 reads all of a checkpoint, which takes what it takes.
  AwaitAllPatiently(everyone, "choosing a checkpoint");
  RETURN_IF_ERROR(control.Agree(chosen.status(), "choosing a checkpoint"));
  control.Broadcast(*chosen, "rank 0's checkpoint");
  return chosen;
}

absl::StatusOr<Plan> PlanToDrawUnder(const DrawOptions& options,
                                     const TrainingSetup& setup,
                                     int64_t ranks) {
  if (ranks == 1) return ResolvePlan(Plan(), PlanContextOf(setup, 1));
  Plan plan;
  const std::string path = RunFolder(options.run).plan();
  RETURN_IF_ERROR(ParseTextProtoFile(path, &plan).status());
  ASSIGN_OR_RETURN(const int64_t expected, RanksOf(plan));
  if (ranks != expected) {
    return InvalidArgument(
        "{}: found a plan for {} ranks, but {} draw; "
        "expected one rank, or as many as the plan's",
        path, expected, ranks);
  }
  return ResolvePlan(plan, PlanContextOf(setup, ranks));
}

// Compares what was drawn for `prompts` with real samples.
absl::StatusOr<std::string> Compare(const Loaded& loaded,
                                    const SampleMedium& medium,
                                    const std::vector<Sample>& prompts,
                                    std::span<const float> samples) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> held_out,
                   OpenHeldOut(loaded.job.data()));
  return medium.Compare(prompts, samples, {*loaded.dataset, held_out.get()});
}

// How samples are shown, where nothing of a user's is in the way.
absl::StatusOr<std::unique_ptr<SampleMedium>> OpenMedium(
    const DrawOptions& options, const Loaded& loaded, Device& device) {
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
                   MediumOf(*loaded.setup.family, data, device));
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
                                 .most = options.max_rows},
                                job.data(), host);
    report.peak_bytes = host.Statistics().peak_bytes;
  }
  AwaitAllPatiently(everyone, "giving shapes back");
  RETURN_IF_ERROR(control.Agree(drawn.status(), "giving shapes back"));
  report.samples = drawn->shapes;
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
  absl::StatusOr<Loaded> loaded = LoadRun(options);
  if (loaded.ok()) {
    const absl::Status asked =
        CheckPrompts("prompts", static_cast<int64_t>(options.prompts.size()),
                     *loaded->setup.family);
    if (!asked.ok()) loaded = asked;
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
      loaded->setup.attention_library);
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
  if (leader) report.things = (*medium)->things();
  ASSIGN_OR_RETURN(report.checkpoint,
                   ChooseCheckpoint(*everyone, control, options));
  const absl::StatusOr<Plan> plan =
      PlanToDrawUnder(options, loaded->setup, factory.world_size());
  RETURN_IF_ERROR(control.Agree(plan.status(), "the plan to draw under"));

  SamplerOptions sampling = SamplingOf(loaded->job.sample(), loaded->setup);
  sampling.solver = options.solver.value_or(sampling.solver);
  sampling.steps = options.steps.value_or(sampling.steps);
  sampling.guidance = options.guidance.value_or(sampling.guidance);
  TokenChoice& tokens = sampling.tokens;
  tokens.temperature = options.temperature.value_or(tokens.temperature);
  tokens.top_k = options.top_k.value_or(tokens.top_k);
  tokens.top_p = options.top_p.value_or(tokens.top_p);
  RETURN_IF_ERROR(
      CheckSampling(sampling, loaded->setup.objective->noise_schedule()));
  const int64_t per_row =
      options.per_class.value_or(loaded->job.sample().per_class());

  const absl::StatusOr<std::unique_ptr<Sampler>> created =
      Sampler::Create(loaded->setup, *plan, *device, factory);
  RETURN_IF_ERROR(control.Agree(created.status(), "building the model"));
  Sampler& sampler = **created;
  const std::string ema = report.checkpoint + "/" + kEmaFile;
  const bool use_ema = options.ema && StoredTensors::Exist(ema);
  const auto source =
      OpenWeights(report.checkpoint, use_ema, *loaded->setup.family);
  RETURN_IF_ERROR(control.Agree(source.status(), "opening the weights"));
  RETURN_IF_ERROR(sampler.LoadWeights(**source));

  absl::StatusOr<std::vector<Prompt>> rows = std::vector<Prompt>();
  if (leader) {
    const auto& of_job = loaded->job.sample().prompts();
    const std::vector<std::string> captions(of_job.begin(), of_job.end());
    rows = RowPrompts(loaded->prompts(),
                      options.prompts.empty() ? captions : options.prompts,
                      options.max_rows);
  }
  ASSIGN_OR_RETURN(const std::vector<Sample> prompts,
                   SharePrompts(*everyone, control,
                                rows.ok() ? SamplesOf(*rows, per_row)
                                          : absl::StatusOr<std::vector<Sample>>(
                                                rows.status())));
  ASSIGN_OR_RETURN(const std::vector<float> drawn,
                   sampler.Draw(sampling, options.seed, prompts));
  report.samples = static_cast<int64_t>(prompts.size());
  if (leader) {
    std::vector<std::string> names;
    for (const Prompt& row : *rows) names.push_back(row.name);
    status = (*medium)->Write(options.out, {names, per_row, drawn, prompts});
  }
  report.peak_bytes = device->Statistics().peak_bytes;
  // Rank 0 makes meshes, which takes what it takes.
  AwaitAllPatiently(*everyone, "writing what is drawn");
  RETURN_IF_ERROR(control.Agree(status, "writing what is drawn"));
  if (options.evaluate == 0) return report;

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
  ASSIGN_OR_RETURN(const std::vector<Sample> shared,
                   SharePrompts(*everyone, control, asked));
  SamplerOptions plain = sampling;
  plain.guidance = 1;
  ASSIGN_OR_RETURN(const std::vector<float> generated,
                   sampler.Draw(plain, options.seed + 1, shared));
  absl::StatusOr<std::string> comparison = "";
  if (leader) comparison = Compare(*loaded, **medium, shared, generated);
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
          setup, plan, rank, SamplingOf(job.sample(), setup),
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
