#include "trainer/forward/forward.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "models/weights/name_table.h"
#include "models/weights/tensor_source.h"
#include "models/weights/translated_tensors.h"
#include "parallel/sharding/logical_tensors.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/comm/control.h"
#include "runtime/comm/patience.h"
#include "runtime/core/status.h"
#include "runtime/ops/pointwise.h"
#include "scheduler/plan/plan.h"
#include "trainer/checkpoints/initial_weights.h"
#include "trainer/checkpoints/stored_model.h"
#include "trainer/forward/class_inputs.h"
#include "trainer/forward/cotangent_objective.h"
#include "trainer/forward/gather_inputs.h"
#include "trainer/job/job.h"
#include "trainer/job/memory_limit.h"
#include "trainer/rank/rank_model.h"
#include "trainer/sampling/sampler.h"

namespace trireme {
namespace {

constexpr char kGradient[] = "gradient.";
constexpr char kOutputFormat[] = "trireme.forward";

struct Prepared {
  StoredModel model;
  ClassInputs inputs;
  TrainingSetup setup;
  Plan plan;
};

// The folder of the weights, which rank 0 chooses: another rank may find a
// newer checkpoint of a run that is training.
absl::StatusOr<std::string> ChooseWeights(const std::string& model,
                                          Control& control) {
  absl::StatusOr<std::string> chosen = "";
  if (control.rank() == 0) {
    const absl::StatusOr<StoredModel> found = FindStoredModel(model);
    chosen = found.ok() ? absl::StatusOr<std::string>(found->weights)
                        : found.status();
  }
  RETURN_IF_ERROR(control.Agree(chosen.status(), "choosing the weights"));
  control.Broadcast(*chosen, "rank 0's weights");
  return chosen;
}

absl::StatusOr<Prepared> Prepare(const ForwardOptions& options,
                                 const std::string& weights, int64_t ranks) {
  Prepared prepared;
  ASSIGN_OR_RETURN(prepared.model, FindStoredModel(weights));
  ASSIGN_OR_RETURN(prepared.inputs,
                   ReadClassInputs(options.inputs, *prepared.model.family,
                                   options.gradients));
  TrainingSetup& setup = prepared.setup;
  setup.family = prepared.inputs.family;
  setup.dtype = options.dtype;
  setup.global_batch = prepared.inputs.samples;
  // The step that makes gradients changes nothing.
  setup.optimizer.clip_norm = 0;
  setup.optimizer.ema_decay = 0;
  // It is the only objective that every model's output has.
  InputGradients unread;
  TrainingSetup planned = setup;
  planned.objective =
      std::make_shared<CotangentObjective>(unread, setup.family->predictions());
  ASSIGN_OR_RETURN(prepared.plan, ResolvePlan(options.plan.value_or(Plan()),
                                              PlanContextOf(planned, ranks)));
  return prepared;
}

// Gradients by the names of our parameters.
class GradientTensors final : public TensorSource {
 public:
  void Add(const std::string& name, const Shape& shape,
           std::vector<double> values) {
    tensors_[name] = {shape, std::move(values)};
  }

  absl::Status Check(const std::string& name,
                     const Shape& shape) const override {
    const auto found = tensors_.find(name);
    if (found != tensors_.end() && found->second.shape == shape) {
      return absl::OkStatus();
    }
    return NotFound("no gradient of '{}' of shape {}", name, shape.ToString());
  }
  void Read(const std::string& name, int64_t begin,
            std::span<double> values) const override {
    const std::vector<double>& all = tensors_.at(name).values;
    std::copy_n(all.begin() + begin, values.size(), values.begin());
  }
  const std::map<std::string, HostField>& tensors() const { return tensors_; }

