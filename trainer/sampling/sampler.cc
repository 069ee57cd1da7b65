#include "trainer/sampling/sampler.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <variant>

#include "models/data/field_readers.h"
#include "runtime/autograd/tape.h"
#include "runtime/comm/dry.h"
#include "runtime/comm/patience.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/ops/pointwise.h"
#include "scheduler/plan/plan.h"
#include "scheduler/schedules/schedule.h"
#include "trainer/plan_translation.h"
#include "trainer/sampling/evaluation.h"

namespace trireme {
namespace {

// Samples per forward pass: enough to fill the processor, few enough that
// activations stay small.
constexpr int64_t kSampleBatch = 40;

// Of all messages between stages: those of one pair match by their order.
constexpr int kTag = 0;

Tensor ToTensor(Device& device, const FieldSpec& spec, int64_t samples,
                const FieldValues& values) {
  return std::visit(
      [&]<typename T>(const std::vector<T>& elements) {
        return Tensor::FromValues<T>(device, spec.ShapeOf(samples), elements);
      },
      values);
}

// The layout of a plan as it is drawn under: each chunk runs on a whole batch
// and keeps nothing.
absl::StatusOr<PlanLayout> LayOutSampling(const Plan& plan,
                                          const ModelFamily& family, int rank) {
  ASSIGN_OR_RETURN(PlanLayout layout, LayOutPlan(plan, family, rank));
  for (ChunkRequest& chunk : layout.chunks) {
    chunk.microbatch_size = 0;
    chunk.recompute = {};
  }
  return layout;
}

std::string BytesOf(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()),
          values.size() * sizeof(float)};
}

Tensor As(DType dtype, const Tensor& x) {
  return x.dtype() == dtype ? x : Cast(x, dtype);
}

