// What a run needs to know of its job, resolved: plain values that the trainer
// computes with. Made from a Job by ResolveJob (trainer/job/job.h).

#ifndef TRIREME_TRAINER_RANK_TRAINING_SETUP_H_
#define TRIREME_TRAINER_RANK_TRAINING_SETUP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "models/data/encoder_drops.h"
#include "models/family.h"
#include "models/objective/objective.h"
#include "parallel/optimizer/loss_scaler.h"
#include "parallel/optimizer/optimizer.h"
#include "parallel/parameters/float8_layers.h"
#include "parallel/parameters/trained_parameters.h"
#include "runtime/core/dtype.h"
#include "runtime/device/kernel_libraries.h"

namespace trireme {

struct LearningRateSchedule {
  enum class Decay { kConstant, kCosine, kLinear };

  double peak = 1e-4;
  int64_t warmup_steps = 0;
  Decay decay = Decay::kConstant;
  // Of the last step, where it decays.
  double final = 0;
  int64_t total_steps = 1;

  // Of step `step`, from 1: linear to the peak, then constant, half a cosine or
  // a line to what the last step has.
  double At(int64_t step) const;
};

// Where the values lie of what does not train: a folder that OpenWeights takes.
struct BaseWeights {
  std::string weights;
  bool ema = false;
};

// The model at one of the sizes that pictures come in.
struct SizedFamily {
  PictureSize size;
  std::shared_ptr<const ModelFamily> family;
};

struct TrainingSetup {
  std::shared_ptr<const ModelFamily> family;
  // By bucket (Batch::bucket), where pictures come in several sizes: the first,
  // which has most tokens, is `family`. Empty where they come in one.
  std::vector<SizedFamily> buckets;
  std::shared_ptr<const Objective> objective;
  double sampling_shift = 1;  // SamplerOptions::shift
  OptimizerOptions optimizer;
  LearningRateSchedule learning_rate;
  DType dtype = DType::kBFloat16;
  KernelLibraries kernel_libraries;
  LossScalerOptions loss_scale;  // enabled for fp16
  uint64_t seed = 0;
  int64_t global_batch = 1;
  std::vector<DroppedEncoder> encoder_drops;
  TrainedParameters trained;
  Float8Layers float8;
  BaseWeights base;  // empty where everything trains
};

}  // namespace trireme

#endif  // TRIREME_TRAINER_RANK_TRAINING_SETUP_H_