 private:
  std::map<std::string, HostField> tensors_;
};

std::vector<double> Doubles(const Tensor& x) {
  return (x.dtype() == DType::kFloat64 ? x : Cast(x, DType::kFloat64))
      .ToVector<double>();
}

// By the names of the class, where there is one.
absl::StatusOr<std::map<std::string, HostField>> Named(
    std::shared_ptr<const GradientTensors> gradients,
    const ModelFamily& family) {
  const absl::StatusOr<NameTable> table = family.Names();
  if (!table.ok()) return gradients->tensors();
  for (const NamedShape& parameter : table->parameters()) {
    RETURN_IF_ERROR(gradients->Check(parameter.name, parameter.shape));
  }
  std::set<std::string> constants;
  for (const ConstantTensor& constant : table->constants()) {
    constants.insert(constant.tensor.name);
  }
  const auto tensors = TensorsOf(*table, gradients, nullptr, "gradients");
  std::map<std::string, HostField> named;
  for (const NamedShape& tensor : table->tensors()) {
    if (constants.contains(tensor.name)) continue;
    HostField& field = named[tensor.name];
    field.shape = tensor.shape;
    field.values.resize(tensor.shape.num_elements());
    tensors->Read(tensor.name, 0, field.values);
  }
  return named;
}

// The output's gradients, on rank 0.
absl::StatusOr<std::map<std::string, HostField>> Gradients(
    const Prepared& prepared, const ForwardOptions& options, Device& device,
    CommunicatorFactory& factory, Control& control) {
  InputGradients watched;
  TrainingSetup setup = prepared.setup;
  setup.objective = std::make_shared<CotangentObjective>(
      watched, setup.family->predictions());
  const auto built = RankModel::Build(setup, prepared.plan, device, factory,
                                      HostMemoryLimit(options.local_ranks));
  RETURN_IF_ERROR(control.Agree(built.status(), "building the model"));
  RankModel& model = **built;
  RETURN_IF_ERROR(
      LoadInitialWeights(model, prepared.model.weights, options.ema));
  RETURN_IF_ERROR(
      model
          .Step(BatchOf(prepared.inputs, device, model.first_sample(),
                        model.first_sample() + model.local_batch()),
                {.step = 1})
          .status());
  RETURN_IF_ERROR(control.Agree(device.status(), "gradients"));
  auto of_parameters = std::make_shared<GradientTensors>();
  ASSIGN_OR_RETURN(
      LogicalGather gather,
      LogicalGather::Create(model.context(), model.GradientParts()));
  gather.Run([&](const SafetensorsEntry& entry, const Tensor& whole) {
    of_parameters->Add(entry.name, entry.shape, Doubles(whole));
  });
  std::map<std::string, HostField> of_inputs =
      GatherInputGradients(watched, *setup.family, prepared.inputs,
                           model.grid(), model.first_sample(), control);
  if (control.rank() != 0) return of_inputs;
  ASSIGN_OR_RETURN(auto gradients, Named(of_parameters, *setup.family));
  gradients.merge(std::move(of_inputs));
  return gradients;
}

absl::Status Write(const std::string& path, DType dtype,
                   const std::map<std::string, HostField>& tensors) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, field] : tensors) {
    entries.push_back({name, dtype, field.shape});
  }
  ASSIGN_OR_RETURN(
      const auto writer,
      SafetensorsWriter::Create(path, std::move(entries), OutputMetadata()));
  for (const SafetensorsEntry& entry : writer->entries()) {
    RETURN_IF_ERROR(
        AppendNumbers(*writer, entry, tensors.at(entry.name).values));
  }
  return writer->Commit().status();
}

}  // namespace

std::map<std::string, std::string> OutputMetadata() {
  return {{"format", kOutputFormat}};
}

absl::Status CheckReplacesOutput(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return absl::OkStatus();
  const auto file = SafetensorsFile::Open(path);
  if (file.ok() && (*file)->metadata() == OutputMetadata()) {
    return absl::OkStatus();
  }
  return FailedPrecondition(
      "--out: found {} there already, which this command did not write; "
      "expected another name",
      path);
}

absl::StatusOr<ForwardReport> Forward(const ForwardOptions& options,
                                      CommunicatorFactory& factory) {
  std::vector<int> ranks(factory.world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  const std::unique_ptr<Communicator> everyone =
      factory.Create(ranks, "forward");
  Control control(*everyone);
  absl::Status replaces;
  if (control.rank() == 0) replaces = CheckReplacesOutput(options.out);
  RETURN_IF_ERROR(control.Agree(replaces, "what --out would replace"));
  ASSIGN_OR_RETURN(const std::string chosen,
                   ChooseWeights(options.model, control));
  const absl::StatusOr<Prepared> prepared =
      Prepare(options, chosen, factory.world_size());
  RETURN_IF_ERROR(control.Agree(prepared.status(), "the model and its inputs"));
  const std::unique_ptr<Device> device = options.device.Make(
      MemoryLimit(Job(), options.device, options.local_ranks),
      prepared->setup.kernel_libraries);
  std::map<std::string, HostField> tensors;
  {
    const auto created =
        Sampler::Create(prepared->setup, prepared->plan, *device, factory);
    RETURN_IF_ERROR(control.Agree(created.status(), "building the model"));
    Sampler& sampler = **created;
    absl::Status whole;
    if (control.rank() == 0 && !prepared->model.is_weight_folder) {
      whole = VerifyChecksums(prepared->model.weights);
    }
    // One rank looks for all, and reads every byte.
    AwaitAllPatiently(*everyone, "the checkpoint's checksums");
    RETURN_IF_ERROR(control.Agree(whole, "the checkpoint's checksums"));
    const auto weights = OpenWeights(prepared->model.weights, options.ema,
                                     *prepared->model.family);
    RETURN_IF_ERROR(control.Agree(weights.status(), "opening the weights"));
    RETURN_IF_ERROR(sampler.LoadWeights(**weights));
    const ClassInputs& inputs = prepared->inputs;
    ASSIGN_OR_RETURN(
        std::vector<double> output,
        sampler.Predict(BatchOf(inputs, *device, 0, inputs.samples)));
    const ClassCall call = prepared->setup.family->Call();
    tensors[std::string(call.output)] = OutputOf(
        {.shape = prepared->setup.family->predictions().ShapeOf(inputs.samples),
         .values = std::move(output)},
        call);
  }
  if (options.gradients) {
    auto gradients = Gradients(*prepared, options, *device, factory, control);
    RETURN_IF_ERROR(control.Agree(gradients.status(), "gradients"));
    for (auto& [name, field] : *gradients) {
      tensors[kGradient + name] = std::move(field);
    }
  }
  absl::Status status;
  if (control.rank() == 0) {
    status = Write(
        options.out,
        options.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32,
        tensors);
  }
  RETURN_IF_ERROR(control.Agree(status, "writing the output"));
  return ForwardReport{.samples = prepared->inputs.samples,
                       .tensors = static_cast<int64_t>(tensors.size()),
                       .weights = prepared->model.weights};
}

}  // namespace trireme