bool ShardsParameters(const Plan& plan) {
  return plan.sharding() == Plan::PARAMETERS;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sampler>> Sampler::Create(
    const TrainingSetup& setup, const Plan& plan, Device& device,
    CommunicatorFactory& factory) {
  if (plan.skip().stage_ranks_size() > 0) {
    return FailedPrecondition(
        "plan.skip.stage_ranks: found stages of unlike numbers of ranks, "
        "expected as many ranks in each to draw samples");
  }
  Plan whole = plan;
  whole.clear_skip();
  ASSIGN_OR_RETURN(PlanLayout layout,
                   LayOutSampling(whole, *setup.family, factory.world_rank()));
  // Weights are whole when they are read: adapters are merged into them.
  TrainingSetup merged = setup;
  merged.trained = {};
  std::unique_ptr<Sampler> sampler(
      new Sampler(merged, whole, std::move(layout), device, factory));
  RETURN_IF_ERROR(sampler->model_.status());
  return sampler;
}

Sampler::Sampler(const TrainingSetup& setup, const Plan& plan,
                 PlanLayout layout, Device& device,
                 CommunicatorFactory& factory)
    : setup_(setup),
      plan_(plan),
      layout_(std::move(layout)),
      model_(setup, layout_.grid, factory, layout_.communicators,
             layout_.chunks, device, /*allocate=*/!ShardsParameters(plan)) {
  for (const LocalModel::Part& part : model_.parts()) {
    Weights& weights = weights_.emplace_back();
    if (!ShardsParameters(plan)) {
      weights.store = std::make_unique<AllResident>();
      continue;
    }
    weights.buckets = std::make_unique<ParameterBuckets>(
        model_.context(), part.store->parameters(),
        static_cast<int64_t>(plan.gradient_bucket_bytes()), ShardingOf(plan));
    auto shards = std::make_unique<ParameterShards>(
        model_.context(), *weights.buckets, setup.seed);
    weights.shards = shards.get();
    weights.store = std::move(shards);
  }
}

absl::StatusOr<MemoryStatistics> Sampler::PredictMemory(
    const TrainingSetup& setup, const Plan& plan, int rank,
    const SamplerOptions& options, int64_t samples, DeviceKind kind) {
  const std::unique_ptr<Device> device = MakeDryDevice(kind);
  DryWorld world(rank, static_cast<int>(GridSize(plan.grid())));
  ASSIGN_OR_RETURN(const std::unique_ptr<Sampler> sampler,
                   Create(setup, plan, *device, world));
  // Heun's second slope comes in all steps but the last: two take what all do.
  SamplerOptions few_steps = options;
  few_steps.steps = std::min<int64_t>(options.steps, 2);
  // No later round has more.
  const auto replicas = static_cast<int64_t>(plan.grid().dp());
  std::vector<Sample> prompts(std::min(samples, replicas * kSampleBatch));
  for (Sample& prompt : prompts) prompt.class_id = 0;
  RETURN_IF_ERROR(sampler->Draw(few_steps, /*seed=*/0, prompts).status());
  return device->Statistics();
}

std::vector<TensorPart> Sampler::WeightParts() {
  std::vector<TensorPart> parts;
  const auto add = [&](const Parameter& parameter, const Tensor& local,
                       ElementRange range) {
    parts.push_back({.name = parameter.name,
                     .global_shape = parameter.global_shape,
                     .shards = parameter.shards,
                     .local = local,
                     .begin = range.begin,
                     .end = range.end});
  };
  for (size_t i = 0; i < weights_.size(); ++i) {
    for (const auto& parameter : model_.parts()[i].store->parameters()) {
      if (weights_[i].shards == nullptr || !parameter->trainable) {
        add(*parameter, parameter->value, {0, parameter->local_elements()});
      }
    }
    if (weights_[i].shards == nullptr) continue;
    const ParameterBuckets& buckets = *weights_[i].buckets;
    for (int b = 0; b < buckets.size(); ++b) {
      for (size_t p = 0; p < buckets[b].parameters.size(); ++p) {
        const int at = static_cast<int>(p);
        const ElementRange range = buckets[b].Owned(at);
        if (range.size() == 0) continue;
        add(*buckets[b].parameters[p], weights_[i].shards->OwnedValue(b, at),
            range);
      }
    }
  }
  return parts;
}

absl::Status Sampler::LoadWeights(const TensorSource& source) {
  absl::Status status = ReadParts(source, WeightParts());
  if (status.ok()) status = model_.status();
  // Reading takes one rank longer than another.
  AwaitAllPatiently(model_.communicators().world(), "weights to draw with");
  return control().Agree(status, "weights to draw with");
}

std::vector<ShardedVariable> Sampler::RunChunk(
    int chunk, std::vector<ShardedVariable> state) {
  Chunk& units = *model_.parts()[chunk].chunk;
  UnitStore& store = *weights_[chunk].store;
  Tape tape(model_.device(), Tape::Mode::kInference);
  ForwardContext context{tape, model_.context()};
  for (int unit = 0; unit < units.num_units(); ++unit) {
    store.Bring(unit);
    state = units.RunUnit(context, /*microbatch=*/0, unit, std::move(state));
    store.Drop(unit);
  }
  return state;
}

std::vector<ShardedVariable> Sampler::Receive(int from, const Chunk& chunk) {
  Communicator& channel = model_.communicators().PipelineReceive(from);
  std::vector<ShardedVariable> state;
  for (const BoundarySpec& spec : chunk.Boundary(0)) {
    const Tensor tensor =
        Tensor::Empty(model_.device(), spec.shape, spec.dtype,
                      MemoryCategory::kActivations, "received activation");
    channel.Receive(tensor, Communicators::kSender, kTag, "sampled activation")
        .Wait();
    state.push_back({Variable(tensor), spec.states});
  }
  return state;
}

void Sampler::Send(int to, const std::vector<ShardedVariable>& state) {
  Communicator& channel = model_.communicators().PipelineSend(to);
  for (const ShardedVariable& tensor : state) {
    channel
        .Send(tensor.value(), Communicators::kReceiver, kTag,
              "sampled activation")
        .Wait();
  }
}

Tensor Sampler::PassAround(Tensor velocity, const Shape& shape) {
  const int ranks = model_.grid().size(Axis::kPipeline);
  const int own = model_.grid().coordinate(Axis::kPipeline);
  const int last = StagesOf(plan_).back().rank;
  const int position = (own - last + ranks) % ranks;
  if (position > 0) {
    velocity = Tensor::Empty(model_.device(), shape, predicted_type());
    model_.communicators()
        .PipelineReceive((own + ranks - 1) % ranks)
        .Receive(velocity, Communicators::kSender, kTag, "velocity")
        .Wait();
  }
  if (position < ranks - 1) {
    model_.communicators()
        .PipelineSend((own + 1) % ranks)
        .Send(velocity, Communicators::kReceiver, kTag, "velocity")
        .Wait();
  }
  return velocity;
}

Tensor Sampler::Velocity(const Tensor& x, double time, Batch batch) {
  batch.fields[setup_.family->samples().name].values = x;
  const std::vector<float> values(batch.size(), static_cast<float>(time));
  const Tensor times =
      Tensor::FromValues<float>(model_.device(), {batch.size()}, values);
  batch.fields[kTimeField].values =
      setup_.dtype == DType::kFloat64 ? Cast(times, DType::kFloat64) : times;
  return As(DType::kFloat32, Evaluate(std::move(batch)));
}

Tensor Sampler::Evaluate(Batch batch) {
  const Shape shape = batch[setup_.family->samples().name].shape();
  Tensor prediction;
  const Evaluation evaluation(prediction);
  model_.inputs().Set(std::move(batch), evaluation);
  const std::vector<StageLocation> stages = StagesOf(plan_);
  const int own = model_.grid().coordinate(Axis::kPipeline);
  std::vector<ShardedVariable> state;
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    if (stages[stage].rank != own) continue;
    const int chunk = stages[stage].chunk;
    if (stage > 0 && stages[stage - 1].rank != own) {
      state = Receive(stages[stage - 1].rank, *model_.parts()[chunk].chunk);
    }
    state = RunChunk(chunk, std::move(state));
    if (stage + 1 < stages.size() && stages[stage + 1].rank != own) {
      Send(stages[stage + 1].rank, state);
      state.clear();
    }
  }
  Tensor samples;
  if (prediction.defined()) {
    samples = setup_.family->ToSamples(As(predicted_type(), prediction));
  }
  return PassAround(std::move(samples), shape);
}

