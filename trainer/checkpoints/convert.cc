#include "trainer/checkpoints/convert.h"

#include <filesystem>
#include <map>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "models/weights/adapter_file.h"
#include "models/weights/merged_tensors.h"
#include "models/weights/name_table.h"
#include "models/weights/tensor_source.h"
#include "models/weights/weight_folder.h"
#include "models/weights/write_weight_folder.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "trainer/checkpoints/initial_weights.h"
#include "trainer/checkpoints/stored_model.h"
#include "trainer/checkpoints/trained_part.h"
#include "trainer/config/textproto.h"
#include "trainer/job/job.pb.h"
#include "trainer/rank/model_parameters.h"
#include "trainer/run/class_names.h"
#include "trainer/run/run_folder.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// Whose model a run's job says, and no more.
Job JobOf(const StoredModel& model) {
  Job job;
  *job.mutable_model() = model.described.model;
  job.mutable_data()->set_channels(model.described.data.channels);
  job.mutable_data()->set_resolution(model.described.data.resolution);
  return job;
}

// The checkpoint is the last to come.
absl::Status WriteRun(const std::string& folder, const Job& job,
                      const std::vector<std::string>& class_names,
                      const std::vector<NamedShape>& parameters,
                      const TensorSource& source,
                      const std::map<std::string, std::string>& metadata) {
  const RunFolder run(folder);
  ASSIGN_OR_RETURN(const auto checkpoint,
                   CheckpointWriter::Create(run.checkpoints(), /*step=*/0));
  RETURN_IF_ERROR(WriteTextProtoFile(job, run.job()));
  if (!class_names.empty()) {
    RETURN_IF_ERROR(WriteClassNames(run, class_names));
  }
  std::vector<SafetensorsEntry> entries;
  for (const NamedShape& parameter : parameters) {
    RETURN_IF_ERROR(source.Check(parameter.name, parameter.shape));
    entries.push_back({parameter.name, DType::kFloat32, parameter.shape});
  }
  ASSIGN_OR_RETURN(
      const auto writer,
      SafetensorsWriter::Create(checkpoint->PathOf(kWeightsFile),
                                std::move(entries), {{"format", "pt"}}));
  NonFiniteTensors non_finite;
  for (const SafetensorsEntry& entry : writer->entries()) {
    RETURN_IF_ERROR(AppendTensor(*writer, entry, source, non_finite));
  }
  non_finite.Warn(folder);
  ASSIGN_OR_RETURN(CheckpointFile written, writer->Commit());
  checkpoint->Add(kWeightsFile, std::move(written));
  return checkpoint->Commit(metadata, /*consumed_samples=*/0);
}

absl::Status WriteAdapterRun(const std::string& folder, const StoredModel& base,
                             const AdapterFile& adapters) {
  TrainedPart part;
  part.trained = {.kind = TrainedParameters::Kind::kAdapters,
                  .rank = adapters.rank,
                  .alpha = adapters.alpha,
                  .decompose = adapters.decomposed};
  std::error_code error;
  part.base.weights = fs::absolute(base.weights, error).string();
  Job job = JobOf(base);
  job.mutable_init()->set_weights(part.base.weights);
  job.mutable_train()->set_parameters(TrainConfig::ADAPTERS);
  job.mutable_train()->set_rank(adapters.rank);
  job.mutable_train()->set_alpha(adapters.alpha);
  job.mutable_train()->set_decompose(adapters.decomposed);
  for (const StoredAdapter& adapter : adapters.adapters) {
    // A sum's layers have one.
    if (adapter.layer != adapter.output_layer) continue;
    part.trained.layers.push_back(adapter.layer);
    job.mutable_train()->add_layers(adapter.layer);
  }
  return WriteRun(folder, job, base.described.class_names, adapters.parameters,
                  *adapters.factors, MetadataOf(part));
}

