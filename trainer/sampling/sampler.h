// Draws samples from a model under a plan, one of its own or one that trains: a
// model that needs several ranks is drawn from by as many. Microbatches go
// through the pipeline one after the other; data-parallel replicas draw
// different samples.

#ifndef TRIREME_TRAINER_SAMPLING_SAMPLER_H_
#define TRIREME_TRAINER_SAMPLING_SAMPLER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/batch.h"
#include "models/data/dataset.h"
#include "models/sampling/flow_sampler.h"
#include "models/weights/tensor_source.h"
#include "runtime/device/compute_device.h"
#include "scheduler/plan/plan.pb.h"
#include "trainer/rank/local_model.h"
#include "trainer/rank/stage_forward.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

class Sampler {
 public:
  // `plan` is resolved and valid for the setup; of a partial pipeline samples
  // visit all stages. Collective over the factory's world. Device and factory
  // outlive the sampler. Errors: out of memory; a partial pipeline whose stages
  // have unlike numbers of ranks, more than the model has blocks.
  static absl::StatusOr<std::unique_ptr<Sampler>> Create(
      const TrainingSetup& setup, const Plan& plan, Device& device,
      CommunicatorFactory& factory);
  ~Sampler();

  // Draws from a model that others made, `microbatch_size` samples at a time,
  // as its chunks have them. All outlive the sampler.
  Sampler(const TrainingSetup& setup, LocalModel& model, StageForward& forward,
          int64_t microbatch_size);

  // From now on every rank asks before each evaluation of the model, and while
  // weights are read: where one is told so, Draw and LoadWeights end with
  // Cancelled on all. On all ranks or none.
  void StopWhen(std::function<bool()> stop) { stop_ = std::move(stop); }

  // The memory that `rank` needs to draw `samples` on a device of the kind,
  // from a dry run.
  static absl::StatusOr<MemoryStatistics> PredictMemory(
      const TrainingSetup& setup, const Plan& plan, int rank,
      const SamplerOptions& options, int64_t samples,
      DeviceKind kind = DeviceKind::kCpu);

  // Of a model of the sampler's own: reads this rank's parts of every
  // parameter. Collective over the world; the same status on every rank.
  absl::Status LoadWeights(const TensorSource& source);

  // What Draw does at most with any number of prompts, on a dry device: few
  // steps of one full round.
  absl::Status Rehearse(const SamplerOptions& options, int64_t samples);

  // One sample for each prompt, whose class and text are what it is drawn for:
  // fp32 [n, ..] of the shape that the model learns, one after the other; on
  // world rank 0, empty elsewhere. Sample i's noise depends on (seed, i) only.
  // Collective over the world, with the same arguments. Errors: a prompt that
  // does not fit the model; out of memory.
  absl::StatusOr<std::vector<float>> Draw(const SamplerOptions& options,
                                          uint64_t seed,
                                          std::span<const Sample> prompts);

  // What the model predicts (ModelFamily::predictions), on every rank: in fp32,
  // or fp64 where it computes so.
  // `batch` has the family's fields, of as many samples as there may be, and
  // the times of each (kTimeField), if there are times. Collective over the
  // world, with the same batch; every replica evaluates all of it. Errors: out
  // of memory.
  absl::StatusOr<std::vector<double>> Predict(Batch batch);

  // Whatever else the ranks agree on.
  Control& control() { return model_->communicators().control(); }

 private:
  // A model of the sampler's own.
  struct Own;
  explicit Sampler(std::unique_ptr<Own> own);

  // Whether any rank is to stop. Collective.
  bool Stops();
  // Samples in one forward pass of a replica.
  int64_t batch_size() const;
  std::vector<TensorPart> WeightParts();
  // What a model is evaluated with, but for the samples themselves.
  struct Conditions {
    Batch with;
    Batch without;
  };
  absl::StatusOr<Conditions> ConditionsOf(std::span<const Sample> prompts);
  // Samples from number `begin` on, on each rank of the replica: sequences of
  // tokens (sequence_drawing.cc), or what is integrated as a whole.
  std::vector<float> Continue(const SamplerOptions& options, uint64_t seed,
                              int64_t begin, const Conditions& conditions);
  std::vector<float> Integrate(const SamplerOptions& options, uint64_t seed,
                               int64_t begin, const Conditions& conditions);
  // fp32 [n, vocabulary] on every rank, of what follows the token of each
  // sequence that the batch holds and those before it.
  Tensor NextLogits(Batch batch, KeyValueCache& cache);
  // fp32, as the samples.
  Tensor Prediction(const Tensor& x, double time, Batch batch);
  // Of predicted_type().
  Tensor Evaluate(Batch batch);
  DType predicted_type() const {
    return setup_.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  }
  // The prediction of the last stage on every rank of the pipeline.
  Tensor PassAround(Tensor velocity, const Shape& shape);

  TrainingSetup setup_;
  std::unique_ptr<Own> own_;  // null: the model is others'
  LocalModel* model_;
  StageForward* forward_;
  // Of the model's chunks; 0: any.
  int64_t microbatch_size_;
  std::function<bool()> stop_;
  bool stopped_ = false;  // the same on all ranks
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_SAMPLING_SAMPLER_H_
