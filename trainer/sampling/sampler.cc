#include "trainer/sampling/sampler.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <variant>

#include "models/data/field_readers.h"
#include "models/sampling/diffusion_sampler.h"
#include "parallel/sharding/parameter_buckets.h"
#include "parallel/sharding/parameter_shards.h"
#include "runtime/comm/dry.h"
#include "runtime/comm/patience.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"
#include "runtime/ops/pointwise.h"
#include "scheduler/plan/stage_ranks.h"
#include "trainer/rank/plan_layout.h"
#include "trainer/rank/plan_translation.h"
#include "trainer/sampling/evaluation.h"

namespace trireme {
namespace {

// Samples per forward pass: enough to fill the processor, few enough that
// activations stay small.
constexpr int64_t kSampleBatch = 40;

// Of the messages that pass a prediction around.
constexpr int kTag = 0;

Tensor ToTensor(Device& device, const FieldSpec& spec, int64_t samples,
                const FieldValues& values) {
  return std::visit(
      [&]<typename T>(const std::vector<T>& elements) {
        return Tensor::FromValues<T>(device, spec.ShapeOf(samples), elements);
      },
      values);
}

// What samples are drawn under: they visit all stages. Where these have unlike
// numbers of ranks there are no whole replicas, hence each rank becomes a stage
// of its own, which has no more blocks than the largest stage had.
absl::StatusOr<Plan> WholePipeline(const Plan& plan) {
  Plan whole = plan;
  whole.clear_skip();
  if (plan.skip().stage_ranks().empty()) return whole;
  uint32_t ranks = 0, blocks = 0;
  for (const uint32_t of_stage : plan.skip().stage_ranks()) ranks += of_stage;
  for (const Plan::Stage& stage : plan.stages()) blocks += stage.blocks();
  if (blocks < ranks) {
    return FailedPrecondition(
        "plan.skip.stage_ranks: found {} ranks in stages of unlike numbers of "
        "them, expected no more than the model's {} blocks to draw samples",
        ranks, blocks);
  }
  whole.mutable_grid()->set_dp(1);
  whole.mutable_grid()->set_pp(ranks);
  whole.clear_stages();
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    whole.add_stages()->set_blocks(blocks / ranks +
                                   (rank < blocks % ranks ? 1 : 0));
  }
  return whole;
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

struct Sampler::Own {
  // What one chunk's units read their parameters from.
  struct Weights {
    std::unique_ptr<ParameterBuckets> buckets;
    std::unique_ptr<UnitStore> store;
    // Of `store`, where the plan shards parameters.
    ParameterShards* shards = nullptr;
  };

  Own(const TrainingSetup& merged, const Plan& plan, const PlanLayout& layout,
      Device& device, CommunicatorFactory& factory)
      : setup(merged),
        model(merged, layout.grid, factory, layout.communicators, layout.chunks,
              device,
              ShardsParameters(plan) ? ParameterStore::Allocate::kFrozen
                                     : ParameterStore::Allocate::kAll),
        weights(WeightsOf(merged, plan, model)),
        forward(model, plan, StoresOf(weights)) {}

  static std::vector<Weights> WeightsOf(const TrainingSetup& setup,
                                        const Plan& plan, LocalModel& model);
  static std::vector<UnitStore*> StoresOf(const std::vector<Weights>& weights);