// How many tensors it writes.
absl::StatusOr<int64_t> WriteAdapters(const std::string& path,
                                      const NameTable& weights,
                                      const AdapterFile& adapters,
                                      const ConvertOptions& options) {
  const fs::path folder = fs::path(path).parent_path();
  if (!folder.empty()) RETURN_IF_ERROR(MakeDirectories(folder.string()));
  return WriteAdapterFile(path, weights, adapters,
                          options.kind == ConvertTo::kKohya
                              ? AdapterNaming::kKohya
                              : AdapterNaming::kPeft,
                          options.dtype.value_or(DType::kFloat32));
}

// Every adapter that the model can have.
std::vector<StoredAdapter> Candidates(const ModelFamily& family) {
  return ParametersOf(family, {.kind = TrainedParameters::Kind::kAdapters,
                               .layers = {"*"},
                               .rank = 1,
                               .alpha = 1})
      .adapters;
}

// The adapters of a run's checkpoint.
absl::StatusOr<AdapterFile> AdaptersOfRun(const StoredModel& model, bool ema) {
  std::optional<TrainedPart> part;
  if (!model.is_weight_folder) {
    ASSIGN_OR_RETURN(part, TrainedPartOf(model.weights));
  }
  if (!part.has_value() ||
      part->trained.kind != TrainedParameters::Kind::kAdapters) {
    return FailedPrecondition(
        "{}: found no adapters, expected a run with train.parameters: ADAPTERS",
        model.weights);
  }
  RETURN_IF_ERROR(VerifyChecksums(model.weights));
  AdapterFile adapters;
  adapters.rank = part->trained.rank;
  adapters.alpha = part->trained.alpha;
  adapters.decomposed = part->trained.decompose;
  adapters.adapters = ParametersOf(*model.family, part->trained).adapters;
  ASSIGN_OR_RETURN(adapters.factors,
                   OpenCheckpointTensors(model.weights + "/" +
                                         (ema ? kEmaFile : kWeightsFile)));
  return adapters;
}

bool IsAdapter(ConvertTo kind) {
  return kind == ConvertTo::kAdapter || kind == ConvertTo::kKohya;
}

absl::Status CheckOptions(const ConvertOptions& options, ConvertTo kind) {
  if (kind == ConvertTo::kRun &&
      (options.dtype.has_value() || options.max_shard_bytes.has_value())) {
    return InvalidArgument(
        "--{}: found, expected none: a run's weights are one file of F32",
        options.dtype.has_value() ? "dtype" : "shard_size");
  }
  if (IsAdapter(kind) && options.max_shard_bytes.has_value()) {
    return InvalidArgument(
        "--shard_size: found, expected none: adapters are one file");
  }
  return absl::OkStatus();
}

bool IsAdapterFile(const std::string& path) {
  std::error_code error;
  return path.ends_with(".safetensors") && fs::is_regular_file(path, error);
}

absl::StatusOr<ConvertReport> ConvertAdapterFile(
    const ConvertOptions& options) {
  if (options.base.empty()) {
    return InvalidArgument(
        "--base: found none, expected the weights that the adapters of {} go "
        "with",
        options.from);
  }
  if (options.ema) {
    return InvalidArgument("--ema: found, expected none of a file of adapters");
  }
  const ConvertTo kind = options.kind.value_or(ConvertTo::kRun);
  RETURN_IF_ERROR(CheckOptions(options, kind));
  ASSIGN_OR_RETURN(const StoredModel base, FindStoredModel(options.base));
  ASSIGN_OR_RETURN(const NameTable table, base.family->Names());
  ASSIGN_OR_RETURN(
      const AdapterFile adapters,
      OpenAdapterFile(options.from, table, Candidates(*base.family)));
  ConvertReport report = {
      .weights = options.from,
      .tensors = static_cast<int64_t>(adapters.parameters.size()),
      .kind = kind};
  switch (kind) {
    case ConvertTo::kRun:
      RETURN_IF_ERROR(WriteAdapterRun(options.to, base, adapters));
      return report;
    case ConvertTo::kAdapter:
    case ConvertTo::kKohya: {
      ASSIGN_OR_RETURN(report.tensors,
                       WriteAdapters(options.to, table, adapters, options));
      return report;
    }
    case ConvertTo::kWeights:
      break;
  }
  ASSIGN_OR_RETURN(std::shared_ptr<const TensorSource> weights,
                   OpenWeights(base.weights, /*ema=*/false, *base.family));
  RETURN_IF_ERROR(WriteWeightFolder(
      options.to, table,
      MergeAdapters(
          std::move(weights), adapters.factors,
          {.adapters = adapters.adapters,
           .rank = adapters.rank,
           .scale = adapters.alpha / static_cast<double>(adapters.rank),
           .decomposed = adapters.decomposed}),
      {.dtype = options.dtype,
       .max_shard_bytes = options.max_shard_bytes,
       .class_names = base.described.class_names}));
  report.tensors = static_cast<int64_t>(table.tensors().size());
  return report;
}

}  // namespace

