#include "trainer/draw_samples.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "models/data/dataset.h"
#include "models/data/sample_order.h"
#include "models/image/encode.h"
#include "models/image/label_grid.h"
#include "models/image/resize.h"
#include "models/image/transform.h"
#include "models/metrics/nearest_neighbor.h"
#include "models/metrics/sliced_wasserstein.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "trainer/batches.h"
#include "trainer/config/textproto.h"
#include "trainer/dit_sampler.h"
#include "trainer/job.h"
#include "trainer/memory_limit.h"
#include "trainer/run_folder.h"

namespace trireme {
namespace {

// Real pictures and their labels, as the network sees them.
struct RealPictures {
  std::vector<float> pixels;
  std::vector<int32_t> labels;
};

// `count` readable pictures of a data set, in an order keyed by the seed,
// leaving out the first `skip` of that order.
absl::StatusOr<RealPictures> ReadReal(const Dataset& dataset,
                                      const ImageSpec& image, int64_t skip,
                                      int64_t count) {
  RealPictures real;
  const SampleOrder order(/*seed=*/0, dataset.size());
  const int64_t elements = image.channels * image.height * image.width;
  for (int64_t i = skip;
       i < dataset.size() && static_cast<int64_t>(real.labels.size()) < count;
       ++i) {
    const absl::StatusOr<Sample> sample = dataset.Read(order.Index(i));
    if (!sample.ok()) continue;
    const Image fitted =
        WithChannels(ResizeAndCrop(sample->image, static_cast<int>(image.width),
                                   static_cast<int>(image.height)),
                     static_cast<int>(image.channels));
    real.pixels.resize(real.pixels.size() + elements);
    ToFloat(
        fitted,
        std::span<float>(real.pixels).subspan(real.pixels.size() - elements));
    real.labels.push_back(sample->class_id);
  }
  if (static_cast<int64_t>(real.labels.size()) < count) {
    return FailedPrecondition(
        "found {} readable pictures to compare with{}, expected {}",
        real.labels.size(),
        skip > 0 ? fmt::format(" beside {} others", skip) : "", count);
  }
  return real;
}

struct Loaded {
  Job job;
  TrainingSetup setup;
  std::unique_ptr<Dataset> dataset;
  std::string checkpoint;
};

absl::StatusOr<Loaded> LoadRun(const DrawOptions& options) {
  const RunFolder folder(options.run);
  Loaded loaded;
  RETURN_IF_ERROR(ParseTextProtoFile(folder.job(), &loaded.job).status());
  ASSIGN_OR_RETURN(loaded.dataset, OpenDataset(loaded.job.data()));
  ASSIGN_OR_RETURN(loaded.setup,
                   ResolveJob(loaded.job, {loaded.dataset->size(),
                                           loaded.dataset->num_classes()}));
  if (options.checkpoint.has_value()) {
    loaded.checkpoint = *options.checkpoint;
  } else {
    ASSIGN_OR_RETURN(loaded.checkpoint, LatestCheckpoint(folder.checkpoints()));
  }
  return loaded;
}

// What a picture is drawn for.
struct Prompt {
  std::string name;
  int32_t label = 0;        // of models with classes
  std::vector<float> text;  // [text_tokens, text_width], padded
  int32_t text_count = 0;
};

// False if training would pass the sample over, or its class is unknown.
bool Fits(const Sample& sample, const DitConfig& model) {
  const bool text_fits = model.text_tokens == 0 || sample.text_count == 0 ||
                         sample.text_width == model.text_width;
  const bool class_fits =
      model.classes == 0 ||
      (sample.class_id >= 0 && sample.class_id < model.classes);
  return text_fits && class_fits;
}

void SetText(const Sample& sample, const DitConfig& model, Prompt& prompt) {
  prompt.text.assign(model.text_tokens * model.text_width, 0.0F);
  prompt.text_count = static_cast<int32_t>(
      std::min<int64_t>(sample.text_count, model.text_tokens));
  std::copy_n(sample.text_tokens.begin(), prompt.text_count * model.text_width,
              prompt.text.begin());
}

// The first `most` classes, each with the text of a sample of its own.
std::vector<Prompt> ClassPrompts(const Loaded& loaded, int64_t most) {
  const DitConfig& model = loaded.setup.model;
  const Dataset& dataset = *loaded.dataset;
  std::vector<Prompt> prompts(std::min(most, model.classes));
  for (size_t i = 0; i < prompts.size(); ++i) {
    prompts[i].name = dataset.class_name(static_cast<int64_t>(i));
    prompts[i].label = static_cast<int32_t>(i);
  }
  if (model.text_tokens == 0) return prompts;
  // A class without a readable sample is drawn without text.
  for (Prompt& prompt : prompts) SetText(Sample(), model, prompt);
  // In an order in which each class comes soon.
  const SampleOrder order(/*seed=*/0, dataset.size());
  std::vector<bool> found(prompts.size(), false);
  size_t missing = prompts.size();
  for (int64_t i = 0; i < dataset.size() && missing > 0; ++i) {
    const absl::StatusOr<Sample> sample = dataset.Read(order.Index(i));
    if (!sample.ok() || !Fits(*sample, model)) continue;
    const auto label = static_cast<size_t>(sample->class_id);
    if (label >= prompts.size() || found[label]) continue;
    SetText(*sample, model, prompts[label]);
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
  const DitConfig& model = loaded.setup.model;
  const int64_t size = loaded.dataset->size();
  std::vector<Prompt> prompts;
  for (int64_t i = 0; i < size && static_cast<int64_t>(prompts.size()) < most;
       ++i) {
    const absl::StatusOr<Sample> sample = loaded.dataset->Read(at(i));
    if (!sample.ok() || !Fits(*sample, model)) continue;
    Prompt& prompt = prompts.emplace_back();
    prompt.name = sample->caption;
    prompt.label = sample->class_id;
    SetText(*sample, model, prompt);
  }
  if (prompts.empty()) {
    return NotFound("found no readable sample among {}, whose text to draw for",
                    size);
  }
  return prompts;
}

// A row a class; of models with text only a row a caption, of the first
// samples; of others one row.
absl::StatusOr<std::vector<Prompt>> RowPrompts(const Loaded& loaded,
                                               int64_t most) {
  const DitConfig& model = loaded.setup.model;
  if (model.classes > 0) return ClassPrompts(loaded, most);
  if (model.text_tokens == 0) return std::vector<Prompt>(1);
  return SamplePrompts(loaded, most, [](int64_t i) { return i; });
}

// One prompt a picture, as real pictures have them: of models with text those
// of samples, of others as many of each class, give or take one.
absl::StatusOr<std::vector<Prompt>> EvaluationPrompts(const Loaded& loaded,
                                                      int64_t count) {
  const DitConfig& model = loaded.setup.model;
  std::vector<Prompt> prompts;
  if (model.text_tokens > 0) {
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
  for (int64_t i = 0; i < count && model.classes > 0; ++i) {
    prompts[i].label = static_cast<int32_t>(i % model.classes);
  }
  return prompts;
}

// Conditions of `each` pictures a prompt, prompt by prompt.
SampleConditions ConditionsOf(const DitConfig& model,
                              const std::vector<Prompt>& prompts,
                              int64_t each) {
  SampleConditions conditions;
  for (const Prompt& prompt : prompts) {
    for (int64_t i = 0; i < each; ++i) {
      if (model.classes > 0) conditions.labels.push_back(prompt.label);
      if (model.text_tokens == 0) continue;
      conditions.text.insert(conditions.text.end(), prompt.text.begin(),
                             prompt.text.end());
      conditions.text_counts.push_back(prompt.text_count);
    }
  }
  return conditions;
}

absl::Status Evaluate(const Loaded& loaded, const SamplerOptions& sampling,
                      int64_t count, uint64_t seed, DitSampler& sampler,
                      DrawReport& report) {
  const DitConfig& model = loaded.setup.model;
  const int64_t elements =
      model.image.channels * model.image.height * model.image.width;
  ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> held_out,
                   OpenHeldOut(loaded.job.data()));
  ASSIGN_OR_RETURN(const RealPictures train,
                   ReadReal(*loaded.dataset, model.image, 0, count));
  // Without a held-out set: training pictures that are not among `train`.
  report.held_out = held_out != nullptr;
  ASSIGN_OR_RETURN(const RealPictures test,
                   held_out != nullptr
                       ? ReadReal(*held_out, model.image, 0, count)
                       : ReadReal(*loaded.dataset, model.image, count, count));
  ASSIGN_OR_RETURN(const std::vector<Prompt> prompts,
                   EvaluationPrompts(loaded, count));
  const SampleConditions conditions = ConditionsOf(model, prompts, 1);
  SamplerOptions plain = sampling;
  plain.guidance = 1;
  ASSIGN_OR_RETURN(const std::vector<float> generated,
                   sampler.Sample(plain, seed + 1, count, conditions));
  ASSIGN_OR_RETURN(report.distance,
                   SlicedWasserstein(generated, test.pixels, elements));
  ASSIGN_OR_RETURN(report.floor,
                   SlicedWasserstein(train.pixels, test.pixels, elements));
  if (model.classes > 0) {
    ASSIGN_OR_RETURN(
        report.class_accuracy,
        NearestNeighborAccuracy({train.pixels, train.labels},
                                {generated, conditions.labels}, elements));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DrawReport> DrawSamples(const DrawOptions& options) {
  ASSIGN_OR_RETURN(const Loaded loaded, LoadRun(options));
  const SampleConfig& defaults = loaded.job.sample();
  SamplerOptions sampling;
  sampling.solver = options.solver.value_or(
      defaults.solver() == SampleConfig::HEUN ? FlowSolver::kHeun
                                              : FlowSolver::kEuler);
  sampling.steps = options.steps.value_or(defaults.steps());
  sampling.guidance = options.guidance.value_or(defaults.guidance());
  sampling.shift = loaded.setup.flow.shift;
  const int64_t per_row = options.per_class.value_or(defaults.per_class());

  RETURN_IF_ERROR(VerifyChecksums(loaded.checkpoint));
  CpuDevice device(MemoryLimit(loaded.job, /*local_ranks=*/1));
  DitSampler sampler(loaded.setup, device);
  std::error_code error;
  const std::string ema = loaded.checkpoint + "/" + kEmaFile;
  const bool use_ema = options.ema && std::filesystem::exists(ema, error);
  RETURN_IF_ERROR(sampler.LoadWeights(
      use_ema ? ema : loaded.checkpoint + "/" + kWeightsFile));

  ASSIGN_OR_RETURN(const std::vector<Prompt> rows,
                   RowPrompts(loaded, options.max_rows));
  const int64_t count = per_row * static_cast<int64_t>(rows.size());
  ASSIGN_OR_RETURN(
      const std::vector<float> pictures,
      sampler.Sample(sampling, options.seed, count,
                     ConditionsOf(loaded.setup.model, rows, per_row)));
  const ImageSpec& image = loaded.setup.model.image;
  const int64_t elements = image.channels * image.height * image.width;
  std::vector<LabelGridRow> grid;
  for (size_t row = 0; row < rows.size(); ++row) {
    grid.push_back({rows[row].name, {}});
    for (int64_t i = 0; i < per_row; ++i) {
      const int64_t at = static_cast<int64_t>(row) * per_row + i;
      grid.back().images.push_back(FromFloat(
          std::span<const float>(pictures).subspan(at * elements, elements),
          static_cast<int>(image.width), static_cast<int>(image.height),
          static_cast<int>(image.channels)));
    }
  }
  ASSIGN_OR_RETURN(const Image picture, DrawLabelGrid(grid, {}));
  RETURN_IF_ERROR(WritePng(options.out, picture));

  DrawReport report;
  report.checkpoint = loaded.checkpoint;
  report.pictures = count;
  if (options.evaluate > 0) {
    RETURN_IF_ERROR(Evaluate(loaded, sampling, options.evaluate, options.seed,
                             sampler, report));
  }
  return report;
}

}  // namespace trireme