  TrainingSetup setup;
  LocalModel model;
  std::vector<Weights> weights;  // by chunk
  StageForward forward;
};

std::vector<Sampler::Own::Weights> Sampler::Own::WeightsOf(
    const TrainingSetup& setup, const Plan& plan, LocalModel& model) {
  std::vector<Weights> of_chunks;
  for (const LocalModel::Part& part : model.parts()) {
    Weights& weights = of_chunks.emplace_back();
    if (!ShardsParameters(plan)) {
      weights.store = std::make_unique<AllResident>();
      continue;
    }
    weights.buckets = std::make_unique<ParameterBuckets>(
        model.context(), part.store->parameters(),
        static_cast<int64_t>(plan.gradient_bucket_bytes()), ShardingOf(plan));
    auto shards = std::make_unique<ParameterShards>(
        model.context(), *weights.buckets, setup.seed);
    weights.shards = shards.get();
    weights.store = std::move(shards);
  }
  return of_chunks;
}

std::vector<UnitStore*> Sampler::Own::StoresOf(
    const std::vector<Weights>& weights) {
  std::vector<UnitStore*> stores;
  for (const Weights& of_chunk : weights)
    stores.push_back(of_chunk.store.get());
  return stores;
}

absl::StatusOr<std::unique_ptr<Sampler>> Sampler::Create(
    const TrainingSetup& setup, const Plan& plan, Device& device,
    CommunicatorFactory& factory) {
  ASSIGN_OR_RETURN(Plan whole, WholePipeline(plan));
  // Single tokens are not cut.
  if (setup.family->grammar() != nullptr) whole.set_sequence_parallel(false);
  ASSIGN_OR_RETURN(const PlanLayout layout,
                   LayOutSampling(whole, *setup.family, factory.world_rank()));
  // Weights are whole when they are read: adapters are merged into them.
  TrainingSetup merged = setup;
  merged.trained = {};
  // All that is drawn is of the first size.
  merged.buckets.clear();
  std::unique_ptr<Sampler> sampler(new Sampler(
      std::make_unique<Own>(merged, whole, layout, device, factory)));
  RETURN_IF_ERROR(sampler->model_->status());
  return sampler;
}

Sampler::Sampler(std::unique_ptr<Own> own)
    : setup_(own->setup),
      own_(std::move(own)),
      model_(&own_->model),
      forward_(&own_->forward),
      microbatch_size_(0) {}

Sampler::Sampler(const TrainingSetup& setup, LocalModel& model,
                 StageForward& forward, int64_t microbatch_size)
    : setup_(setup),
      model_(&model),
      forward_(&forward),
      microbatch_size_(microbatch_size) {}

Sampler::~Sampler() = default;

int64_t Sampler::batch_size() const {
  return microbatch_size_ > 0 ? microbatch_size_ : kSampleBatch;
}

absl::StatusOr<MemoryStatistics> Sampler::PredictMemory(
    const TrainingSetup& setup, const Plan& plan, int rank,
    const SamplerOptions& options, int64_t samples, DeviceKind kind) {
  const std::unique_ptr<Device> device =
      MakeDryDevice(kind, setup.kernel_libraries);
  DryWorld world(rank, static_cast<int>(NumRanks(plan)));
  ASSIGN_OR_RETURN(const std::unique_ptr<Sampler> sampler,
                   Create(setup, plan, *device, world));
  RETURN_IF_ERROR(sampler->Rehearse(options, samples));
  return device->Statistics();
}

absl::Status Sampler::Rehearse(const SamplerOptions& options, int64_t samples) {
  // Heun's second slope comes in all steps but the last: two take what all do.
  SamplerOptions few_steps = options;
  few_steps.steps = std::min<int64_t>(options.steps, 2);
  // No later round has more.
  const int64_t replicas = model_->grid().size(Axis::kData);
  std::vector<Sample> prompts(std::min(samples, replicas * batch_size()));
  for (Sample& prompt : prompts) prompt.class_id = 0;
  return Draw(few_steps, /*seed=*/0, prompts).status();
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
  for (size_t i = 0; i < own_->weights.size(); ++i) {
    const Own::Weights& weights = own_->weights[i];
    for (const auto& parameter : model_->parts()[i].store->parameters()) {
      if (weights.shards == nullptr || !parameter->trainable) {
        add(*parameter, parameter->value, {0, parameter->local_elements()});
      }
    }
    if (weights.shards == nullptr) continue;
    const ParameterBuckets& buckets = *weights.buckets;
    for (int b = 0; b < buckets.size(); ++b) {
      for (size_t p = 0; p < buckets[b].parameters.size(); ++p) {
        const int at = static_cast<int>(p);
        const ElementRange range = buckets[b].Owned(at);
        if (range.size() == 0) continue;
        add(*buckets[b].parameters[p], weights.shards->OwnedValue(b, at),
            range);
      }
    }
  }
  return parts;
}

absl::Status Sampler::LoadWeights(const TensorSource& source) {
  absl::Status status;
  for (const TensorPart& part : WeightParts()) {
    status = stop_ != nullptr && stop_()
                 ? absl::CancelledError("stopped while weights were read")
                 : ReadParts(source, {&part, 1});
    if (!status.ok()) break;
  }
  if (status.ok()) status = model_->status();
  // Reading takes one rank longer than another.
  AwaitAllPatiently(model_->communicators().world(), "weights to draw with");
  return control().Agree(status, "weights to draw with");
}

bool Sampler::Stops() {
  if (stop_ == nullptr || stopped_) return stopped_;
  std::array<int64_t, 1> any = {stop_()};
  control().Max(any, "whether drawing goes on");
  stopped_ = any[0] != 0;
  return stopped_;
}

Tensor Sampler::PassAround(Tensor velocity, const Shape& shape) {
  const int ranks = model_->grid().size(Axis::kPipeline);
  const int own = model_->grid().coordinate(Axis::kPipeline);
  const int last = forward_->last_rank();
  const int position = (own - last + ranks) % ranks;
  if (position > 0) {
    velocity = Tensor::Empty(model_->device(), shape, predicted_type());
    model_->communicators()
        .PipelineReceive((own + ranks - 1) % ranks)
        .Receive(velocity, Communicators::kSender, kTag, "velocity")
        .Wait();
  }
  if (position < ranks - 1) {
    model_->communicators()
        .PipelineSend((own + 1) % ranks)
        .Send(velocity, Communicators::kReceiver, kTag, "velocity")
        .Wait();
  }
  return velocity;
}

Tensor Sampler::Prediction(const Tensor& x, double time, Batch batch) {
  // What is left of the steps costs nothing then, and comes to nothing.
  if (Stops()) {
    return Tensor::Zeros(model_->device(),
                         setup_.family->predictions().ShapeOf(batch.size()),
                         DType::kFloat32);
  }
  batch.fields[setup_.family->samples().name].values = x;
  const std::vector<float> values(batch.size(), static_cast<float>(time));
  const Tensor times =
      Tensor::FromValues<float>(model_->device(), {batch.size()}, values);
  batch.fields[kTimeField].values =
      setup_.dtype == DType::kFloat64 ? Cast(times, DType::kFloat64) : times;
  return As(DType::kFloat32, Evaluate(std::move(batch)));
}

Tensor Sampler::Evaluate(Batch batch) {
  const Shape shape = setup_.family->predictions().ShapeOf(batch.size());
  Tensor prediction;
  const Evaluation evaluation(prediction);
  model_->inputs().Set(std::move(batch), evaluation);
  forward_->Run(/*microbatch=*/0);
  Tensor samples;
  if (prediction.defined()) {
    samples = setup_.family->ToSamples(As(predicted_type(), prediction));
  }
  return PassAround(std::move(samples), shape);
}

absl::StatusOr<std::vector<double>> Sampler::Predict(Batch batch) {
  const Tensor prediction = As(DType::kFloat64, Evaluate(std::move(batch)));
  RETURN_IF_ERROR(control().Agree(model_->status(), "predictions"));
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
    with = ToTensor(model_->device(), spec, n, values);
    const std::optional<int32_t> none = family.NoCondition(spec.name);
    if (none.has_value()) values = std::vector<int32_t>(n, *none);
    conditions.without.fields[spec.name].values =
        none.has_value() ? ToTensor(model_->device(), spec, n, values) : with;
  }
  return conditions;
}

std::vector<float> Sampler::Integrate(const SamplerOptions& options,
                                      uint64_t seed, int64_t begin,
                                      const Conditions& conditions) {
  const FieldSpec drawn = setup_.family->samples();
  const int64_t elements = drawn.shape.num_elements();
  const int64_t n = conditions.with.size();
  const auto noise_of = [&](int64_t step) {
    std::vector<float> noise(n * elements);
    for (int64_t i = 0; i < n; ++i) {
      RandomStream({.seed = seed,
                    .step = static_cast<uint64_t>(step),
                    .sample = static_cast<uint64_t>(begin + i),
                    .purpose = RandomPurpose::kSampling})
          .FillNormal(0,
                      std::span<float>(noise.data() + i * elements, elements));
    }
    return Tensor::FromValues<float>(model_->device(), drawn.ShapeOf(n), noise);
  };
  const Tensor start = noise_of(0);
  const PredictionFunction predict = [&](const Tensor& x, double time,
                                         bool conditional) {
    return Prediction(x, time,
                      conditional ? conditions.with : conditions.without);
  };
  const NoiseSchedule* schedule = setup_.objective->noise_schedule();
  const Tensor result =
      schedule == nullptr
          ? SampleFlow(options, predict, start)
          : SampleDiffusion(
                options, *schedule, predict,
                // Step 0 is the start's.
                [&](int64_t step) { return noise_of(step + 1); }, start);
  return result.ToVector<float>();
}

absl::StatusOr<std::vector<float>> Sampler::Draw(
    const SamplerOptions& options, uint64_t seed,
    std::span<const Sample> prompts) {
  const ProcessGrid& grid = model_->grid();
  const int replicas = grid.size(Axis::kData);
  const int replica = grid.coordinate(Axis::kData);
  const bool speaks = grid.coordinate(Axis::kTensor) == 0 &&
                      grid.coordinate(Axis::kContext) == 0 &&
                      grid.coordinate(Axis::kPipeline) == 0;
  const int64_t elements = setup_.family->samples().shape.num_elements();
  const auto count = static_cast<int64_t>(prompts.size());
  std::vector<float> samples(count * elements);
  const int64_t batch = batch_size();
  for (int64_t round = 0; round < count; round += replicas * batch) {
    // A replica without samples of its own draws others' again, since replicas
    // gather sharded parameters together.
    const int64_t own = round + replica * batch;
    const int64_t begin = own < count ? own : round;
    const int64_t n = std::min(batch, count - begin);
    std::vector<Sample> of_batch(prompts.begin() + begin,
                                 prompts.begin() + begin + n);
    // Chunks that have microbatches of one size get it.
    if (microbatch_size_ > 0) of_batch.resize(batch, of_batch.back());
    const absl::StatusOr<Conditions> conditions = ConditionsOf(of_batch);
    RETURN_IF_ERROR(control().Agree(conditions.status(), "prompts"));
    std::vector<float> drawn =
        setup_.family->grammar() != nullptr
            ? Continue(options, seed, begin, *conditions)
            : Integrate(options, seed, begin, *conditions);
    if (stopped_) {
      return absl::CancelledError("stopped while samples were drawn");
    }
    drawn.resize(n * elements);
    RETURN_IF_ERROR(control().Agree(model_->status(), "drawn samples"));
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