absl::StatusOr<std::vector<double>> Sampler::Predict(Batch batch) {
  const Tensor prediction = As(DType::kFloat64, Evaluate(std::move(batch)));
  RETURN_IF_ERROR(control().Agree(model_.status(), "predictions"));
  return prediction.ToVector<double>();
}

absl::StatusOr<Sampler::Conditions> Sampler::ConditionsOf(
    std::span<const Sample> prompts) {
  const ModelFamily& family = *setup_.family;
  const auto n = static_cast<int64_t>(prompts.size());
  Conditions conditions;
  conditions.with.samples.assign(n, 0);
  conditions.without.samples = conditions.with.samples;
  for (const FieldSpec& spec : AllFields(family)) {
    if (spec.name == family.samples().name) continue;
    FieldValues values = ZeroValues(spec, n);
    for (int64_t i = 0; i < n; ++i) {
      RETURN_IF_ERROR(ReaderOf(spec).read(prompts[i], spec, i, values));
    }
    Tensor& with = conditions.with.fields[spec.name].values;
    with = ToTensor(model_.device(), spec, n, values);
    const std::optional<int32_t> none = family.NoCondition(spec.name);
    if (none.has_value()) values = std::vector<int32_t>(n, *none);
    conditions.without.fields[spec.name].values =
        none.has_value() ? ToTensor(model_.device(), spec, n, values) : with;
  }
  return conditions;
}

std::vector<float> Sampler::Integrate(const SamplerOptions& options,
                                      uint64_t seed, int64_t begin,
                                      const Conditions& conditions) {
  const FieldSpec drawn = setup_.family->samples();
  const int64_t elements = drawn.shape.num_elements();
  const int64_t n = conditions.with.size();
  std::vector<float> noise(n * elements);
  for (int64_t i = 0; i < n; ++i) {
    RandomStream({.seed = seed,
                  .sample = static_cast<uint64_t>(begin + i),
                  .purpose = RandomPurpose::kSampling})
        .FillNormal(0, std::span<float>(noise.data() + i * elements, elements));
  }
  const Tensor start =
      Tensor::FromValues<float>(model_.device(), drawn.ShapeOf(n), noise);
  const Tensor result = SampleFlow(
      options,
      [&](const Tensor& x, double time, bool conditional) {
        return Velocity(x, time,
                        conditional ? conditions.with : conditions.without);
      },
      start);
  return result.ToVector<float>();
}

absl::StatusOr<std::vector<float>> Sampler::Draw(
    const SamplerOptions& options, uint64_t seed,
    std::span<const Sample> prompts) {
  const ProcessGrid& grid = model_.grid();
  const int replicas = grid.size(Axis::kData);
  const int replica = grid.coordinate(Axis::kData);
  const bool speaks = grid.coordinate(Axis::kTensor) == 0 &&
                      grid.coordinate(Axis::kContext) == 0 &&
                      grid.coordinate(Axis::kPipeline) == 0;
  const int64_t elements = setup_.family->samples().shape.num_elements();
  const auto count = static_cast<int64_t>(prompts.size());
  std::vector<float> samples(count * elements);
  for (int64_t round = 0; round < count; round += replicas * kSampleBatch) {
    // A replica without samples of its own draws others' again, since replicas
    // gather sharded parameters together.
    const int64_t own = round + replica * kSampleBatch;
    const int64_t begin = own < count ? own : round;
    const int64_t n = std::min(kSampleBatch, count - begin);
    const absl::StatusOr<Conditions> conditions =
        ConditionsOf(prompts.subspan(begin, n));
    RETURN_IF_ERROR(control().Agree(conditions.status(), "prompts"));
    const std::vector<float> drawn =
        Integrate(options, seed, begin, *conditions);
    RETURN_IF_ERROR(control().Agree(model_.status(), "drawn samples"));
    const std::string first = std::to_string(begin * elements) + " ";
    const std::vector<std::string> parts = control().Gather(
        speaks && own < count ? first + BytesOf(drawn) : "", "drawn samples");
    // By world rank, whose order need not be that of the replicas.
    for (const std::string_view part : parts) {
      if (part.empty()) continue;
      const size_t space = part.find(' ');
      int64_t at = 0;
      std::from_chars(part.data(), part.data() + space, at);
      const std::string_view values = part.substr(space + 1);
      std::memcpy(samples.data() + at, values.data(), values.size());
    }
  }
  if (control().rank() != 0) samples.clear();
  return samples;
}

}  // namespace trireme
