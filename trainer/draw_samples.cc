#include "trainer/draw_samples.h"

#include <algorithm>
#include <filesystem>
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
    return FailedPrecondition("found {} readable real pictures, expected {}",
                              real.labels.size(), count);
  }
  return real;
}

// The data that the run did not train on: IDX sets have a test split. Of other
// sets, pictures that are not among the training pictures compared with.
absl::StatusOr<std::unique_ptr<Dataset>> OpenHeldOut(const Job& job) {
  Data data = job.data();
  if (data.has_idx()) data.mutable_idx()->set_split("test");
  return OpenDataset(data);
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

// Conditions for rows × per_row pictures. Models with classes get a row a
// class; text models a row per caption of the first samples; others one row.
struct Rows {
  std::vector<std::string> names;
  SampleConditions conditions;
};

absl::StatusOr<Rows> MakeRows(const Loaded& loaded, int64_t per_row,
                              int64_t max_rows) {
  const DitConfig& model = loaded.setup.model;
  Rows rows;
  const int64_t count =
      std::min(max_rows, model.classes > 0       ? model.classes
                         : model.text_tokens > 0 ? loaded.dataset->size()
                                                 : 1);
  for (int64_t row = 0; row < count; ++row) {
    std::vector<float> text(model.text_tokens * model.text_width);
    int32_t text_count = 0;
    std::string name = model.classes > 0 ? loaded.dataset->class_name(row) : "";
    if (model.text_tokens > 0) {
      ASSIGN_OR_RETURN(const Sample sample,
                       loaded.dataset->Read(row % loaded.dataset->size()));
      text_count = static_cast<int32_t>(
          std::min<int64_t>(sample.text_count, model.text_tokens));
      std::copy_n(sample.text_tokens.begin(), text_count * model.text_width,
                  text.begin());
      if (model.classes == 0) name = sample.caption;
    }
    rows.names.push_back(name);
    for (int64_t i = 0; i < per_row; ++i) {
      if (model.classes > 0) {
        rows.conditions.labels.push_back(static_cast<int32_t>(row));
      }
      if (model.text_tokens > 0) {
        rows.conditions.text.insert(rows.conditions.text.end(), text.begin(),
                                    text.end());
        rows.conditions.text_counts.push_back(text_count);
      }
    }
  }
  return rows;
}

absl::Status Evaluate(const Loaded& loaded, const SamplerOptions& sampling,
                      int64_t count, uint64_t seed, DitSampler& sampler,
                      DrawReport& report) {
  const DitConfig& model = loaded.setup.model;
  const int64_t elements =
      model.image.channels * model.image.height * model.image.width;
  ASSIGN_OR_RETURN(const Rows rows,
                   MakeRows(loaded,
                            (count + std::max<int64_t>(model.classes, 1) - 1) /
                                std::max<int64_t>(model.classes, 1),
                            count));
  SamplerOptions plain = sampling;
  plain.guidance = 1;
  ASSIGN_OR_RETURN(const std::vector<float> generated,
                   sampler.Sample(plain, seed + 1, count, rows.conditions));
  ASSIGN_OR_RETURN(const auto held_out, OpenHeldOut(loaded.job));
  ASSIGN_OR_RETURN(const RealPictures train,
                   ReadReal(*loaded.dataset, model.image, 0, count));
  const bool same_set = !loaded.job.data().has_idx();
  ASSIGN_OR_RETURN(
      const RealPictures test,
      ReadReal(*held_out, model.image, same_set ? count : 0, count));
  ASSIGN_OR_RETURN(report.distance,
                   SlicedWasserstein(generated, test.pixels, elements));
  ASSIGN_OR_RETURN(report.floor,
                   SlicedWasserstein(train.pixels, test.pixels, elements));
  if (model.classes > 0) {
    ASSIGN_OR_RETURN(
        report.class_accuracy,
        NearestNeighborAccuracy(
            {train.pixels, train.labels},
            {generated,
             std::span<const int32_t>(rows.conditions.labels).first(count)},
            elements));
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

  ASSIGN_OR_RETURN(const Rows rows,
                   MakeRows(loaded, per_row, options.max_rows));
  const int64_t count = per_row * static_cast<int64_t>(rows.names.size());
  ASSIGN_OR_RETURN(
      const std::vector<float> pictures,
      sampler.Sample(sampling, options.seed, count, rows.conditions));
  const ImageSpec& image = loaded.setup.model.image;
  const int64_t elements = image.channels * image.height * image.width;
  std::vector<LabelGridRow> grid;
  for (size_t row = 0; row < rows.names.size(); ++row) {
    grid.push_back({rows.names[row], {}});
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
