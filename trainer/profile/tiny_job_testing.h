// A job whose pieces are quickly timed.

#ifndef TRIREME_TRAINER_PROFILE_TINY_JOB_TESTING_H_
#define TRIREME_TRAINER_PROFILE_TINY_JOB_TESTING_H_

#include <cstdint>
#include <memory>

#include "models/dit/dit_family.h"
#include "models/objective/rectified_flow.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

struct TinyJobOptions {
  // Of square pictures, in patches of 2 pixels.
  int64_t side = 16;
  int64_t global_batch = 8;
};

inline TrainingSetup TinyJob(const TinyJobOptions& options = {}) {
  DitConfig config;
  config.image = {.channels = 1, .height = options.side, .width = options.side};
  config.patch = 2;
  config.hidden = 64;
  config.heads = 4;
  config.mlp_hidden = 256;
  config.layers = 2;
  config.classes = 3;
  TrainingSetup setup;
  setup.family = MakeDitFamily(config);
  setup.objective = std::make_shared<RectifiedFlowObjective>(
      RectifiedFlowConfig(), /*seed=*/0, options.global_batch);
  setup.dtype = DType::kFloat32;
  setup.global_batch = options.global_batch;
  return setup;
}

}  // namespace trireme

#endif  // TRIREME_TRAINER_PROFILE_TINY_JOB_TESTING_H_
