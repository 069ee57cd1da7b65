#include "trainer/run/convert.h"

#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "models/weights/name_table.h"
#include "models/weights/tensor_source.h"
#include "models/weights/weight_folder.h"
#include "models/weights/write_weight_folder.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/core/status.h"
#include "trainer/config/textproto.h"
#include "trainer/job.pb.h"
#include "trainer/run/initial_weights.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/stored_model.h"

namespace trireme {
namespace {

// A run whose job says the model. The checkpoint is the last to come.
absl::Status WriteRun(const std::string& folder, const StoredModel& model,
                      const std::vector<NamedShape>& parameters,
                      const TensorSource& source) {
  const RunFolder run(folder);
  ASSIGN_OR_RETURN(const auto checkpoint,
                   CheckpointWriter::Create(run.checkpoints(), /*step=*/0));
  Job job;
  *job.mutable_model() = model.described.model;
  job.mutable_data()->set_channels(model.described.data.channels);
  job.mutable_data()->set_resolution(model.described.data.resolution);
  RETURN_IF_ERROR(WriteTextProtoFile(job, run.job()));
  std::vector<SafetensorsEntry> entries;
  for (const NamedShape& parameter : parameters) {
    RETURN_IF_ERROR(source.Check(parameter.name, parameter.shape));
    entries.push_back({parameter.name, DType::kFloat32, parameter.shape});
  }
  ASSIGN_OR_RETURN(
      const auto writer,
      SafetensorsWriter::Create(checkpoint->PathOf(kWeightsFile),
                                std::move(entries), {{"format", "pt"}}));
  for (const SafetensorsEntry& entry : writer->entries()) {
    RETURN_IF_ERROR(AppendTensor(*writer, entry, source));
  }
  ASSIGN_OR_RETURN(CheckpointFile written, writer->Commit());
  checkpoint->Add(kWeightsFile, std::move(written));
  return checkpoint->Commit({}, /*consumed_samples=*/0);
}

}  // namespace

absl::StatusOr<ConvertReport> Convert(const ConvertOptions& options) {
  std::error_code error;
  if (std::filesystem::exists(options.to, error)) {
    return FailedPrecondition("{}: is there, expected a new folder",
                              options.to);
  }
  ASSIGN_OR_RETURN(const StoredModel model, FindStoredModel(options.from));
  const bool to_weights = options.to_weights.value_or(!model.is_weight_folder);
  if (!to_weights &&
      (options.dtype.has_value() || options.max_shard_bytes.has_value())) {
    return InvalidArgument(
        "--{}: found, expected none: a run's weights are one file of F32",
        options.dtype.has_value() ? "dtype" : "shard_size");
  }
  // The table names the parameters of a run, too: no other run is written here.
  ASSIGN_OR_RETURN(const NameTable table, model.family->Names());
  std::shared_ptr<const TensorSource> source;
  WeightFolderOptions writing = {.dtype = options.dtype,
                                 .max_shard_bytes = options.max_shard_bytes};
  if (model.is_weight_folder && !options.ema) {
    ASSIGN_OR_RETURN(WeightFolder folder,
                     OpenWeightFolder(model.weights, table));
    ASSIGN_OR_RETURN(const TransformerConfig config,
                     ReadTransformerConfig(model.weights));
    writing.like = std::move(folder.tensors);
    writing.constants = std::move(folder.files);
    writing.config = config.json;
    source = std::move(folder.parameters);
  } else {
    if (!model.is_weight_folder) {
      RETURN_IF_ERROR(VerifyChecksums(model.weights));
    }
    ASSIGN_OR_RETURN(source,
                     OpenWeights(model.weights, options.ema, *model.family));
  }
  if (to_weights) {
    RETURN_IF_ERROR(WriteWeightFolder(options.to, table, source, writing));
  } else {
    RETURN_IF_ERROR(WriteRun(options.to, model, table.parameters(), *source));
  }
  return ConvertReport{
      .weights = model.weights,
      .tensors = static_cast<int64_t>(to_weights ? table.tensors().size()
                                                 : table.parameters().size()),
      .to_weights = to_weights};
}

}  // namespace trireme
