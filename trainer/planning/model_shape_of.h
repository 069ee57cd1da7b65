// A job's model as the planner sees it.

#ifndef TRIREME_TRAINER_PLANNING_MODEL_SHAPE_OF_H_
#define TRIREME_TRAINER_PLANNING_MODEL_SHAPE_OF_H_

#include "scheduler/pieces/model_shape.h"
#include "trainer/rank/training_setup.h"

namespace trireme {

// With its pieces (trainer/planning/recorded_pieces.h), each split of which is
// run once and kept. `expert_load`: rows of the rank whose experts have most,
// over those of even routing.
ModelShape ModelShapeOf(const TrainingSetup& setup, double expert_load = 1);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PLANNING_MODEL_SHAPE_OF_H_