absl::StatusOr<ConvertReport> Convert(const ConvertOptions& options) {
  std::error_code error;
  if (fs::exists(options.to, error)) {
    return FailedPrecondition(
        "{}: is there, expected a new {}", options.to,
        IsAdapter(options.kind.value_or(ConvertTo::kRun)) ? "file" : "folder");
  }
  if (IsAdapterFile(options.from)) return ConvertAdapterFile(options);
  if (!options.base.empty()) {
    return InvalidArgument(
        "--base: found with {}, expected it with a file of adapters "
        "(.safetensors)",
        options.from);
  }
  ASSIGN_OR_RETURN(const StoredModel model, FindStoredModel(options.from));
  const ConvertTo kind = options.kind.value_or(
      model.is_weight_folder ? ConvertTo::kRun : ConvertTo::kWeights);
  RETURN_IF_ERROR(CheckOptions(options, kind));
  // The table names the parameters of a run, too: no other run is written here.
  ASSIGN_OR_RETURN(const NameTable table, model.family->Names());
  ConvertReport report = {.weights = model.weights, .kind = kind};
  if (IsAdapter(kind)) {
    ASSIGN_OR_RETURN(const AdapterFile adapters,
                     AdaptersOfRun(model, options.ema));
    ASSIGN_OR_RETURN(report.tensors,
                     WriteAdapters(options.to, table, adapters, options));
    return report;
  }
  std::shared_ptr<const TensorSource> source;
  WeightFolderOptions writing = {.dtype = options.dtype,
                                 .max_shard_bytes = options.max_shard_bytes};
  writing.class_names = model.described.class_names;
  if (model.is_weight_folder && !options.ema) {
    ASSIGN_OR_RETURN(WeightFolder folder,
                     OpenWeightFolder(model.weights, table));
    ASSIGN_OR_RETURN(const FolderConfig config,
                     ReadFolderConfig(model.weights));
    writing.like = std::move(folder.tensors);
    writing.constants = std::move(folder.files);
    // A class that it was before may have had other arguments.
    if (config.class_name == table.class_name()) writing.config = config.text;
    source = std::move(folder.parameters);
  } else {
    if (!model.is_weight_folder) {
      RETURN_IF_ERROR(VerifyChecksums(model.weights));
    }
    ASSIGN_OR_RETURN(source,
                     OpenWeights(model.weights, options.ema, *model.family));
  }
  if (kind == ConvertTo::kWeights) {
    RETURN_IF_ERROR(WriteWeightFolder(options.to, table, source, writing));
    report.tensors = static_cast<int64_t>(table.tensors().size());
  } else {
    RETURN_IF_ERROR(WriteRun(options.to, JobOf(model),
                             model.described.class_names, table.parameters(),
                             *source, /*metadata=*/{}));
    report.tensors = static_cast<int64_t>(table.parameters().size());
  }
  return report;
}

}  // namespace trireme
