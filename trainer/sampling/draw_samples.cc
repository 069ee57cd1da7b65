#include "trainer/sampling/draw_samples.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/data/dataset.h"
#include "models/data/sample_order.h"
#include "models/weights/tensor_source.h"
#include "nlohmann/json.hpp"
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
#include "trainer/sampling/sample_medium.h"
#include "trainer/sampling/sampler.h"

namespace trireme {
namespace {

using Json = nlohmann::json;

struct Loaded {
  Job job;
  TrainingSetup setup;
  // Null where the run tells its classes and nothing else is needed.
  std::unique_ptr<Dataset> dataset;
  std::vector<std::string> class_names;
};

bool Reads(const ModelFamily& family, std::string_view field) {
  const std::vector<FieldSpec> fields = AllFields(family);
  return std::any_of(
      fields.begin(), fields.end(),
      [field](const FieldSpec& spec) { return spec.name == field; });
}

// Whether what it is conditioned by is a part of samples: a text or a picture.
bool ReadsSamples(const ModelFamily& family) {
  return Reads(family, kTextField) || Reads(family, kPictureCountField);
}

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

SamplerOptions SamplingOf(const SampleConfig& config,
                          const TrainingSetup& setup) {
  SamplerOptions sampling;
  sampling.solver = config.solver() == SampleConfig::HEUN ? FlowSolver::kHeun
                                                          : FlowSolver::kEuler;
  sampling.steps = config.steps();
  sampling.guidance = config.guidance();
  sampling.shift = setup.sampling_shift;
  sampling.predicts_clean = setup.objective->predicts_clean();
  return sampling;
}

// What a sample is drawn for: the class, text and picture of a sample.
struct Prompt {
  std::string name;
  Sample sample;
};

bool KnowsClass(const Sample& sample, const ModelFamily& family) {
  return family.num_classes() == 0 ||
         (sample.class_id >= 0 && sample.class_id < family.num_classes());
}

// What prompts are made of.
SampleParts PromptParts(const ModelFamily& family) {
  return {.image = Reads(family, kPictureCountField),
          .text = true,
          .caption = true,
          .text_layers = true};
}

// The first `most` classes, each with the text of a sample of its own.
std::vector<Prompt> ClassPrompts(const Loaded& loaded, int64_t most) {
  const ModelFamily& family = *loaded.setup.family;
  std::vector<Prompt> prompts(std::min(most, family.num_classes()));
  for (size_t i = 0; i < prompts.size(); ++i) {
    prompts[i].name = loaded.class_names[i];
    prompts[i].sample.class_id = static_cast<int>(i);
  }
  // A class without a readable sample is drawn without text.
  if (!ReadsSamples(family)) return prompts;
  const Dataset& dataset = *loaded.dataset;
  const SampleParts parts = PromptParts(family);
  // In an order in which each class comes soon.
  const SampleOrder order(/*seed=*/0, dataset.size());
  std::vector<bool> found(prompts.size(), false);
  size_t missing = prompts.size();
  for (int64_t i = 0; i < dataset.size() && missing > 0; ++i) {
    absl::StatusOr<Sample> sample = dataset.ReadParts(order.Index(i), parts);
    if (!sample.ok() || !KnowsClass(*sample, family)) continue;
    const auto label = static_cast<size_t>(sample->class_id);
    if (label >= prompts.size() || found[label]) continue;
    prompts[label].sample = *std::move(sample);
    found[label] = true;
    --missing;
  }
  return prompts;
}

// Captions, and classes if there are such, of up to `most` readable samples,
// from the index `at(0)`, `at(1)`, ...
absl::StatusOr<std::vector<Prompt>> SamplePrompts(
    const Loaded& loaded, int64_t most,
    const std::function<int64_t(int64_t)>& at) {
  const int64_t size = loaded.dataset->size();
  const SampleParts parts = PromptParts(*loaded.setup.family);
  std::vector<Prompt> prompts;
  for (int64_t i = 0; i < size && static_cast<int64_t>(prompts.size()) < most;
       ++i) {
    absl::StatusOr<Sample> sample = loaded.dataset->ReadParts(at(i), parts);
    if (!sample.ok() || !KnowsClass(*sample, *loaded.setup.family)) continue;
    prompts.push_back({sample->caption, *std::move(sample)});
  }
  if (prompts.empty()) {
    return NotFound("found no readable sample among {}, whose text to draw for",
                    size);
  }
  return prompts;
}

// A row a caption that was asked for, which the model reads.
std::vector<Prompt> CaptionPrompts(const std::vector<std::string>& captions) {
  std::vector<Prompt> prompts;
  for (const std::string& caption : captions) {
    Prompt& prompt = prompts.emplace_back();
    prompt.name = prompt.sample.caption = caption;
  }
  return prompts;
}

// A row a prompt; else a row a class; of others that read samples a row a
// sample, of the first samples; of others one row.
absl::StatusOr<std::vector<Prompt>> RowPrompts(
    const Loaded& loaded, const std::vector<std::string>& captions,
    int64_t most) {
  const ModelFamily& family = *loaded.setup.family;
  if (!captions.empty()) return CaptionPrompts(captions);
  if (family.num_classes() > 0) return ClassPrompts(loaded, most);
  if (!ReadsSamples(family)) return std::vector<Prompt>(1);
  return SamplePrompts(loaded, most, [](int64_t i) { return i; });
}

// One prompt a sample, as real ones have them: of models that read samples
// those of samples, of others as many of each class, give or take one.
absl::StatusOr<std::vector<Prompt>> EvaluationPrompts(const Loaded& loaded,
                                                      int64_t count) {
  const ModelFamily& family = *loaded.setup.family;
  std::vector<Prompt> prompts;
  if (ReadsSamples(family)) {
    const SampleOrder order(/*seed=*/0, loaded.dataset->size());
    ASSIGN_OR_RETURN(prompts, SamplePrompts(loaded, count, [&](int64_t i) {
                       return order.Index(i);
                     }));
    // Those of a small data set come again.
    const size_t own = prompts.size();
    while (static_cast<int64_t>(prompts.size()) < count) {
      prompts.push_back(prompts[prompts.size() - own]);
    }
    return prompts;
  }
  prompts.resize(count);
  for (int64_t i = 0; i < count && family.num_classes() > 0; ++i) {
    prompts[i].sample.class_id = static_cast<int>(i % family.num_classes());
  }
  return prompts;
}

// What `each` samples a prompt are drawn for, prompt by prompt.
std::vector<Sample> SamplesOf(const std::vector<Prompt>& prompts,
                              int64_t each) {
  std::vector<Sample> samples;
  for (const Prompt& prompt : prompts) {
    samples.insert(samples.end(), each, prompt.sample);
  }
  return samples;
}

// Rank 0's prompts, on every rank: what each is drawn for, without its name.
absl::StatusOr<std::vector<Sample>> Share(
    Communicator& everyone, Control& control,
    const absl::StatusOr<std::vector<Sample>>& prompts) {
  // Rank 0 reads samples until it has a prompt for each row.
  AwaitAllPatiently(everyone, "choosing prompts");
  RETURN_IF_ERROR(control.Agree(prompts.status(), "choosing prompts"));
  std::string packed;
  if (control.rank() == 0) {
    Json list = Json::array();
    for (const Sample& sample : *prompts) {
      list.push_back({sample.class_id, sample.caption, sample.text_tokens,
                      sample.text_count, sample.text_width, sample.text_pooled,
                      sample.text_layers, sample.text_layer_count,
                      sample.text_layer_width, sample.image.width,
                      sample.image.height, sample.image.channels,
                      Json::binary(sample.image.pixels)});
    }
    const std::vector<uint8_t> bytes = Json::to_cbor(list);
    packed.assign(bytes.begin(), bytes.end());
  }
  control.Broadcast(packed, "prompts");
  if (control.rank() == 0) return *prompts;
  std::vector<Sample> samples;
  for (const Json& entry : Json::from_cbor(packed)) {
    Sample& sample = samples.emplace_back();
    sample.class_id = entry[0].get<int>();
    sample.caption = entry[1].get<std::string>();
    sample.text_tokens = entry[2].get<std::vector<float>>();
    sample.text_count = entry[3].get<int>();
    sample.text_width = entry[4].get<int>();
    sample.text_pooled = entry[5].get<std::vector<float>>();
    sample.text_layers = entry[6].get<std::vector<float>>();
    sample.text_layer_count = entry[7].get<int>();
    sample.text_layer_width = entry[8].get<int>();
    sample.image = {.width = entry[9].get<int>(),
                    .height = entry[10].get<int>(),
                    .channels = entry[11].get<int>(),
                    .pixels = entry[12].get_binary()};
  }
  return samples;
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

}  // namespace

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
  const std::unique_ptr<Device> device = options.device.Make(
      MemoryLimit(loaded->job, options.device, options.local_ranks));
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
    rows = RowPrompts(*loaded,
                      options.prompts.empty() ? captions : options.prompts,
                      options.max_rows);
  }
  ASSIGN_OR_RETURN(
      const std::vector<Sample> prompts,
      Share(*everyone, control,
            rows.ok() ? SamplesOf(*rows, per_row)
                      : absl::StatusOr<std::vector<Sample>>(rows.status())));
  ASSIGN_OR_RETURN(const std::vector<float> drawn,
                   sampler.Draw(sampling, options.seed, prompts));
  report.samples = static_cast<int64_t>(prompts.size());
  if (leader) {
    std::vector<std::string> names;
    for (const Prompt& row : *rows) names.push_back(row.name);
    status = (*medium)->Write(options.out, {names, per_row, drawn});
  }
  report.peak_bytes = device->Statistics().peak_bytes;
  // Rank 0 makes meshes, which takes what it takes.
  AwaitAllPatiently(*everyone, "writing what is drawn");
  RETURN_IF_ERROR(control.Agree(status, "writing what is drawn"));
  if (options.evaluate == 0) return report;

  absl::StatusOr<std::vector<Sample>> asked = std::vector<Sample>();
  if (leader) {
    const auto evaluated = EvaluationPrompts(*loaded, options.evaluate);
    if (evaluated.ok()) {
      asked = SamplesOf(*evaluated, 1);
    } else {
      asked = evaluated.status();
    }
  }
  ASSIGN_OR_RETURN(const std::vector<Sample> shared,
                   Share(*everyone, control, asked));
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
  // Of a model with text and no classes as many captions as there are; a batch
  // is full with fewer.
  const int64_t most = DrawOptions().max_rows;
  const int64_t rows = job.sample().prompts_size() > 0
                           ? job.sample().prompts_size()
                       : setup.family->num_classes() > 0
                           ? std::min(setup.family->num_classes(), most)
                       : ReadsSamples(*setup.family) ? most
                                                     : 1;
  ASSIGN_OR_RETURN(
      MemoryStatistics memory,
      Sampler::PredictMemory(setup, plan, rank, SamplingOf(job.sample(), setup),
                             rows * job.sample().per_class(), kind));
  if (rank > 0 || kind != DeviceKind::kCpu) return memory;
  // Rank 0 has the decoder beside the model.
  ASSIGN_OR_RETURN(const int64_t decoding,
                   PredictMemoryOfDecoding(*setup.family, job.data()));
  memory.peak_bytes += decoding;
  return memory;
}

}  // namespace trireme
